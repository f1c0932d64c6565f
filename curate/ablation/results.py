"""An ablation of a run: its plan, its results, and the thresholds that follow. `rushes ablate` runs the trainings.

RUN/ablate/NAME/
    plan.json            arms, held-out clips, prompts, and the claim: the settings that must be equal to resume
    subsets/ models/ samples/ judged/       one entry for each training (train_hooks/ablation.py)
    contest.json         the comparisons for people (curate/voting/contest.py)
    votes...             their votes (curate/voting/votes.py)
    answer.json          the verdict from losses and votes (curate/ablation/verdict.py)
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.ablation.axis import Axis
from curate.ablation.plan import Arm, Grid, digest_of
from curate.ablation.verdict import AxisAnswer, answer, as_json, judge
from curate.errors import UsageError
from curate.tables import store
from curate.voting import contest
from curate.voting.opinion import WORDS, opinions

if TYPE_CHECKING:
    import pandas as pd

    from curate.dataset.view import Sheet

PLAN, ANSWER = "plan.json", "answer.json"
FRAMES_SHOWN = 6
"""Number of frames shown of a sample, evenly spread. Our choice."""
LIMITS = (
    "The answer holds for this recipe, these steps and these clips: a larger model, a longer training or other footage may give another answer. "
    "Each axis was cut alone, not together with the others."
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass
class Ablation:
    """The folder of an ablation, opened for reading."""

    folder: Path
    plan: dict[str, Any]

    @classmethod
    def open(cls, run: str, name: str | None = None) -> "Ablation":
        """Opens one of a run's ablations; without a name, the newest. Raises UsageError when the run has no such ablation."""
        folder = contest.find(run, name)
        return cls(folder, read_plan(folder))

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def arms(self) -> list[Arm]:
        """All arms, `all` first."""
        return [Arm(**{**arm, "subsets": tuple(arm["subsets"])}) for arm in self.plan["arms"]]

    @property
    def trainings(self) -> list[tuple[str, int]]:
        """(subset, seed) of each training."""
        return list(dict.fromkeys((s, seed) for arm in self.arms for seed, s in enumerate(arm.subsets)))

    @cached_property
    def judged(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The results of each finished training: losses, scores, seconds."""
        found = {
            key: store.get_json(str(self.folder / "judged" / f"{training_name(*key)}.json")) for key in self.trainings
        }
        return {key: value for key, value in found.items() if value is not None}

    def losses(self, group: str = "heldout") -> dict[tuple[str, int], dict[str, list[float]]]:
        """The losses of each finished training on the clips of a group."""
        return {key: result["losses"][group] for key, result in self.judged.items() if group in result["losses"]}

    def verdict(self) -> dict[str, Any]:
        """The content of answer.json: arms against `all` and their controls, the answer of each axis, and the rules that follow."""
        losses = self.losses()
        judged = judge(self.arms, losses)
        answers = answer(judged, losses)
        elsewhere = judge(self.arms, self.losses("elsewhere")) if self.plan["elsewhere"] else []
        change_elsewhere = {one.arm.name: one.to_all.mean for one in elsewhere}
        people = self.people()
        answers = [_by_people(one, people, self.arms) for one in answers]
        made = as_json(judged, answers)
        for row in made["arms"]:
            row["elsewhere"] = change_elsewhere.get(row["arm"])
            row["scores"] = self._scores(row["arm"])
        done = len(self.judged)
        seconds = sum(result["seconds"] for result in self.judged.values())
        cost = {"trainings": len(self.trainings), "done": done, "steps_s": seconds, "steps": self.plan["steps"]}
        context = {
            "keep": rules_of(answers),
            "people": people,
            "limits": LIMITS,
            "cost": cost,
            "notes": self.plan["notes"],
        }
        return {"name": self.name, **made, **context}

    def people(self) -> list[dict[str, Any]]:
        """The preferences of voters by axis and question (curate/voting/opinion.py)."""
        return opinions(self.folder, list(self.plan["axes"]))

    def table(self) -> "pd.DataFrame":
        """A row for each subset.

        `change` is the change of the loss against all clips in per cent, `low` and `high` its interval, `to_random` the change against the
        control, `elsewhere` the change on clips that some axis drops, `outcome` one of `curate.ablation.verdict.Judged`. Scores of the samples
        have a column each.
        """
        import pandas as pd

        rows = []
        for row in self.verdict()["arms"]:
            change, low, high = row["to_all"]
            line = {key: row[key] for key in ("arm", "axis", "level", "clips", "loss")} | {
                "change": change,
                "low": low,
                "high": high,
            }
            line |= {
                "control": row["control"],
                "to_random": (row["to_control"] or [None])[0],
                "elsewhere": row["elsewhere"],
            }
            rows.append(line | row["scores"] | {"outcome": row["outcome"]})
        return pd.DataFrame(rows)

    def answers(self) -> "pd.DataFrame":
        """A row for each axis: the per cent to drop (0: none), the rule for `keep:`, and the reason."""
        import pandas as pd

        return pd.DataFrame(self.verdict()["answers"], columns=["axis", "level", "rule", "arm", "why"])

    def show(self, prompt: int = 0, arms: Sequence[str] | None = None) -> "Sheet":
        """A contact sheet of the samples of one prompt, a row for each subset's first seed. Raises UsageError when there are no samples."""
        import cv2

        from curate.dataset.contact import clip_sheet
        from curate.dataset.view import Sheet
        from curate.video.open import open_video

        rows = []
        for arm in self.arms:
            path = self.folder / "samples" / training_name(arm.subsets[0], 0) / f"{prompt:02d}.mp4"
            if path.is_file() and (arms is None or arm.name in arms):
                with open_video(str(path)) as video:
                    length_s = video.info.duration_s or 0.0
                    frames_THWC = video.frames_at(
                        [length_s * i / FRAMES_SHOWN for i in range(FRAMES_SHOWN)]
                    ).frames_THWC
                jpegs = [cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes() for frame in frames_THWC]
                rows.append((f"{arm.name}\n{self.plan['prompts'][prompt]['text']}", jpegs))
        if not rows:
            raise UsageError(f"{self.folder} has no sample of prompt {prompt}")
        return Sheet(clip_sheet(rows))

    def _scores(self, name: str) -> dict[str, float]:
        """The scores of an arm's samples, means over the seeds."""
        arm = next(arm for arm in self.arms if arm.name == name)
        scores = [self.judged[subset, seed]["scores"] for seed, subset in enumerate(arm.subsets)]
        return {
            key: sum(one[key] for one in scores) / len(scores) for key in scores[0] if all(key in s for s in scores)
        }


def _by_people(one: AxisAnswer, people: Sequence[Mapping[str, Any]], arms: Sequence[Arm]) -> AxisAnswer:
    """The answer by votes on visual quality if they separate the leader from `all`, else the answer by losses."""
    opinion = next((o for o in people if (o["group"], o["question"]) == (one.axis, WORDS["quality"])), None)
    if opinion is None:
        return one
    first = opinion["ratings"][0]["contestant"]
    pairs = {(pair["a"], pair["b"]) for pair in opinion["apart"]}
    if first == "all" and one.rule is not None and ("all", one.arm) in pairs:
        why = f"people preferred dropping nothing to {one.arm}, which has the best held-out loss ({one.why})"
        return AxisAnswer(one.axis, 0.0, None, "all", why)
    if (first, "all") in pairs:
        arm = next(arm for arm in arms if arm.name == first)
        why = f"people preferred {first} to dropping nothing in visual quality; by held-out loss: {one.why}"
        return AxisAnswer(one.axis, arm.level, arm.rule, first, why)
    return one


def folder_of(run: str, name: str) -> Path:
    """The folder of an ablation of a run. Raises UsageError for a malformed name, and for a run that is not on a disk."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--name {name}: a name may have letters, digits, dots, dashes and underscores, at most 100 characters"
        )
    if not store.is_local(run):
        raise UsageError(
            f"{run} is on object storage; copy its pipeline.json, tables and shards to a disk and run the ablation there"
        )
    return Path(store.local_path_of(run)).absolute() / "ablate" / name


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan of an ablation. Raises UsageError for a file that `rushes ablate` did not write."""
    try:
        plan: dict[str, Any] = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        if plan["version"] != 1 or not plan["arms"]:
            raise ValueError
        return plan
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{folder / PLAN} is not a valid plan of an ablation; remove the folder or give another --name"
        ) from None


