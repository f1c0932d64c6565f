"""Exports the shards in the formats of other trainers and tools."""
