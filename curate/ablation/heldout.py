"""The clips that an ablation is judged on, and that no training has.

- `heldout` pass every level of every axis, so that no axis is judged on clips which only its rivals have seen. Of many draws it is the one
  whose mean ranks are nearest to those of all clips that could have been drawn, on every axis (rerandomisation: Morgan and Rubin 2012,
  Annals of Statistics 40), so that no axis favours itself by chance.
- `elsewhere` are dropped by some axis, spread over the axes: what a cut costs on what it cut away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from curate.ablation.axis import Axis, Bools
from curate.errors import UsageError

SHARE, MOST, FEWEST = 0.2, 64, 4
"""Of all clips the judge takes a fifth, no more than so many and no fewer. Ours."""
DRAWS = 200
"""Draws of which the most balanced is taken. Ours."""
RELAXED = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the strictest level at which the judge's clips are looked for, until there are enough. Ours."""
_HELDOUT, _ELSEWHERE = 2, 3  # streams of draws, besides that of plan.py


def count_of(n_clips: int, asked: int | None) -> int:
    """How many clips are held out. Raises UsageError where that is too few to judge on."""
    count = asked if asked is not None else min(MOST, int(n_clips * SHARE))
    if count < FEWEST:
        raise UsageError(
            f"{n_clips} clips are too few: the judge needs {FEWEST} that no training has, which is a fifth of {FEWEST * 5}"
        )
    return count


@dataclass
class Judge:
    """Draws the clips to judge on. `values` has the measure of every clip by axis, `cuts` the levels above 0, ascending."""

    ids: NDArray[Any]
    axes: Sequence[Axis]
    values: Mapping[str, NDArray[np.float64]]
    cuts: Sequence[float]

    def draw(self, count: int, wanted: Bools | None) -> tuple[list[str], list[str], float]:
        """`heldout`, `elsewhere`, and the level that all of `heldout` pass on every axis.

        Args:
            count: of `heldout`, at most, and half as many `elsewhere`.
            wanted: which clips are to be judged on, where the user says so himself; `elsewhere` is drawn from the others.

        Raises UsageError where there are too few.
        """
        pool, at = (wanted, 0.0) if wanted is not None else self._kept_by_all(count)
        if pool.sum() < FEWEST:
            told = "--heldout-where" if wanted is not None else "every level of every axis"
            raise UsageError(f"{int(pool.sum())} clips pass {told}, and the judge needs {FEWEST}")
        heldout = self._balanced(np.flatnonzero(pool), min(count, int(pool.sum()) // 2))
        dropped = [
            ~axis.passes(self.values[axis.name], axis.threshold(self.values[axis.name], self.cuts[-1]))
            for axis in self.axes
        ]
        if wanted is not None:
            dropped = [~wanted]
        taken: dict[int, None] = {}
        each = max(1, count // 2 // max(1, len(dropped)))
        for bad in dropped:
            free = np.setdiff1d(np.flatnonzero(bad & ~pool), list(taken))
            drawn = np.random.default_rng(_ELSEWHERE).choice(free, min(each, len(free) // 4), replace=False)
            taken |= dict.fromkeys(drawn.tolist())
        return sorted(self.ids[heldout].tolist()), sorted(self.ids[list(taken)].tolist()), at

    def _kept_by_all(self, count: int) -> tuple[Bools, float]:
        """The clips that pass the strictest level of every axis, or less where a judge would take more than half of them."""
        for share in RELAXED:
            at = self.cuts[-1] * share
            passes = [
                axis.passes(self.values[axis.name], axis.threshold(self.values[axis.name], at)) for axis in self.axes
            ]
            pool = np.logical_and.reduce(passes)
            if pool.sum() >= 2 * count:
                return pool, at
        return pool, at

    def _balanced(self, pool: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Of DRAWS draws of `n` from the pool, the one whose mean ranks are nearest to the pool's on the axis where they are farthest."""
        ranks = np.stack([pd.Series(self.values[axis.name][pool]).rank(pct=True).to_numpy() for axis in self.axes])
        best: tuple[float, NDArray[np.int64]] | None = None
        for draw in range(DRAWS):
            drawn = np.random.default_rng([_HELDOUT, draw]).choice(len(pool), max(n, FEWEST), replace=False)
            off = float(np.abs(np.nanmean(ranks[:, drawn], axis=1) - np.nanmean(ranks, axis=1)).max())
            if best is None or off < best[0]:
                best = off, pool[drawn]
        assert best is not None
        return best[1]
