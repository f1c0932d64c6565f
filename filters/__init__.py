"""One measurement per file: clips in, columns out, thumbnails only."""

from filters.motion import Motion
from filters.text_area import TextArea

__all__ = ["Motion", "TextArea"]
