"""Everything that imports Ray: units of work in, receipts out."""
