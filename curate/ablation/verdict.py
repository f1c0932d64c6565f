"""The verdict from the held-out losses of an ablation: for each axis the cut that helps, if any.

Every training is measured on the same cells (clip, noise level, noise), so two arms are compared cell by cell and seed by seed, and common
effects (a hard clip, a lucky order of clips) cancel. A cut helps only if it beats both of

- dropping nothing (`all`); else the loss of clips outweighs the gain,
- a random subset of its size (its control); else only the smaller size helps.

An interval adds two variances of the mean difference d over S seeds and C clips:

    se^2 = s_seed^2 / S + s_clip^2 / C

s_seed^2 is the variance of the seeds' means, pooled over all arms because three seeds estimate it badly; s_clip^2 is the variance of the clips'
means. The ends are d -+ t se, with Student's t at the degrees of freedom of the pooled variance and a level of 5 % divided by the number of
subsets (Bonferroni): of twenty ablations on axes without information, at most one should name a winner. With one seed s_seed is unknown, and
no winner is named.

Differences are per cent of the mean loss of `all`; negative is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.ablation.plan import Arm

ALPHA = 0.05
"""The probability of naming a winner when no cut helps."""
Losses = Mapping[tuple[str, int], Mapping[str, Sequence[float]]]
"""By (subset, seed): the losses of each clip."""


@dataclass(frozen=True)
class Difference:
    """A mean difference of two arms in per cent, and its interval. The ends are None with one seed."""

    mean: float
    low: float | None
    high: float | None

    @property
    def better(self) -> bool:
        """Whether the whole interval is below 0."""
        return self.high is not None and self.high < 0

    @property
    def worse(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low is not None and self.low > 0


@dataclass(frozen=True)
class Judged:
    """One arm. `outcome`: `better`, `worse`, `no difference`, `as a random subset` (it beats `all` but not its control), or `one seed`."""

    arm: Arm
    loss: float
    """Mean over seeds and clips."""
    to_all: Difference
    to_control: Difference | None
    outcome: str


@dataclass(frozen=True)
class AxisAnswer:
    """The recommendation for an axis: `level` 0 drops nothing. `why` is a sentence."""

    axis: str
    level: float
    rule: Mapping[str, float] | None
    arm: str
    why: str


def judge(arms: Sequence[Arm], losses: Losses) -> list[Judged]:
    """Every arm against `all` and its control. Arms with unfinished trainings are skipped."""
    finished = [arm for arm in arms if all((subset, seed) in losses for seed, subset in enumerate(arm.subsets))]
    if not finished or finished[0].name != "all":
        return []
    tables = {arm.name: _table(arm, losses, _common(finished, losses)) for arm in finished}
    base = tables["all"].mean()
    cuts = [arm for arm in finished if arm.control in tables]
    to_all = {arm.name: 100 * (tables[arm.name] - tables["all"]) / base for arm in finished}
    to_control = {arm.name: 100 * (tables[arm.name] - tables[str(arm.control)]) / base for arm in cuts}
    level = ALPHA / max(1, len({arm.subsets for arm in cuts}))
    ends_all = _Ends([to_all[arm.name] for arm in finished[1:]], level)
    ends_control = _Ends(list(to_control.values()), level)
    found = []
    for arm in finished:
        first = ends_all.of(to_all[arm.name])
        second = ends_control.of(to_control[arm.name]) if arm.name in to_control else None
        found.append(Judged(arm, float(tables[arm.name].mean()), first, second, _outcome(arm, first, second)))
    return found


def answer(judged: Sequence[Judged], losses: Losses) -> list[AxisAnswer]:
    """For each axis the mildest winning cut that is not significantly worse than the best one; level 0 when no cut wins."""
    axes = dict.fromkeys(one.arm.axis for one in judged if one.arm.axis is not None)
    found = []
    for axis in axes:
        own = [one for one in judged if one.arm.axis == axis and one.arm.control is not None]
        winners = sorted((one for one in own if one.outcome == "better"), key=lambda one: one.loss)
        if winners:
            best = winners[0]
            mild = [one for one in winners if one is best or not _apart(best, one, judged, losses)]
            chosen = min(mild, key=lambda one: one.arm.level)
            found.append(AxisAnswer(axis, chosen.arm.level, chosen.arm.rule, chosen.arm.name, _why(chosen, best)))
        else:
            found.append(AxisAnswer(axis, 0.0, None, "all", _why_not(own)))
    return found


def _why(chosen: Judged, best: Judged) -> str:
    assert chosen.to_control is not None
    why = (
        f"dropping {chosen.arm.level:g} % changes the loss on held-out clips by {_span(chosen.to_all)} against dropping nothing, and by "
        f"{_span(chosen.to_control)} against a random subset of {chosen.arm.clips} clips"
    )
    if chosen is not best:
        why += f"; {best.arm.level:g} % drops more and is not significantly better"
    return why


def _why_not(own: Sequence[Judged]) -> str:
    if not own:
        return "no level drops anything"
    if any(one.outcome == "one seed" for one in own):
        return "one seed is not enough, because two trainings of the same clips differ too; give --seeds 3"
    worst = max(own, key=lambda one: one.to_all.mean)
    if any(one.outcome == "worse" for one in own):
        return f"dropping hurts: {worst.arm.level:g} % changes the loss by {_span(worst.to_all)}"
    if any(one.outcome == "as a random subset" for one in own):
        return "dropping helps, but a random subset of the same size helps as much"
    width = max((one.to_all.high or 0.0) - one.to_all.mean for one in own)
    return f"no difference: every level's interval contains 0; this ablation cannot detect a change below about {width:.1f} %"


def _span(difference: Difference) -> str:
    return f"{difference.mean:+.1f} % ({difference.low:+.1f} to {difference.high:+.1f})"


def _outcome(arm: Arm, to_all: Difference, to_control: Difference | None) -> str:
    if arm.axis is None or arm.control is None:
        return ""
    if to_all.high is None or to_control is None:
        return "one seed"
    if to_all.better:
        return "better" if to_control.better else "as a random subset"
    return "worse" if to_all.worse else "no difference"


def _apart(best: Judged, other: Judged, judged: Sequence[Judged], losses: Losses) -> bool:
    """Whether the best winner is significantly better than another one."""
    common = _common([one.arm for one in judged], losses)
    tables = [_table(one.arm, losses, common) for one in (judged[0], best, other)]
    apart = 100 * (tables[1] - tables[2]) / tables[0].mean()
    rest = [100 * (_table(one.arm, losses, common) - tables[0]) / tables[0].mean() for one in judged[1:]]
    return _Ends(rest, ALPHA).of(apart).better


class _Ends:
    """Intervals with a pooled variance over seeds. Each table is (seeds, clips), in per cent."""

    def __init__(self, tables: Sequence[NDArray[np.float64]], level: float) -> None:
        variances = [float(table.mean(axis=1).var(ddof=1)) for table in tables if len(table) > 1]
        self._seed_variance = float(np.mean(variances)) if variances else None
        if variances:
            from scipy.stats import t

            self._t = float(t.ppf(1 - level / 2, sum(len(table) - 1 for table in tables)))

    def of(self, table: NDArray[np.float64]) -> Difference:
        mean = float(table.mean())
        if self._seed_variance is None or not table.any():
            return Difference(mean, *((0.0, 0.0) if self._seed_variance is not None else (None, None)))
        seeds, clips = table.shape
        of_clips = float(table.mean(axis=0).var(ddof=1)) / clips if clips > 1 else 0.0
        half = self._t * (self._seed_variance / seeds + of_clips) ** 0.5
        return Difference(mean, mean - half, mean + half)


def _common(arms: Sequence[Arm], losses: Losses) -> list[str]:
    """The clips with losses of every training."""
    clips = [losses[subset, seed].keys() for arm in arms for seed, subset in enumerate(arm.subsets)]
    return sorted(set.intersection(*map(set, clips)))


def _table(arm: Arm, losses: Losses, clips: Sequence[str]) -> NDArray[np.float64]:
    """Losses (seeds, clips), means over noise levels and draws."""
    rows: list[list[float]] = [
        [float(np.mean(losses[subset, seed][clip])) for clip in clips] for seed, subset in enumerate(arm.subsets)
    ]
    return np.array(rows)


def as_json(judged: Sequence[Judged], answers: Sequence[AxisAnswer]) -> dict[str, Any]:
    """Plain values for answer.json and for the report."""

    def ends(difference: Difference | None) -> list[float | None] | None:
        return None if difference is None else [difference.mean, difference.low, difference.high]

    rows = [
        {
            "arm": one.arm.name, "axis": one.arm.axis, "level": one.arm.level, "clips": one.arm.clips, "control": one.arm.control,
            "loss": one.loss, "to_all": ends(one.to_all), "to_control": ends(one.to_control), "outcome": one.outcome,
        }
        for one in judged
    ]  # fmt: skip
    return {"arms": rows, "answers": [vars(one) for one in answers]}
