"""The subsets that `rushes ablate` trains on: for each axis without its worst 0, 12.5, 25 and 50 % of clips, and random ones of the same sizes.

The method is SVD's (arXiv 2311.15127, section 3.3 and appendix E): one measure at a time, all else equal. We added the random controls (a
subset can win only because it is another subset, or a smaller one), the seeds, and the held-out clips (curate/ablation/heldout.py).

Percentages are of the clips to train on, so the subsets of all axes at a level have the same size and share their controls. The grid is a
function of the clips and their measures; it needs no video and no random state.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.ablation.axis import Axis, Bools, notes_on_nulls, values_of
from curate.ablation.heldout import Judge, count_of
from curate.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 8
"""The minimum number of clips in a subset, or the batch size if that is larger. Our choice."""
ALIKE = 0.03
"""Subsets whose sizes differ by at most this share have one control. Our choice."""
_RANDOM = 1  # random stream; heldout.py has streams 2 and 3


@dataclass(frozen=True)
class Arm:
    """One subset of the clips, trained once for each seed.

    Attributes:
        name: `all`, `motion-25`, or `random-225` for a control of 225 clips, drawn again for each seed.
        axis, level, rule: the axis that is cut, the per cent dropped, and the cut as a rule of `keep:`; None for `all` and the controls.
        clips: number of clips.
        subsets: the name of its subset for each seed. Arms with the same clips share their subsets and trainings.
        control: the name of the random arm of the same size.
    """

    name: str
    clips: int
    subsets: tuple[str, ...]
    axis: str | None = None
    level: float = 0.0
    rule: Mapping[str, float] | None = None
    control: str | None = None


@dataclass
class Grid:
    """All arms, the clips of each subset, and the held-out clips."""

    arms: list[Arm]
    subsets: dict[str, list[str]]
    heldout: list[str]
    elsewhere: list[str]
    heldout_level: float
    """The level that all of `heldout` pass on every axis: the strictest one, or a milder one when too few clips pass it."""
    notes: list[str] = field(default_factory=list)
    """Notes for the reader: nulls, levels with the same clips, a milder level for the held-out clips."""

    @property
    def trainings(self) -> list[tuple[str, int]]:
        """(subset, seed) of each training, without duplicates, `all` first."""
        return list(dict.fromkeys((s, seed) for arm in self.arms for seed, s in enumerate(arm.subsets)))


def plan(
    clips: "pd.DataFrame",
    axes: Sequence[Axis],
    levels: Sequence[float],
    seeds: int,
    fewest: int = FEWEST,
    n_heldout: int | None = None,
    judged: tuple[Sequence[str], Sequence[str], float] | None = None,
    wanted: Bools | None = None,
    known: Mapping[str, str] | None = None,
) -> Grid:
    """The grid of an ablation.

    Args:
        clips: `clip_id` and a column for each axis, for all clips that can be trained on.
        axes: the measures to cut.
        levels: per cent to drop.
        seeds: number of trainings of each subset.
        fewest: minimum number of clips of a training.
        n_heldout: number of clips to hold out; by default a fifth of all, at most 64.
        judged: `heldout`, `elsewhere` and their level from an earlier plan: adding an axis does not change them.
        wanted: the candidates for `heldout` (`--heldout-where`); the others are candidates for `elsewhere`.
        known: names of subsets by the digest of their clips from an earlier plan: their trainings are not repeated.

    Raises UsageError for a level out of range, an axis without values or with a constant value, and too few clips.
    """
    cuts = sorted({float(level) for level in levels} - {0.0})
    for level in cuts:
        if not 0 < level < 100:
            raise UsageError(f"--levels {level:g}: a level is a percentage of the clips to drop, from 0 to below 100")
    if not cuts:
        raise UsageError("--levels: give at least one level above 0, as in  --levels 0,12.5,25,50")
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: at least one training of each subset is needed")
    clips = clips.sort_values("clip_id").reset_index(drop=True)
    values = {axis.name: values_of(clips, axis) for axis in axes}
    notes = [n for axis in axes for n in notes_on_nulls(axis, values[axis.name])]
    if judged is None:
        judge = Judge(clips["clip_id"].to_numpy(), axes, values, cuts)
        heldout, elsewhere, at = judge.draw(count_of(len(clips), n_heldout), wanted)
    else:
        heldout, elsewhere, at = list(judged[0]), list(judged[1]), judged[2]
    if at < cuts[-1] and wanted is None:
        notes.append(
            f"too few clips pass {cuts[-1]:g} % on every axis at once; the held-out clips are those that pass {at:g} %"
        )
    ids = clips["clip_id"].to_numpy()
    free = ~clips["clip_id"].isin({*heldout, *elsewhere}).to_numpy()
    named = _Names(ids, dict(known or {}))
    arms = [Arm("all", int(free.sum()), (named("all", free),) * seeds)]
    for axis in axes:
        for level in cuts:
            threshold = axis.threshold(values[axis.name][free], level)
            chosen = free & axis.passes(values[axis.name], threshold)
            arms.append(_arm(axis, level, threshold, chosen, seeds, fewest, named, notes))
    arms = _with_controls(
        arms, [int(name.split("-")[1]) for name in named.known.values() if name.startswith("random-")]
    )
    for n in dict.fromkeys(int(arm.control.removeprefix("random-")) for arm in arms if arm.control):
        draws = [np.random.default_rng([_RANDOM, seed]).permutation(np.flatnonzero(free))[:n] for seed in range(seeds)]
        subsets = [named(f"random-{n}-{seed}", np.isin(np.arange(len(ids)), drawn)) for seed, drawn in enumerate(draws)]
        arms.append(Arm(f"random-{n}", n, tuple(subsets)))
    return Grid(arms, named.subsets, heldout, elsewhere, at, notes)


def digest_of(clip_ids: Sequence[str]) -> str:
    """The identity of a subset: the sha256 of its sorted ids."""
    return hashlib.sha256("\n".join(sorted(clip_ids)).encode()).hexdigest()


@dataclass
class _Names:
    """Names subsets. Subsets with the same clips have the name of the first."""

    ids: NDArray[Any]
    known: dict[str, str]
    subsets: dict[str, list[str]] = field(default_factory=dict)

    def __call__(self, name: str, chosen: Bools) -> str:
        clip_ids = self.ids[chosen].tolist()
        first = self.known.setdefault(digest_of(clip_ids), name)
        self.subsets[first] = clip_ids
        return first


def _arm(
    axis: Axis, level: float, threshold: float, chosen: Bools, seeds: int, fewest: int, named: _Names, notes: list[str]
) -> Arm:
    name, n = f"{axis.name}-{level:g}", int(chosen.sum())
    if n < fewest:
        raise UsageError(
            f"{axis.name} at {level:g} % leaves {n} clips and a training needs {fewest}: give lower --levels or more clips"
        )
    subset = named(name, chosen)
    if subset != name:
        same_as = "dropping nothing" if subset == "all" else subset
        notes.append(
            f"{name} has the same clips as {same_as}, because many clips have the same value; it is trained once"
        )
    return Arm(name, n, (subset,) * seeds, axis.name, level, {axis.side: threshold})


def _with_controls(arms: Sequence[Arm], sizes: list[int]) -> list[Arm]:
    """Sets the control of every arm that drops clips. Arms whose sizes differ by at most ALIKE share one. `sizes`: of existing controls."""
    found = []
    for arm in arms:
        if arm.subsets[0] == arms[0].subsets[0]:
            found.append(arm)
            continue
        near = [size for size in sizes if abs(size - arm.clips) <= ALIKE * arm.clips]
        if not near:
            sizes.append(arm.clips)
        found.append(replace(arm, control=f"random-{near[0] if near else arm.clips}"))
    return found
