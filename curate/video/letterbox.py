"""Black bars: the box of the picture inside the bars.

A row or column is part of a bar when it is black from end to end in every picture of the clip. In a clip that is dark all over, bars cannot be
detected.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLACK = 24
"""Maximum value (0..255) of any colour in a bar; compression does not keep black at 0. Ours."""
LEAST_LIT = 0.2
"""Minimum lit share of the height and of the width; below it the picture counts as dark. Ours."""


class Box(NamedTuple):
    """Part of a picture, in pixels from its top left: columns [x, x + width), rows [y, y + height)."""

    x: int
    y: int
    width: int
    height: int


def lit_box(picture_HWC: NDArray[np.uint8]) -> Box:
    """The box of a picture, 0..255, shape (H, W, 3), without its black bars; width and height are 0 when all is black."""
    height_px, width_px = picture_HWC.shape[:2]
    edges = (picture_HWC[0], picture_HWC[-1], picture_HWC[:, 0], picture_HWC[:, -1])
    if all(edge.max() > BLACK for edge in edges):
        return Box(0, 0, width_px, height_px)
    # A step of 25 bytes is 8 pixels and a channel, so each row is sampled in all three colours. NumPy's maximum is faster on the transpose.
    brightest_row = np.ascontiguousarray(picture_HWC.reshape(height_px, -1)[:, ::25].T).max(axis=0)
    brightest_column = picture_HWC[::8].max(axis=0)
    rows = np.flatnonzero(brightest_row > BLACK)
    columns = np.flatnonzero((brightest_column > BLACK).any(axis=1))
    if not len(rows) or not len(columns):
        return Box(0, 0, 0, 0)
    return Box(int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1))


def common_box(boxes: Sequence[Box], seen_px: tuple[int, int], full_px: tuple[int, int]) -> Box:
    """The box that holds the lit boxes of all pictures of a clip.

    Args:
        boxes: lit boxes in pictures of the size `seen_px`.
        seen_px: (width, height) of those pictures.
        full_px: (width, height) of the picture for which the box is returned. Edges are rounded inwards, so that no line of a bar remains, and
            sides to even numbers, which encoders require.

    Returns the whole picture when there are no bars, or when too little is lit to detect them.
    """
    lit = [box for box in boxes if box.width and box.height]
    left, top = min((b.x for b in lit), default=0), min((b.y for b in lit), default=0)
    right, bottom = max((b.x + b.width for b in lit), default=0), max((b.y + b.height for b in lit), default=0)
    if right - left < LEAST_LIT * seen_px[0] or bottom - top < LEAST_LIT * seen_px[1]:
        return Box(0, 0, *full_px)
    x, width = _inward(left, right, seen_px[0], full_px[0])
    y, height = _inward(top, bottom, seen_px[1], full_px[1])
    return Box(x, y, width, height)


def _inward(start: int, stop: int, seen: int, full: int) -> tuple[int, int]:
    """(offset, length) of the range [start, stop) of `seen` pixels, scaled to `full` pixels."""
    if start == 0 and stop == seen:
        return 0, full
    scale = full / seen
    # The outermost lit line of a scaled picture is partly bar.
    first = 0 if start == 0 else math.ceil((start + (scale > 1)) * scale - 1e-6)
    last = full if stop == seen else math.floor((stop - (scale > 1)) * scale + 1e-6)
    first += first % 2
    return first, max(2, (last - first) // 2 * 2)
