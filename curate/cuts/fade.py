"""Fades through black or white: a picture fades out, at least one frame is blank, and another picture fades in.

A frame is blank when the middle of the picture has almost no contrast and is black or white. From the blankest frame the search moves outward
on both sides while the frames differ more and more from it. The fade is all frames between the last full picture before and the first full
picture after, including a hold in black. A white flash between two equal pictures is not a fade, nor is a dark shot.
"""

import numpy as np
from numpy.typing import NDArray

from curate.cuts.boundary import Boundary
from curate.cuts.hard import BLACK, correlation
from curate.cuts.signals import F32, N_LUMA, Stretch

BLANK = 0.16
"""Maximum contrast of a blank frame, as a share of the contrast around it. FFmpeg's `xfade=fadeblack` leaves up to 6 % of a picture at its
darkest frame; the rest is a margin for codec noise. Ours."""
BLANK_STD = 8.0
"""Maximum contrast of a blank frame, in grey levels (standard deviation)."""
LEAST_RMS = 16.0
"""Minimum difference between the blank frame and the pictures on both sides, in grey levels (root mean square)."""
DARK, BRIGHT = 40.0, 208.0
"""Mean luma (video range, black 16, white 235) of a blank frame. Fades to other colours are not detected."""
REACH_S = 1.5
"""Maximum distance between the blank frame and the full picture."""
FLASH_S = 0.25


def fades(stretch: Stretch, cells_NC: F32, fps: float = 25.0) -> list[Boundary]:
    """Returns the fades of a stretch; frames count from its first. When a stretch begins or ends blank, so does the fade."""
    n = len(stretch)
    mean, contrast, blank = _blankness(stretch, cells_NC)
    found: list[Boundary] = []
    reach = max(8, round(REACH_S * fps))
    for first, stop in _runs(blank):
        extreme = mean[first:stop].min() if mean[first] < DARK else mean[first:stop].max()
        low = first + int((contrast[first:stop] + np.abs(mean[first:stop] - extreme)).argmin())
        low_edge, high_edge = max(0, first - reach), min(n, stop + reach)
        around_NL = cells_NC[low_edge:high_edge, :N_LUMA]
        lit = around_NL.max(axis=0) > BLACK
        if lit.sum() < N_LUMA // 20:
            continue
        from_blank = np.sqrt(((around_NL[:, lit] - cells_NC[low, :N_LUMA][lit]) ** 2).mean(axis=1))
        start = low - _full(from_blank[low - low_edge :: -1])
        end = low + _full(from_blank[low - low_edge :])
        at_edge = start < 0 or end >= n
        away = from_blank[[max(0, start - low_edge), min(end, high_edge - 1) - low_edge]]
        around = contrast[max(0, start) : end + 1].max()
        if away.max() < LEAST_RMS or (away.min() < LEAST_RMS and not at_edge) or contrast[low] > BLANK * around:
            continue
        if not at_edge and end - start < FLASH_S * fps:
            a, b = cells_NC[start, :N_LUMA][lit], cells_NC[end, :N_LUMA][lit]
            if np.sqrt(((a - b) ** 2).mean()) < 0.12 * away.min() and correlation(a, b) > 0.8:
                continue
        start, end = max(0, start + 1), min(n, end)
        if found and start < found[-1].end:
            start = found.pop().start
        confidence = 1 - 0.5 * float(contrast[low]) / (BLANK * around)
        found.append(Boundary("fade", start, end, round(confidence, 3), "blank"))
    return found


def _blankness(stretch: Stretch, cells_NC: F32) -> tuple[F32, F32, NDArray[np.bool_]]:
    """Mean and contrast of the middle of each picture, and whether it is blank, (N,) each."""
    n = len(stretch)
    middle = stretch.y[:, 8:32, 14:58].reshape(n, -1)
    luma = cells_NC[:, :N_LUMA].reshape(n, 8, 18)[:, 2:6, 4:14].reshape(n, -1)
    mean, contrast = luma.mean(axis=1), luma.std(axis=1)
    blank = ((mean < DARK) | (mean > BRIGHT)) & (contrast < BLANK_STD)
    contrast[blank] = middle[blank].std(axis=1)  # cells average out small objects such as titles and stars
    return mean, contrast, blank & (contrast < BLANK_STD)


def all_blank(stretch: Stretch) -> bool:
    """Whether all frames are blank, as in the middle of a long hold."""
    return bool(_blankness(stretch, stretch.cells())[2].all())


def is_blank(cells_C: F32) -> bool:
    """Whether a frame, given as cells, is black or white all over."""
    luma = cells_C[:N_LUMA]
    return bool(luma.std() < BLANK_STD and (luma.mean() < DARK or luma.mean() > BRIGHT))


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """[first, stop) of every run of true."""
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _full(from_blank: np.ndarray) -> int:
    """Number of frames from the blank one (the first given) to the first full picture, where the distance stops growing at the same rate.

    The number of frames given, when the distance never stops growing.
    """
    n = len(from_blank)
    at = 1
    while at < n:
        if from_blank[at] >= LEAST_RMS / 2:
            ahead = min(n - 1, at + 4)
            if ahead == at or from_blank[ahead] - from_blank[at] < 0.15 * (ahead - at) * from_blank[at] / at:
                return at
        at += 1
    return n
