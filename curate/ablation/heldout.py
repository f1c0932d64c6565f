"""The clips that an ablation measures losses on. No training has them.

- `heldout` clips pass every level of every axis, so no axis is judged on clips of a kind that only other axes train on. Of many draws the
  one is taken whose mean ranks are nearest to those of all candidates on every axis (rerandomisation: Morgan and Rubin 2012, Annals of
  Statistics 40), so that no axis has an advantage by chance.
- `elsewhere` clips are dropped by some axis, spread over the axes. They show the cost of a cut on clips like the dropped ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.ablation.axis import Axis, Bools
from curate.errors import UsageError

SHARE, MOST, FEWEST = 0.2, 64, 4
"""The share of all clips to hold out, and the maximum and minimum number. Our choice."""
DRAWS = 200
"""Number of draws; the most balanced one is taken. Our choice."""
RELAXED = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the strictest level to try, in order, until enough clips pass. Our choice."""
_HELDOUT, _ELSEWHERE = 2, 3  # random streams; plan.py has stream 1


def count_of(n_clips: int, asked: int | None) -> int:
    """The number of clips to hold out. Raises UsageError when it is below FEWEST."""
    count = asked if asked is not None else min(MOST, int(n_clips * SHARE))
    if count < FEWEST:
        raise UsageError(
            f"{n_clips} clips are too few: {FEWEST} must be held out, and a fifth of the clips is, so {FEWEST * 5} are needed"
        )
    return count


@dataclass
class Judge:
    """Draws the clips to hold out. `values` has the measure of each clip by axis, `cuts` the levels above 0, ascending."""

    ids: NDArray[Any]
    axes: Sequence[Axis]
    values: Mapping[str, NDArray[np.float64]]
    cuts: Sequence[float]

    def draw(self, count: int, wanted: Bools | None) -> tuple[list[str], list[str], float]:
        """`heldout`, `elsewhere`, and the level that all of `heldout` pass on every axis.

        Args:
            count: maximum number of `heldout` clips; up to half as many are `elsewhere`.
            wanted: the candidates for `heldout` (`--heldout-where`); `elsewhere` is drawn from the others.

        Raises UsageError when fewer than FEWEST clips are candidates.
        """
        pool, at = (wanted, 0.0) if wanted is not None else self._kept_by_all(count)
        if pool.sum() < FEWEST:
            condition = "--heldout-where" if wanted is not None else "every level of every axis"
            raise UsageError(f"{int(pool.sum())} clips pass {condition}; at least {FEWEST} are needed to hold out")
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
        """The clips that pass the strictest level of every axis, or a milder one when fewer than twice `count` pass."""
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
        """Of DRAWS draws of `n` from the pool, the one with the smallest maximum difference (over axes) of its mean rank to the pool's."""
        import pandas as pd

        ranks = np.stack([pd.Series(self.values[axis.name][pool]).rank(pct=True).to_numpy() for axis in self.axes])
        best: tuple[float, NDArray[np.int64]] | None = None
        for draw in range(DRAWS):
            drawn = np.random.default_rng([_HELDOUT, draw]).choice(len(pool), max(n, FEWEST), replace=False)
            distance = float(np.abs(np.nanmean(ranks[:, drawn], axis=1) - np.nanmean(ranks, axis=1)).max())
            if best is None or distance < best[0]:
                best = distance, pool[drawn]
        assert best is not None
        return best[1]
