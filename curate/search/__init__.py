"""The search index over captions and thumbnails (LanceDB)."""
