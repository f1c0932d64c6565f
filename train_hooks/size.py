"""The size of a training sample."""

import re
from typing import NamedTuple


class Size(NamedTuple):
    """Pixels and frames of the samples of one bucket."""

    width_px: int
    height_px: int
    frames: int

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}x{self.frames}"

    @classmethod
    def named(cls, text: str) -> "Size":
        """Parses `256x256x16`. Raises ValueError for a malformed size."""
        found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text.strip())
        if found is None:
            raise ValueError(f"'{text}' is not a size such as 256x256x16 (width, height, frames)")
        return cls(*map(int, found.groups()))
