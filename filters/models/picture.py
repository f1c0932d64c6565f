"""Picture area: the part of a frame that the camera recorded, without black bars and overlays.

Functions for filters of motion, text and quality.

- A bar is a run of rows or columns at the edge that is black (no colour above 24 of 255) in every frame of the clip, by the
  rule of `curate/video/letterbox.py`. White bars, blurred bars and bars with a subtitle count as picture. `lit_area`
  allows 1 % of a line to be brighter (JPEG rings beside a bar), for filters that use edges.
- An overlay is an edge pattern that stays in place to the pixel from one frame to the next while almost all around it moves: a
  logo, a subtitle, a caption bar. A still background is not an overlay, as most of the picture is still then. Anything that is still
  *and* small *and* surrounded by motion counts as an overlay, for example the frame of a car's window.

The constants for overlays are ours, set on the even half of coco_mini (by name), moved, with a logo, a subtitle, a
caption bar and a half-transparent word drawn on; `benchmarks/filters_motion.py` has results on the other half.

T frames, H height, W width, in pixels; C = 3, RGB 0..255. `h`, `w`: a smaller copy.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

BLACK = 24
LEAST_LIT = 0.2
"""Minimum share of height and width inside the bars; below it the clip is dark, not letterboxed."""
OVERLAY_SIDE_PX = 180
EDGE = 60.0
"""Sobel magnitude of an edge, at 180 px: a step of 15 of 255."""
STILL = 0.25
"""Maximum relative change of an edge's gradient for the edge to count as still."""
TWO_WAYS = 0.03
"""Minimum l1 l2 / (l1 + l2)^2 of the structure tensor of a pattern: it excludes lines, which look still when they slide along themselves."""
LEAST_PIXELS = 20
"""Minimum edge pixels of a pattern."""
MOST_STILL = 0.3
"""Maximum share of all edges in an overlay; above it the picture itself is still."""


def short_side(frame: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """The frame, (H, W) or (H, W, C), scaled to a given short side."""
    height_px, width_px = frame.shape[:2]
    scale = side_px / min(height_px, width_px)
    size_px = (max(side_px, round(width_px * scale)), max(side_px, round(height_px * scale)))
    how = cv2.INTER_AREA if scale <= 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, size_px, interpolation=how), dtype=np.uint8)


def grey(frame_HWC: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """The frame in grey with a given short side."""
    return short_side(np.asarray(cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY), dtype=np.uint8), side_px)


