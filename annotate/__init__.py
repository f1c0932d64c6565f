"""One captioner per file: clips in, a caption and what is known about it out."""

from annotate.labels import Labels
from annotate.minilm import MiniLM

__all__ = ["Labels", "MiniLM"]
