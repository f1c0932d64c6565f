"""The pipeline file: its model, the lines of its keys, edits, buckets."""
