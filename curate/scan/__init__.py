"""Rows of the tables `sources` (listing, ids, headers) and `clips` (the scan, which decodes each source once)."""
