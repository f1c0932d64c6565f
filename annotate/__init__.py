"""One captioner per file: clips in, a caption and what is known about it out."""
