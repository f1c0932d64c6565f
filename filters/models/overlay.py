"""Text overlays: whether text is over the picture (subtitle, caption, logo, ticker) or part of the scene, by how it moves.

A box of text is

- `overlay` if its edges stay exactly in place while the edges of the rest of the picture do not,
  or if it slides along its own line and its surroundings do not slide with it (a ticker);
- `scene` if it moved, or disappeared, while the picture moved;
- `still` if the picture never moved: overlay and scene cannot be distinguished.

The measure is the coherence of two frames' gradients over a region, in [-1, 1]: the sum of their dot products over the
maximum of the sums of their squares. 1: the same edges at the same places; 0: unrelated edges. "Exactly" means that
no shift of up to `REACH_PX` agrees better than no shift: this also excludes a sign near the centre of a slow
zoom, which moves by a pixel or two. A frame is compared with the nearest one, on either side, at which the coherence of the rest of
the picture (without black bars and text boxes) is below `MOVED`: nearest, because a subtitle changes; either
side, because it may have just appeared or be about to disappear. A tripod shot of people walking does not count as moving: most
edges stay.

All of it is ours; judging an overlay by what changes around it is the idea of Dekel et al., CVPR 2017. The
four constants were set on lines drawn on every second photograph of coco_mini under a moving camera; results on
the others are in `benchmarks/filters_overlay.py`.

T frames, H height, W width, in pixels; a gradient field is (2, H, W): d/dx, d/dy in grey levels per pixel.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

MOVED = 0.4
"""The picture has moved if the coherence of its other edges is below this."""
STAYS = 0.25
"""Minimum agreement of a box that stays in place, which must also be the maximum nearby."""
REACH_PX = 8
SLIDES = 0.45
"""Minimum agreement of a ticker's line with itself at its new place, at least `REACH_PX` away."""

Kind = Literal["overlay", "scene", "still"]
Field = NDArray[np.float32]


def gradients(grey_HW: NDArray[np.generic], blur_px: float = 1.0) -> Field:
    """Gradient of a slightly blurred grey frame, central differences."""
    smooth = cv2.GaussianBlur(np.asarray(grey_HW, dtype=np.float32), (0, 0), blur_px)
    both = [cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx, ksize=1, scale=0.5) for dx in (1, 0)]
    return np.asarray(np.stack(both), dtype=np.float32)


def coherence(one: Field, other: Field, mask_HW: NDArray[np.bool_] | None = None) -> float:
    """Coherence of two gradient fields, [-1, 1]; 1 if neither has an edge."""
    if mask_HW is not None:
        one, other = one[:, mask_HW], other[:, mask_HW]
    floor = 0.1 * one[0].size  # noise and compression on a plain surface
    scale = max(float((one**2).sum(dtype=np.float64)), float((other**2).sum(dtype=np.float64)))
    return 1.0 if scale <= floor else float((one * other).sum(dtype=np.float64) / scale)


