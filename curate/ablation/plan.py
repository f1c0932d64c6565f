"""What `rushes ablate` trains: for each axis the lowest 0, 12.5, 25 and 50 % of its clips dropped, and random subsets of the same sizes.

SVD's method (arXiv 2311.15127, section 3.3 and appendix E): one measure at a time, all else as it is. Ours are the random controls (a subset
can win for being another subset, or for being smaller), the seeds, and the clips to judge on
(curate/ablation/heldout.py).

Percentages are of the clips that are trained on, so the subsets of all axes at a level are equally large and share their controls. Everything
is a function of the clips and their measures: no video, no random state.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from curate.ablation.axis import Axis, Bools, nulls_told, values_of
from curate.ablation.heldout import Judge, count_of
from curate.errors import UsageError

FEWEST = 8
"""Clips that a subset must have at least, or a batch where that is more. Ours."""
ALIKE = 0.03
"""Subsets whose sizes differ by no more than this share have one control. Ours."""
_RANDOM = 1  # a stream of draws, besides those of heldout.py


@dataclass(frozen=True)
class Arm:
    """One subset of the clips, trained once for each seed.

    Attributes:
        name: `all`, `motion-25`, or `random-225`: a control of 225 clips, another draw for each seed.
        axis, level, rule: what was dropped, in per cent, and as a rule of `keep:`; None for `all` and the controls.
        clips: how many there are.
        subsets: the names of its subsets by seed; arms with the same clips share them, and what is trained on them.
        control: the random arm of the same size.
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
    """All arms, the clips of each subset, and the judge's clips."""

    arms: list[Arm]
    subsets: dict[str, list[str]]
    heldout: list[str]
    elsewhere: list[str]
    heldout_level: float
    """The level that all of `heldout` pass on every axis; the strictest one, or less where too few clips do."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know: nulls, levels that come to the same, a judge that had to be lenient."""

    @property
    def trainings(self) -> list[tuple[str, int]]:
        """(subset, seed) of every training, each once, `all` first."""
        return list(dict.fromkeys((s, seed) for arm in self.arms for seed, s in enumerate(arm.subsets)))


def plan(
    clips: pd.DataFrame,
    axes: Sequence[Axis],
    levels: Sequence[float],
    seeds: int,
    fewest: int = FEWEST,
    n_heldout: int | None = None,
    judged: tuple[Sequence[str], Sequence[str], float] | None = None,
    wanted: Bools | None = None,
    known: Mapping[str, str] | None = None,
) -> Grid:
    """The grid.

    Args:
        clips: `clip_id` and a column for each axis; all clips that can be trained on.
        axes, levels, seeds: what to drop, in per cent, and how many trainings each subset gets.
        fewest: clips that a training needs.
        n_heldout: clips to judge on; a fifth of all, at most 64, by default.
        judged: `heldout`, `elsewhere` and their level, where an earlier plan has drawn them: adding an axis changes no judge.
        wanted: which clips are to be judged on, where the user says so himself; the others are then `elsewhere`.
        known: names of subsets by the digest of their clips, where an earlier plan has named them: what it trained is not trained again.

    Raises UsageError in one sentence for a level out of range, an axis without values or with one alone, and too few clips.
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
    notes = [n for axis in axes for n in nulls_told(axis, values[axis.name])]
    if judged is None:
        judge = Judge(clips["clip_id"].to_numpy(), axes, values, cuts)
        heldout, elsewhere, at = judge.draw(count_of(len(clips), n_heldout), wanted)
    else:
        heldout, elsewhere, at = list(judged[0]), list(judged[1]), judged[2]
    if at < cuts[-1] and wanted is None:
        notes.append(
            f"too few clips pass {cuts[-1]:g} % on every axis at once to judge on; those that pass {at:g} % are taken"
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
    """By which a subset is known: a sha256 of its ids in order."""
    return hashlib.sha256("\n".join(sorted(clip_ids)).encode()).hexdigest()


@dataclass
class _Names:
    """Gives subsets names; those with the same clips have the first one's."""

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
            f"{axis.name} at {level:g} % leaves {n} clips and a training needs {fewest}: give lower --levels, or more clips"
        )
    subset = named(name, chosen)
    if subset != name:
        same_as = "dropping nothing" if subset == "all" else subset
        notes.append(f"{name} comes to the same clips as {same_as} (many have the same value) and is trained once")
    return Arm(name, n, (subset,) * seeds, axis.name, level, {axis.side: threshold})


def _with_controls(arms: Sequence[Arm], sizes: list[int]) -> list[Arm]:
    """Every arm that drops something with a random one of its size; those that differ by no more than ALIKE share it. `sizes`: there already."""
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
