"""An opened run directory, read only: tables, claims, the wide view, selection, ledger."""