def _agreement(part: Field, window: Field) -> NDArray[np.float32]:
    """Normalised correlation of a small field with every place of a larger one."""
    found = cv2.matchTemplate(
        np.ascontiguousarray(window.transpose(1, 2, 0)),
        np.ascontiguousarray(part.transpose(1, 2, 0)),
        cv2.TM_CCORR_NORMED,
    )
    return np.nan_to_num(np.asarray(found, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def stays_put(one: Field, other: Field, rows: slice, columns: slice) -> bool:
    """Whether the edges of a box in one frame are at exactly the same place in the other."""
    top_px, left_px = max(0, rows.start - REACH_PX), max(0, columns.start - REACH_PX)
    window = other[:, top_px : rows.stop + REACH_PX, left_px : columns.stop + REACH_PX]
    found = _agreement(one[:, rows, columns], window)
    here = found[rows.start - top_px, columns.start - left_px]
    return bool(here >= STAYS and here >= 0.97 * found.max())


def slide_px(one: Field, other: Field, rows: slice, columns: slice) -> int | None:
    """Displacement of a line of text along itself; None if it is not found at another place of the same rows."""
    quarter_px = (columns.stop - columns.start) // 4  # its ends may be outside the picture
    part = one[:, rows, columns.start + quarter_px : columns.stop - quarter_px]
    if min(part.shape[1:]) < 4:
        return None
    band = other[:, max(0, rows.start - 1) : rows.stop + 1]
    _, best, _, (at_px, _) = cv2.minMaxLoc(_agreement(part, band))
    dx_px = int(at_px - columns.start - quarter_px)
    return dx_px if best >= SLIDES and abs(dx_px) >= REACH_PX else None


def moves_with(one: Field, other: Field, rows: slice, columns: slice, dx_px: int) -> bool:
    """Whether the regions above and below a box slid with it: they agree better after the shift than without it."""
    height_px = rows.stop - rows.start
    gap_px = height_px // 4
    here = slice(columns.start + max(0, -dx_px), columns.stop - max(0, dx_px))
    there = slice(columns.start + max(0, dx_px), columns.stop - max(0, -dx_px))
    above = slice(max(0, rows.start - gap_px - 2 * height_px), max(0, rows.start - gap_px))
    below = slice(rows.stop + gap_px, rows.stop + gap_px + 2 * height_px)
    for beside in (above, below):
        before, slid, unmoved = one[:, beside, here], other[:, beside, there], other[:, beside, here]
        if before.size and before.shape == slid.shape and coherence(before, slid) > coherence(before, unmoved) + 0.15:
            return True
    return False


class TextMotion:
    """The grey thumbnails of one clip, and their gradient fields, computed lazily and once."""

    def __init__(self, greys_THW: NDArray[np.uint8], lit: tuple[slice, slice]) -> None:
        """Grey frames, and the rows and columns inside black bars."""
        self.greys_THW = greys_THW
        self.inside_HW = np.zeros(greys_THW.shape[1:], dtype=bool)
        rows, columns = lit
        self.inside_HW[rows.start + 3 : rows.stop - 3, columns.start + 3 : columns.stop - 3] = True
        self._fields: dict[int, Field] = {}

    def field(self, index: int) -> Field:
        """Gradient field of one frame."""
        if index not in self._fields:
            self._fields[index] = gradients(self.greys_THW[index])
        return self._fields[index]

    def kinds(self, index: int, boxes_N42: NDArray[np.float32]) -> list[Kind]:
        """The kind of each box of text in frame `index`."""
        if not len(boxes_N42):
            return []
        spans = [self._span(box) for box in boxes_N42]
        rest_HW = self.inside_HW.copy()
        for rows, columns in spans:
            margin_px = (rows.stop - rows.start) // 2
            rest_HW[
                max(0, rows.start - margin_px) : rows.stop + margin_px,
                max(0, columns.start - margin_px) : columns.stop + margin_px,
            ] = False
        if rest_HW.mean() < 0.1:  # text everywhere (a page, a screen): no rest to compare
            return ["still"] * len(spans)
        moved = [other for side in (-1, 1) if (other := self._moved(index, side, rest_HW)) is not None]
        return [self._kind(index, span, moved) for span in spans]

    def _span(self, box_42: NDArray[np.float32]) -> tuple[slice, slice]:
        height_px, width_px = self.greys_THW.shape[1:]
        low, high = np.floor(box_42.min(axis=0)).astype(int) - 2, np.ceil(box_42.max(axis=0)).astype(int) + 3
        return slice(max(0, low[1]), min(height_px, high[1])), slice(max(0, low[0]), min(width_px, high[0]))

    def _moved(self, index: int, side: int, rest_HW: NDArray[np.bool_]) -> int | None:
        """The nearest frame on one side at which the rest of the picture has moved."""
        last = -1 if side < 0 else len(self.greys_THW)
        for other in range(index + side, last, side):
            if coherence(self.field(index), self.field(other), rest_HW) < MOVED:
                return other
        return None

    def _kind(self, index: int, span: tuple[slice, slice], moved: list[int]) -> Kind:
        if not moved:
            return "still"
        rows, columns = span
        here = self.field(index)
        for there in map(self.field, moved):
            if stays_put(here, there, rows, columns):
                return "overlay"
            dx_px = slide_px(here, there, rows, columns)
            if dx_px is not None and not moves_with(here, there, rows, columns, dx_px):
                return "overlay"
        return "scene"
