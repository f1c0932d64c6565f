"""One measurement per file: clips in, columns out, thumbnails only."""
