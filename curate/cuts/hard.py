"""Hard cuts: one frame differs from the frame before it far more than its neighbours do from theirs.

Three numbers decide:

- `ratio`: the step between two frames over the largest step among the six frames on either side. Fast motion, repeated frames of a low frame
  rate, and noise cause large steps too, but never a single one.
- `likeness`: the correlation of the two pictures where either is lit. It stays high when the camera shakes or the light dims.
- `coverage`: the share of the picture that changes. A title or a banner changes little.

All are computed from pictures so small that motion has little effect. After a flash the old picture returns, after a cut it does not.

The ratio follows PySceneDetect's AdaptiveDetector, with the largest neighbour instead of their mean; the rest is ours.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate.cuts.boundary import Boundary
from curate.cuts.signals import F32, N_LUMA, Stretch, pool, steps

REACH = 6
"""Frames on either side with which a step is compared. At 30 fps they include two pictures of a 10 fps source."""
FLASH = 5
"""Maximum length of a flash, in frames. Ours."""
BLACK = 24
"""Maximum luma (video range) of an unlit cell."""
CHANGED = 8.0
"""Minimum change, in grey levels, of a cell that counts as changed."""
FAR = 100.0
"""Difference of luma (root mean square) at which two pictures are unlike, even when one is a brighter copy of the other."""
FAR_CHROMA = 60.0
"""The same for chroma."""
NOISE = 1.0
"""Added to the neighbours' step, in grey levels: the change that a codec causes in a still picture."""


def hard_cuts(stretch: Stretch, cells_NC: F32, least: float = 0.5) -> list[Boundary]:
    """Returns the hard cuts of a stretch, confidence at least `least`; frames count from its first."""
    n = len(stretch)
    if n < 2:
        return []
    fine = steps(pool(stretch.y, 36, 20)) + steps(pool(stretch.u, 18, 10)) + steps(pool(stretch.v, 18, 10))
    coarse = steps(pool(stretch.y, 18, 8)) + steps(pool(stretch.u, 9, 4)) + steps(pool(stretch.v, 9, 4))
    ratios = np.sqrt(ratio(fine) * ratio(coarse))
    found = []
    for f in np.flatnonzero((ratios > 1.2) & (coarse > 2.0)).tolist():
        if is_flash(cells_NC, f):
            continue
        differs = difference(cells_NC[max(0, f - REACH) : f], cells_NC[f : f + REACH])
        sure = confidence(float(ratios[f]), differs)
        if sure >= least:
            found.append(Boundary("hard", f, f, round(sure, 3), "ratio"))
    return found


def ratio(step_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,): each step divided by the largest of the `REACH` steps on either side."""
    padded = np.pad(step_N, REACH)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1)
    largest = np.maximum(around[:, :REACH].max(axis=1), around[:, REACH + 1 :].max(axis=1))
    return np.asarray(step_N / (largest + NOISE), np.float32)


class Difference(NamedTuple):
    """How two pictures differ."""

    likeness: float
    """[-1, 1]: the correlation of their luma, or less when brightness or colour differ much."""
    coverage: float
    """[0, 1]: share of the picture that changes; small when a title or a banner appears."""


def difference(before_NC: F32, after_NC: F32) -> Difference:
    """Compares the last picture before with the first picture after.

    Cells that are black in all given pictures (bars, night) are ignored.
    """
    lit = np.maximum(before_NC[:, :N_LUMA].max(axis=0), after_NC[:, :N_LUMA].max(axis=0)) > BLACK
    if lit.sum() < N_LUMA // 10:
        lit[:] = True
    a, b = before_NC[-1], after_NC[0]
    luma = np.abs(a[:N_LUMA] - b[:N_LUMA])
    chroma = np.abs(a[N_LUMA:] - b[N_LUMA:]).reshape(2, 4, 9).max(axis=0).repeat(2, axis=0).repeat(2, axis=1).ravel()
    likeness = min(
        correlation(a[:N_LUMA][lit], b[:N_LUMA][lit]),
        1 - float((luma[lit] ** 2).mean()) / FAR**2,
        1 - float((chroma[lit] ** 2).mean()) / FAR_CHROMA**2,
    )
    return Difference(likeness, float(((luma > CHANGED) | (chroma > CHANGED))[lit].mean()))


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Pearson's correlation, with a little noise added so that two flat pictures are alike."""
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b + len(a)) / math.sqrt((a @ a + len(a)) * (b @ b + len(a))))


def is_flash(cells_NC: F32, f: int) -> bool:
    """Whether the picture before f returns within a few frames, or the picture at f was shown a few frames before."""
    before, after = cells_NC[max(0, f - FLASH) : f], cells_NC[f : f + FLASH]
    step = np.abs(cells_NC[f] - cells_NC[f - 1]).mean()
    back = np.abs(after[1:] - before[-1]).mean(axis=1)
    was = np.abs(before[:-1] - after[0]).mean(axis=1)
    return bool(min(back.min(initial=np.inf), was.min(initial=np.inf)) < 0.3 * step)


def confidence(ratio: float, differs: Difference) -> float:
    """[0, 1]: the less alike two pictures are, the smaller the ratio that makes them a cut.

    Above a likeness of .88, or when less than .38 of the picture changes, there is no cut. The figures are ours, set between the cuts and the
    near misses of the reels used for tuning (docs/cuts.md).
    """
    stands_out = 16 * (math.log(max(ratio, 1e-6)) - 0.85 * differs.likeness - 0.17)
    return logistic(min(stands_out, other_picture(differs)))


def other_picture(differs: Difference) -> float:
    """Log-odds that two pictures belong to different shots, independently of the frames between them."""
    return min(40 * (0.88 - differs.likeness), 40 * (differs.coverage - 0.38))


def logistic(x: float) -> float:
    """Converts log-odds to a confidence."""
    return 1 / (1 + math.exp(-min(50.0, max(-50.0, x))))
