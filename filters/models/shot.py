"""Similarity of two shots by their fingerprints, the luma on a grid of 8 x 8 over time. `filters/fingerprint.py` has the formula.

T thumbnails, P = 64 cells, H alignments; A and B are two shots.
"""

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

GRID = 8
CELLS = GRID * GRID
QUIET = 0.0005
"""Energy of the residuals, relative to the frames', below which changes are not significant: 1/45 of the contrast, squared."""
BLANK = 0.001
"""The same for the looks: two blank frames are equal."""
CHANGES, PLACES, LOOKS = 0.3, 0.4, 0.3
STILL = 4.0
SPEEDS = tuple(1.25 ** (k / 4) for k in range(-4, 5))
"""Playback speeds of a copy: 0.8 to 1.25, in steps of 6 %."""
OFFSET_STEP = 0.25
OVERLAP_OF_SHORTER, OVERLAP_OF_LONGER = 0.75, 0.5
MAX_THUMBS = 32

Floats = NDArray[np.float32]


class Shot:
    """A fingerprint, normalised for comparison.

    Args:
        grid_TP: Luma, shape (T, 64), T >= 1.
        step_s: Seconds from one thumbnail to the next.
    """

    def __init__(self, grid_TP: NDArray[np.uint8], step_s: float) -> None:
        every = -(-len(grid_TP) // MAX_THUMBS)  # long clips: every second, third ... thumbnail
        self.step_s = max(step_s, 1e-3) * every
        looks_TP = grid_TP[::every].astype(np.float32)
        looks_TP -= looks_TP.mean(axis=1, keepdims=True)
        self.looks_TP: Floats = looks_TP / (np.sqrt(np.square(looks_TP).mean()) + np.float32(1e-3))
        self.changes_TP: Floats = self.looks_TP - self.looks_TP.mean(axis=0)

    def __len__(self) -> int:
        return len(self.looks_TP)

    @cached_property
    def grams(self) -> tuple[Floats, Floats]:
        """Products of all pairs of frames: looks, changes; each (T, T)."""
        return tuple((x @ x.T / CELLS) for x in (self.looks_TP, self.changes_TP))  # type: ignore[return-value]

    @cached_property
    def energy(self) -> float:
        """Mean square of the residuals; the looks have 1."""
        return float(np.square(self.changes_TP).mean())

    @cached_property
    def vector(self) -> Floats:
        """Mean look and places of change, independent of timing; shape (128,), for candidate search."""
        places_P = np.sqrt(np.square(self.changes_TP).mean(axis=0))
        places_P /= np.sqrt(np.square(places_P).mean() + np.float32(QUIET))
        return np.concatenate([self.looks_TP.mean(axis=0), places_P]).astype(np.float32) / np.float32(GRID)


@lru_cache(maxsize=4096)
def alignments(length_a: int, length_b: int, step_b: float) -> tuple[NDArray[np.intp], Floats, Floats] | None:
    """Alignments of B with A: thumbnail i of B is at position `whole + part` among A's thumbnails, if it counts.

    `step_b` is B's step in units of A's. An alignment covers at least three quarters of the shorter shot and half of the longer.

    Returns:
        whole (H, B), part (H, B) in [0, 1), and counts (H, B) of 0 and 1; None if there is no alignment.
    """
    shorter, longer = sorted((length_a, length_b * step_b))
    if length_a > 1 and length_b > 1 and shorter < OVERLAP_OF_LONGER * longer * 0.999:
        return None
    found = []
    for speed in SPEEDS:
        step = speed * step_b
        least = -(1 - OVERLAP_OF_SHORTER) * shorter
        most = length_a - 1 - step * (length_b - 1) - least
        low, high = sorted((least, most))
        for offset in OFFSET_STEP * np.arange(np.ceil(low / OFFSET_STEP), np.floor(high / OFFSET_STEP) + 1):
            at = step * np.arange(length_b) + offset
            counts = (at > -1e-6) & (at < length_a - 1 + 1e-6)
            covered = counts.sum() * max(1.0, step)
            if covered >= OVERLAP_OF_SHORTER * shorter - 1e-6 and covered >= OVERLAP_OF_LONGER * longer - 1e-6:
                found.append((np.clip(at, 0, length_a - 1), counts))
    if not found:
        return None
    at_HB, counts_HB = (np.stack(column) for column in zip(*found, strict=True))
    whole_HB = np.minimum(at_HB.astype(np.intp), max(0, length_a - 2))
    part_HB = (at_HB - whole_HB).astype(np.float32)
    return whole_HB, part_HB, counts_HB.astype(np.float32)


def similarity(a: Shot, b: Shot) -> float:
    """Similarity of two shots, at most 1; -1 if their lengths cannot be aligned.

    Not exactly symmetric: the order of the arguments decides which shot is interpolated.
    """
    aligned = alignments(len(a), len(b), round(b.step_s / a.step_s, 3))
    if aligned is None:
        return -1.0
    whole_HB, part_HB, counts_HB = aligned
    quiet = QUIET / ((a.energy + b.energy) / 2 + QUIET)  # of the whole shots: a shot that moves only later is not still
    looks_H = _correlations(a.looks_TP, b.looks_TP, a.grams[0], aligned, BLANK, BLANK)
    changes_H = _correlations(a.changes_TP, b.changes_TP, a.grams[1], aligned, QUIET, QUIET * quiet)
    best = int(np.argmax(changes_H + looks_H / 2))
    looks, changes = float(looks_H[best]), float(changes_H[best])
    counts_B = counts_HB[best] > 0
    used_A = np.zeros(len(a), dtype=bool)
    used_A[whole_HB[best][counts_B]] = True
    used_A[np.minimum(whole_HB[best] + 1, len(a) - 1)[counts_B & (part_HB[best] > 0)]] = True
    places = _place_correlation(a.changes_TP[used_A], b.changes_TP[counts_B], quiet)
    moving = CHANGES * changes + PLACES * places + LOOKS * looks
    return (1 - quiet) * moving + quiet * (1 - STILL * (1 - looks))


def _correlations(
    a_TP: Floats,
    b_TP: Floats,
    gram_AA: Floats,
    aligned: tuple[NDArray[np.intp], Floats, Floats],
    noise: float,
    floor: float,
) -> Floats:
    """Correlation of B with interpolated A for each alignment, (H,); `floor / noise` if both hold only noise."""
    whole_HB, part_HB, counts_HB = aligned
    after_HB = np.minimum(whole_HB + 1, len(a_TP) - 1)
    rest_HB = 1 - part_HB
    cross_AB = a_TP @ b_TP.T / CELLS
    columns_B = np.arange(len(b_TP))
    cross_H = ((rest_HB * cross_AB[whole_HB, columns_B] + part_HB * cross_AB[after_HB, columns_B]) * counts_HB).sum(
        axis=1
    )
    own_HB = rest_HB**2 * gram_AA[whole_HB, whole_HB] + part_HB**2 * gram_AA[after_HB, after_HB]
    own_HB += 2 * rest_HB * part_HB * gram_AA[whole_HB, after_HB]
    size_H = counts_HB.sum(axis=1)
    a_H = (own_HB * counts_HB).sum(axis=1) / size_H
    b_H = counts_HB @ np.square(b_TP).mean(axis=1) / size_H
    both_H = np.sqrt((np.maximum(a_H, 0) + noise) * (b_H + noise))
    return np.asarray((cross_H / size_H + floor) / both_H, dtype=np.float32)


def _place_correlation(a_TP: Floats, b_TP: Floats, quiet: float) -> float:
    """Correlation of the residuals' magnitudes over the cells; `quiet` if both hold only noise."""
    a_P, b_P = (np.sqrt(np.square(x).mean(axis=0)) for x in (a_TP, b_TP))
    a_P, b_P = a_P - a_P.mean(), b_P - b_P.mean()
    noise = QUIET / 5
    both = np.sqrt((np.square(a_P).mean() + noise) * (np.square(b_P).mean() + noise))
    return float(((a_P * b_P).mean() + noise * quiet) / both)
