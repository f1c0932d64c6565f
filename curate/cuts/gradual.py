"""Dissolves and wipes: between two unlike pictures A and B, every frame is a mixture of them.

Let M be a frame between A and B, and consider the triangle A M B in the space of cells (curate/cuts/signals.py). Its sides are mean squared
differences of pairs of frames. `share` is the position of M's projection on AB, in [0, 1]; `off` is the squared distance of M from the line AB,
divided by AB squared.

    dissolve   M = (1 - s) A + s B in every cell                   M is on AB:             share = s, off = 0
    wipe       M is B in a share s of the picture, A in the rest   right angle at M:       share = s, off = s (1 - s)
    motion     M is neither                                        M is far from AB:       off > s (1 - s); 3/4 for three unrelated pictures

In a dissolve the share also grows evenly from 0 to 1. In a wipe it grows, and the area that changes moves across the picture as a straight
front, which is checked on the larger pictures. In both cases A and B must differ far more than the shots on both sides change in the same time.

All sides of all triangles come from one banded Gram matrix, so the search over all positions and lengths costs microseconds per frame. Long
transitions are detected at a half and a quarter of the rate: the three rates of SVD's cascade (Stable Video Diffusion, appendix C, which states
neither detectors nor thresholds; all figures here are ours).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.cuts.boundary import Boundary, Kind
from curate.cuts.hard import BLACK, Difference, difference, logistic, other_picture
from curate.cuts.signals import F32, Stretch, band, pool

LENGTHS = (6, 8, 10, 12, 14, 16, 20, 24, 28, 32)
"""Lengths of transitions, in frames, at the full rate; at the half and quarter rate only those from 20 up."""
RATES = (1, 2, 4)
QUARTERS = (0.25, 0.5, 0.75)
LEAST_RMS = 9.0
"""Minimum difference between the pictures on both sides, in grey levels (root mean square)."""
STILL = 4.0
"""Change of a still shot, in squared grey levels (codec noise)."""


@dataclass(frozen=True)
class _Window:
    """A candidate transition: frames [start, end), and the quality of the fit."""

    kind: Kind
    start: int
    end: int
    fit: float


def gradual_cuts(
    stretch: Stretch,
    cells_NC: F32,
    walls: Sequence[tuple[int, int]] = (),
    stride: int = 1,
    least: float = 0.5,
) -> list[Boundary]:
    """Returns the dissolves and wipes of a stretch, confidence at least `least`; frames count from its first.

    Args:
        stretch: the small pictures.
        cells_NC: their cells, (N, 216).
        walls: known boundaries, [start, end). No transition crosses one, and frames beyond one are not compared.
        stride: distance of the compared frames (2 at 60 fps), so that `LENGTHS` cover the same seconds at each rate.
        least: minimum confidence.
    """
    sides = [
        (rate * stride, band(cells_NC[:: rate * stride], LENGTHS[-1] + 2))
        for rate in RATES
        if len(cells_NC) // (rate * stride) >= LENGTHS[0] + 4
    ]
    moved = centroids(stretch)
    found: list[Boundary] = []
    for again in (
        False,
        True,
    ):  # in the second pass the boundaries found are walls, so that they do not count as motion of their neighbours
        if again and not found:
            break
        known = sorted([*walls, *((b.start, b.end) for b in found)])
        windows: list[_Window] = []
        for step, side in sides:
            fits = _search(side, known, step, [n for n in LENGTHS if step == stride or n >= 20])
            windows += [
                w for w in fits if w.kind == "dissolve" or (crosses(moved, w) and front(stretch, w.start, w.end))
            ]
        windows.sort(key=lambda w: -w.fit)
        for window in windows:
            if any(window.end > start and window.start < end for start, end in known):
                continue
            a, b = window.start - 1, min(window.end, len(cells_NC) - 1)
            sure = confidence(window.kind, window.fit, difference(cells_NC[a : a + 1], cells_NC[b : b + 1]))
            if sure >= least:
                passed = front(stretch, window.start, window.end) if window.kind == "wipe" else None
                start, end = passed or _widened(cells_NC, window, known)
                found.append(Boundary(window.kind, start, end, round(sure, 3), "mixture"))
                known.append((start, end))
    return sorted(found, key=lambda b: b.start)


def confidence(kind: Kind, fit: float, differs: Difference) -> float:
    """[0, 1] from the fit of a window, limited by how unlike the pictures on both sides are.

    0.5 at a fit of 1.2; at 0.8 for a wipe, whose moving front is further evidence.
    """
    return logistic(min(4 * (fit - (0.8 if kind == "wipe" else 1.2)), other_picture(differs)))


def _search(side: F32, walls: Sequence[tuple[int, int]], step: int, lengths: Sequence[int]) -> list[_Window]:
    """Windows of one rate, every `step` frames, that fit well enough to be checked. `side`: squared differences by lag (`band`)."""
    n = len(side)
    # Frames before a and after b up to the nearest wall.
    room_back, room_ahead, shot = _rooms(n, walls, step)
    windows: list[_Window] = []
    for length in lengths:
        a = np.arange(0, n - length - 1)
        b = a + length + 1
        a = a[shot[a] == shot[b]]
        if not len(a):
            continue
        b = a + length + 1
        ab = side[a, length + 1]
        keep = ab > LEAST_RMS**2
        a, b, ab = a[keep], b[keep], ab[keep]
        if not len(a):
            continue
        share, off = np.empty((3, len(a)), np.float32), np.empty((3, len(a)), np.float32)
        for i, quarter in enumerate(QUARTERS):
            lag = round((length + 1) * quarter)
            am, mb = side[a, lag], side[a + lag, length + 1 - lag]
            share[i] = (am + ab - mb) / (2 * ab)
            off[i] = am / ab - share[i] ** 2
        alone = _alone(side, a, b, length, room_back, room_ahead)
        apart = np.sqrt(ab / (alone + STILL))
        uneven = np.abs(share - np.array(QUARTERS, np.float32)[:, None]).max(axis=0)
        bulge = np.maximum(off, 0).max(axis=0)
        dissolve = apart * (1 - bulge / 0.2) * (1 - uneven / 0.3)
        dissolve[(bulge > 0.2) | (uneven > 0.2)] = 0
        windows += _peaks("dissolve", a, dissolve, 0.6, length, step)
        right = np.abs(off - share * (1 - share)).max(axis=0)
        grows = (np.diff(share, axis=0).min(axis=0) > 0.03) & (share[1] > 0.2) & (share[1] < 0.85)
        wipe = apart * (1 - right / 0.4)
        wipe[(right > 0.25) | ~grows | (off[1] < 0.08)] = 0
        windows += _peaks("wipe", a, wipe, 0.4, length, step)
    return windows


def _peaks(kind: Kind, a: NDArray[np.intp], fit: F32, least: float, length: int, step: int) -> list[_Window]:
    """The windows of one length that fit better than any that begins within half a length of them."""
    everywhere = np.zeros(a[-1] + 1 + length, np.float32)
    everywhere[a] = fit
    half = length // 2
    highest = np.lib.stride_tricks.sliding_window_view(np.pad(everywhere, half), 2 * half + 1).max(axis=1)
    peaks = a[(fit >= least) & (fit == highest[a])]
    return [_Window(kind, int(i + 1) * step, int(i + 1 + length) * step, float(everywhere[i])) for i in peaks]


def _alone(
    side: F32,
    a: NDArray[np.intp],
    b: NDArray[np.intp],
    length: int,
    room_back: NDArray[np.intp],
    room_ahead: NDArray[np.intp],
) -> F32:
    """Change of the shots before a and after b in `length` frames, in squared grey levels, both added.

    When a wall leaves fewer frames, the change is extrapolated; when it leaves fewer than three, the other side's change counts twice.
    """
    before, after = np.minimum(room_back[a], length), np.minimum(room_ahead[b], length)
    back = side[a - before, before] * (length / np.maximum(before, 1)) ** 2
    ahead = side[b, after] * (length / np.maximum(after, 1)) ** 2
    back = np.where(before < 3, np.where(after < 3, np.inf, ahead), back)
    ahead = np.where(after < 3, back, ahead)
    return np.asarray(back + ahead, np.float32)


def _rooms(
    n: int, walls: Sequence[tuple[int, int]], step: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Per frame: frames before it and after it up to the nearest wall, and the number of its shot (-1 inside a wall)."""
    shot = np.zeros(n, np.intp)
    for number, (start, end) in enumerate(sorted(walls), 1):
        first, stop = -(-start // step), -(-end // step)
        shot[stop:] = number
        shot[first:stop] = -1
    frames = np.arange(n)
    new = np.r_[True, shot[1:] != shot[:-1]]
    begins = np.maximum.accumulate(np.where(new, frames, 0))
    last = np.r_[shot[1:] != shot[:-1], True]
    ends = np.minimum.accumulate(np.where(last, frames, n - 1)[::-1])[::-1]
    shot[shot < 0] = -1 - frames[shot < 0]  # frames inside walls belong to no common shot
    return frames - begins, ends - frames, shot


def centroids(stretch: Stretch) -> NDArray[np.float64]:
    """(N + 1, 3): cumulative sums over the frames of the change between frames, and of the change times its position (x and y, [0, 1]).

    Changes are squared, so that a front dominates the motion beside it.
    """
    blocks = pool(stretch.y, 18, 10).reshape(len(stretch), -1)
    change = np.zeros(blocks.shape, np.float32)
    change[1:] = cv2.absdiff(blocks[1:], blocks[:-1])
    y, x = np.mgrid[:10, :18].reshape(2, -1)
    weights = np.c_[np.ones(180), x / 17, y / 9].astype(np.float32)
    sums = np.zeros((len(stretch) + 1, 3))
    np.cumsum(change**2 @ weights, axis=0, out=sums[1:])
    return sums


def crosses(sums: NDArray[np.float64], window: _Window) -> bool:
    """Whether the changing area moves by at least a third of the picture from the start to the end of a window. A cheap test before `front`."""
    third = max(2, (window.end - window.start) // 3)
    first = sums[window.start + third] - sums[window.start]
    last = sums[window.end] - sums[window.end - third]
    return bool(np.abs(first[1:] / (first[0] + 1e-6) - last[1:] / (last[0] + 1e-6)).max() > 1 / 3)


def front(stretch: Stretch, start: int, end: int) -> tuple[int, int] | None:
    """The frames [start, end) in which a straight front moves across the picture, None when there is no such front between the given frames.

    A plane is fitted to the time of the largest change of each block of 4 x 4 pixels. Blocks that change little (bars, or areas alike in both
    pictures) do not count.
    """
    base = max(0, start - 2)
    y = stretch.y[base : end + 2]
    if len(y) < 5:
        return None
    blocks = pool(y, 18, 10).astype(np.float32)
    change = np.abs(np.diff(blocks, axis=0))
    counts = np.abs(blocks[-1] - blocks[0]) > 12
    lit = np.maximum(blocks[-1], blocks[0]) > BLACK
    if counts.sum() < max(20, 0.42 * lit.sum()):
        return None
    when = change.argmax(axis=0)[counts].astype(np.float64)
    rows, columns = np.nonzero(counts)
    plane = np.c_[np.ones(len(when)), rows / 10, columns / 18]
    fit, *_ = np.linalg.lstsq(plane, when, rcond=None)
    spread = ((when - when.mean()) ** 2).sum()
    if spread < len(when):  # all blocks change at once
        return None
    off = np.abs(when - plane @ fit)
    near = off <= max(1.5, 0.12 * len(y))
    if near.mean() <= 0.8 or abs(fit[1:]).max() <= 0.4 * (end - start):
        return None
    # The times at which it passes the corners. A change from frame k to k + 1 is visible in k + 1.
    corners = fit[0] + np.array([0, fit[1], fit[2], fit[1] + fit[2]])
    first, last = base + 1 + int(np.floor(corners.min())), base + 1 + int(np.ceil(corners.max()))
    return max(base + 1, first), min(base + len(y), last + 1)


def _widened(cells_NC: F32, window: _Window, walls: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Extends a window while the share continues at the same rate, because the best fit is often inside the transition."""
    low = max((end for _, end in walls if end <= window.start), default=0)
    high = min((start for start, _ in walls if start >= window.end), default=len(cells_NC))
    a, b = max(low, window.start - 1), min(high - 1, window.end)
    along = cells_NC[b] - cells_NC[a]
    along = along / max(1e-6, float(along @ along))
    pace = 1 / (b - a)
    reach = (b - a) // 2
    start, end = a + 1, b
    while start - 1 > low and a + 1 - start < reach:
        if (cells_NC[start - 2] - cells_NC[a]) @ along > -0.6 * pace * (a - start + 2):
            break
        start -= 1
    while end < high - 1 and end - b < reach:
        if (cells_NC[end + 1] - cells_NC[b]) @ along < 0.6 * pace * (end + 1 - b):
            break
        end += 1
    return start, end
