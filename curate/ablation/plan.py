"""What `rushes ablate` trains: for each axis the lowest 0, 12.5, 25 and 50 % of its clips dropped, and random subsets of the same sizes.

SVD's method (arXiv 2311.15127, section 3.3 and appendix E): one measure at a time, all else as it is. Ours are the random controls (a subset
can win for being another subset, or for being smaller), the seeds, and the judge's clips:

- `heldout` are clips that every subset of every axis would keep, so that no axis is judged on clips which only its rivals have seen;
- `elsewhere` are clips that some axis drops, spread over the axes: what a cut costs on what it cut away.

No training has either of them. The draw of `heldout` is, of many, the one whose mean ranks are most alike to those of all clips that it could
have drawn, on every axis (rerandomisation: Morgan and Rubin 2012, Annals of Statistics 40), so that no axis favours itself by chance.

Percentages are of the clips that are trained on, so the subsets of all axes at a level are equally large and share their controls. Everything
is a function of the clips and their measures: no video, no random state.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from curate.errors import UsageError

Bools = NDArray[np.bool_]
FEWEST = 8
"""Clips that a subset must have at least, or a batch where that is more. Ours."""
HELDOUT_SHARE, MOST_HELDOUT, FEWEST_HELDOUT = 0.2, 64, 4
"""Of all clips the judge takes a fifth, no more than so many and no fewer. Ours."""
DRAWS = 200
"""Draws of which the most balanced is taken. Ours."""
ALIKE = 0.03
"""Subsets whose sizes differ by no more than this share have one control. Ours."""
RELAXED = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the strictest level at which the judge's clips are looked for, until there are enough. Ours."""
_RANDOM, _HELDOUT, _ELSEWHERE = 1, 2, 3  # streams of draws
LESS_IS_MORE = {
    "text_area", "overlay_text", "scene_text", "still_text", "watermark", "source_watermark", "nsfw", "shake", "noise", "blockiness",
    "duplicate_similarity", "is_screen", "is_talking_head", "flicker", "train_loss",
}  # fmt: skip
"""Measures of which the highest are dropped, unless `--axes NAME:above` or the rule in `keep:` says otherwise."""


@dataclass(frozen=True)
class Axis:
    """A measure and the side that is good: `above` drops its lowest, `below` its highest."""

    name: str
    side: str

    @classmethod
    def parse(cls, text: str, keep: Mapping[str, Any]) -> "Axis":
        """`motion`, or `motion:below`. The side is the one that was typed, or that of the rule in `keep`, or the usual one."""
        name, colon, side = text.strip().partition(":")
        if colon and side not in ("above", "below"):
            raise UsageError(
                f"--axes {text}: after the colon stands 'above' (the lowest go) or 'below' (the highest go)"
            )
        if not name:
            raise UsageError("--axes: a name is missing, as in  --axes motion,text_area:below")
        if not side:
            rule = keep.get(name)
            ruled = (
                None
                if rule is None
                else "above"
                if rule.above is not None
                else "below"
                if rule.below is not None
                else None
            )
            side = ruled or ("below" if name in LESS_IS_MORE else "above")
        return cls(name, side)

    def threshold(self, values: NDArray[np.float64], level: float) -> float:
        """The value at which `level` per cent of the known values lie on the bad side (linear interpolation, as in `keep:`)."""
        known = values[~np.isnan(values)]
        if not len(known):
            return float("nan")
        return float(np.percentile(known, level if self.side == "above" else 100 - level))

    def passes(self, values: NDArray[np.float64], threshold: float) -> Bools:
        """Which clips the rule at this threshold keeps; one without a value it does not keep."""
        with np.errstate(invalid="ignore"):
            kept: Bools = values >= threshold if self.side == "above" else values <= threshold
        return kept


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

    def arms_as_json(self) -> list[dict[str, Any]]:
        """The arms as plain values."""
        return [asdict(arm) for arm in self.arms]


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
    values = {axis.name: _values(clips, axis) for axis in axes}
    notes = [n for axis in axes for n in _nulls(axis, values[axis.name])]
    draw = _Draw(clips["clip_id"].to_numpy(), axes, values, cuts)
    if judged is None:
        count = n_heldout if n_heldout is not None else min(MOST_HELDOUT, int(len(clips) * HELDOUT_SHARE))
        if count < FEWEST_HELDOUT:
            raise UsageError(
                f"{len(clips)} clips are too few: the judge needs {FEWEST_HELDOUT} that no training has, which is a fifth of "
                f"{FEWEST_HELDOUT * 5}"
            )
        heldout, elsewhere, at = draw.judge(count, wanted)
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


@dataclass
class _Draw:
    """Draws the judge's clips."""

    ids: NDArray[Any]
    axes: Sequence[Axis]
    values: Mapping[str, NDArray[np.float64]]
    cuts: Sequence[float]

    def judge(self, count: int, wanted: Bools | None) -> tuple[list[str], list[str], float]:
        pool, at = (wanted, 0.0) if wanted is not None else self._kept_by_all(count)
        if pool.sum() < FEWEST_HELDOUT:
            told = "--heldout-where" if wanted is not None else "every level of every axis"
            raise UsageError(f"{int(pool.sum())} clips pass {told}, and the judge needs {FEWEST_HELDOUT}")
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
            drawn = np.random.default_rng([_HELDOUT, draw]).choice(len(pool), max(n, FEWEST_HELDOUT), replace=False)
            off = float(np.abs(np.nanmean(ranks[:, drawn], axis=1) - np.nanmean(ranks, axis=1)).max())
            if best is None or off < best[0]:
                best = off, pool[drawn]
        assert best is not None
        return best[1]


def _values(clips: pd.DataFrame, axis: Axis) -> NDArray[np.float64]:
    column = clips[axis.name]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        raise UsageError(f"--axes {axis.name}: it holds {column.dtype}, and only numbers can be cut by a percentage")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    known = values[~np.isnan(values)]
    if not len(known):
        raise UsageError(f"--axes {axis.name}: none of the {len(values)} clips has a value")
    if known.min() == known.max():
        raise UsageError(f"--axes {axis.name}: all clips have the value {known[0]:g}, so there is nothing to cut")
    return values


def _nulls(axis: Axis, values: NDArray[np.float64]) -> list[str]:
    n = int(np.isnan(values).sum())
    return (
        [f"{n} of {len(values)} clips have no {axis.name}: every level above 0 drops them, as a rule in keep: does"]
        if n
        else []
    )
