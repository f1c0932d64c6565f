"""Parquet tables that grow by parts: storage, keys, claims, leases, compaction, and conditions on their columns."""
