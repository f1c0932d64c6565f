"""The engine: configuration, scan, tables, Ray, selection, shards, index, report and the command line."""
