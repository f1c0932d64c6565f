"""An mp4 of one span of a source, encoded exactly or copied, and checked."""