def without_bars(frames_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A view of the frames without their black bars; the full frames if they have no bars or are almost black."""
    sides = (frames_THWC[:, 0], frames_THWC[:, -1], frames_THWC[:, :, 0], frames_THWC[:, :, -1])
    if all(side.max() > BLACK for side in sides):
        return frames_THWC
    brightest_HW = frames_THWC.max(axis=(0, 3))
    rows = np.flatnonzero(brightest_HW.max(axis=1) > BLACK)
    columns = np.flatnonzero(brightest_HW.max(axis=0) > BLACK)
    height_px, width_px = brightest_HW.shape
    if not len(rows) or np.ptp(rows) < LEAST_LIT * height_px or np.ptp(columns) < LEAST_LIT * width_px:
        return frames_THWC
    (top, bottom), (left, right) = _inward(rows, height_px), _inward(columns, width_px)
    return frames_THWC[:, top:bottom, left:right]


def lit_area(lumas_THW: NDArray[np.generic]) -> tuple[slice, slice]:
    """Rows and columns inside black bars; the whole picture if all of it is dark."""
    brightest_HW = np.asarray(lumas_THW).max(axis=0)
    spans = []
    for axis in (1, 0):
        lit = np.flatnonzero(np.percentile(brightest_HW, 99, axis=axis) > BLACK)
        spans.append(slice(int(lit[0]), int(lit[-1]) + 1) if len(lit) else slice(0, 0))
    if min(span.stop - span.start for span in spans) < 16:
        return slice(0, brightest_HW.shape[0]), slice(0, brightest_HW.shape[1])
    return spans[0], spans[1]


def _inward(lit: NDArray[np.intp], length_px: int) -> tuple[int, int]:
    """Span from the first to the last lit line, minus one line at a bar, which scaling mixes with the bar."""
    first, last = int(lit[0]), int(lit[-1]) + 1
    return first + (first > 0), last - (last < length_px)


class Edges(NamedTuple):
    """Sobel derivatives of a frame in grey at a 180 px short side, along x and y, and their magnitude; each (h, w)."""

    x_hw: NDArray[np.float32]
    y_hw: NDArray[np.float32]
    strength_hw: NDArray[np.float32]


def edges(frame_HWC: NDArray[np.uint8]) -> Edges:
    """The edges of one frame."""
    grey_hw = grey(frame_HWC, OVERLAY_SIDE_PX)
    x_hw, y_hw = cv2.Sobel(grey_hw, cv2.CV_32F, 1, 0), cv2.Sobel(grey_hw, cv2.CV_32F, 0, 1)
    return Edges(x_hw, y_hw, cv2.magnitude(x_hw, y_hw))


def still_pattern(before: Edges, after: Edges) -> NDArray[np.uint8] | None:
    """Possible overlays: patterns that two frames share to the pixel, closed to areas.

    Returns:
        0 or 1, shape (h, w); None if there is no such pattern or it is most of the picture.
    """
    strength = cv2.max(before.strength_hw, after.strength_hw)
    change = cv2.magnitude(before.x_hw - after.x_hw, before.y_hw - after.y_hw)
    edge = strength > EDGE
    still = edge & (change < STILL * strength)
    if np.count_nonzero(still) < LEAST_PIXELS:
        return None
    # A single still pixel is chance; in an overlay most edges around it stay too.
    near = [cv2.boxFilter(what.astype(np.float32), -1, (9, 9)) for what in (still, edge)]
    still &= near[0] > 0.5 * near[1]
    if np.count_nonzero(still) < LEAST_PIXELS:
        return None
    joined = cv2.dilate(still.astype(np.uint8), np.ones((7, 7), np.uint8))
    count, label = cv2.connectedComponents(joined)
    at, gx, gy = label[still], before.x_hw[still].astype(np.float64), before.y_hw[still].astype(np.float64)
    xx, yy, xy, n = (np.bincount(at, w, count) for w in (gx * gx, gy * gy, gx * gy, np.ones_like(gx)))
    pattern = (xx * yy - xy * xy > TWO_WAYS * (xx + yy) ** 2) & (n >= LEAST_PIXELS)
    pattern[0] = False
    if not 0 < np.count_nonzero(still & pattern[label]) <= MOST_STILL * np.count_nonzero(edge):
        return None
    wide = 25  # the inside of a caption bar has no edges
    mask = cv2.copyMakeBorder(pattern[label].astype(np.uint8), wide, wide, wide, wide, cv2.BORDER_CONSTANT)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((wide, wide), np.uint8))
    return np.ascontiguousarray(mask[wide:-wide, wide:-wide])


def filled(frame_HWC: NDArray[np.uint8], mask_hw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame with the masked part replaced by a blur of its surroundings, which moves with them."""
    height_px, width_px = frame_HWC.shape[:2]
    small_hwC = cv2.resize(frame_HWC, mask_hw.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    seen_hw = 1 - mask_hw.astype(np.float32)
    weight_hw = cv2.GaussianBlur(seen_hw, (0, 0), 8)
    around_hwC = cv2.GaussianBlur(small_hwC * seen_hw[..., None], (0, 0), 8) / np.maximum(weight_hw, 1e-4)[..., None]
    around_HWC = cv2.resize(around_hwC, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    mask_HW = cv2.resize(mask_hw, (width_px, height_px), interpolation=cv2.INTER_NEAREST)
    return np.where(mask_HW[..., None] > 0, np.clip(around_HWC, 0, 255).astype(np.uint8), frame_HWC)