def training_name(subset: str, seed: int) -> str:
    """The name of a training's folder, samples and losses."""
    return f"{subset}-s{seed}"


def write_plan(folder: Path, claim: Mapping[str, Any], axes: Sequence[Axis], grid: Grid, **more: Any) -> None:
    """Writes the plan, the clips of each subset and the contest. `more` are further keys of the plan: prompts, steps."""
    plan = {
        "version": 1, "claim": claim, "axes": {axis.name: axis.side for axis in axes}, "arms": [asdict(arm) for arm in grid.arms],
        "subsets": {name: digest_of(ids) for name, ids in grid.subsets.items()},
        "heldout": grid.heldout, "elsewhere": grid.elsewhere, "heldout_level": grid.heldout_level, "notes": grid.notes, **more,
    }  # fmt: skip
    for name, ids in grid.subsets.items():
        store.put(str(folder / "subsets" / f"{name}.txt"), "".join(f"{clip_id}\n" for clip_id in ids).encode())
    store.put_json(str(folder / PLAN), plan)
    store.put_json(str(folder / contest.FILE), contest_of(folder.name, grid.arms, [p["text"] for p in more["prompts"]]))


def contest_of(name: str, arms: Sequence[Arm], prompts: Sequence[str]) -> dict[str, Any]:
    """The contest: a group for each axis with `all` and its levels. Levels with the same clips appear once."""
    groups: dict[str, list[str]] = {}
    by_subsets: dict[tuple[str, ...], str] = {}
    for arm in arms:
        first = by_subsets.setdefault(arm.subsets, arm.name)
        if arm.axis is not None:
            own = groups.setdefault(arm.axis, ["all"])
            if first not in own:
                own.append(first)
    shown = {name for own in groups.values() for name in own}
    videos = {
        arm.name: [
            [f"samples/{training_name(subset, seed)}/{i:02d}.mp4" for i in range(len(prompts))]
            for seed, subset in enumerate(arm.subsets)
        ]
        for arm in arms
        if arm.name in shown
    }
    listed = [{"name": axis, "contestants": own} for axis, own in groups.items() if len(own) > 1]
    return {"version": 1, "name": name, "prompts": list(prompts), "groups": listed, "videos": videos}


def rules_of(answers: Sequence[AxisAnswer]) -> dict[str, dict[str, float]]:
    """The rules of `keep:` that follow. Thresholds have six digits, rounded so that they drop no clip of the chosen subset."""
    return {one.axis: {side: _rounded(value, side) for side, value in one.rule.items()} for one in answers if one.rule}


def _rounded(value: float, side: str) -> float:
    context = Context(prec=6, rounding=ROUND_FLOOR if side == "above" else ROUND_CEILING)
    return float(context.create_decimal(Decimal(value)))
