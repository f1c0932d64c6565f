"""What was asked of `rushes ablate`, and what an earlier plan in the same folder has settled."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from curate.ablation.axis import Axis
from curate.ablation.plan import Grid, digest_of
from curate.errors import UsageError, nearest
from curate.run.data import RunData

USUAL_AXES = ("motion", "aesthetic", "text_area", "watermark")
USUAL_LEVELS = (0.0, 12.5, 25.0, 50.0)
"""Per cent. Both are SVD's (arXiv 2311.15127, appendix E), which cut by CLIP similarity too, and knew no watermark score."""
SEEDS = 3
"""Trainings of each subset. Ours; SVD had one."""
PROMPTS, SAMPLE_SEED, LONGEST_PROMPT = 8, 1000, 10_000
"""Prompts where none are given, the seed of the first, and characters of one at most. Ours; SVD had 64 prompts."""
Plan = Mapping[str, Any]


class Usable(Protocol):
    """A clip of the shards, as train_hooks knows it."""

    @property
    def clip_id(self) -> str:
        """Its id."""

    @property
    def caption(self) -> str:
        """Its caption, or nothing."""


def axes_of(run: RunData, typed: str | None, before: Plan | None, told: Callable[[str], None]) -> list[Axis]:
    """Those of the plan that is there, and those that were typed; else the usual ones. `told` hears of a rule that has cut already.

    Raises UsageError for a measure that the run does not have.
    """
    keep = run.pipeline.config.keep
    columns = {name for step in run.steps for name in step.columns} | {"duration_s", "fps", "width_px", "height_px"}
    found = {name: Axis(name, side) for name, side in before["axes"].items()} if before else {}
    for text in typed.split(",") if typed is not None else []:
        axis = Axis.parse(text, keep)
        if axis.name not in columns:
            raise UsageError(f"--axes: there is no measure '{axis.name}'{nearest(axis.name, columns)}")
        if found.setdefault(axis.name, axis) != axis:
            raise UsageError(f"--axes {text}: this ablation cuts {axis.name} on the other side; give another --name")
    found = found or {name: Axis.parse(name, keep) for name in USUAL_AXES if name in columns}
    if not found:
        raise UsageError(f"{run.root} has none of {', '.join(USUAL_AXES)}; name the measures with  --axes NAME,...")
    for axis in found.values():
        if axis.name in keep and before is None:
            told(
                f"keep: cuts {axis.name} already; levels are of the clips that it leaves, and a run without that rule has more"
            )
    return list(found.values())


def levels_of(typed: str | None, before: Plan | None) -> list[float]:
    """Those of the plan that is there, and those that were typed; else SVD's. Raises UsageError for what is no number."""
    known = {float(arm["level"]) for arm in before["arms"]} if before else set()
    if typed is None:
        return sorted(known or USUAL_LEVELS)
    try:
        return sorted(known | {float(text) for text in typed.split(",")})
    except ValueError:
        raise UsageError(
            f"--levels {typed}: percentages, with commas between them, as in  --levels 0,12.5,25,50"
        ) from None


def seeds_of(typed: int | None, before: Plan | None) -> int:
    """As many as were typed, and never fewer than the plan that is there has."""
    return max(typed or SEEDS, *(len(arm["subsets"]) for arm in before["arms"])) if before else typed or SEEDS


def check_same_subsets(folder: Path, before: Plan | None, made: Grid) -> None:
    """Raises UsageError where a subset that was planned before has other clips now."""
    if before is None:
        return
    for name, clip_ids in made.subsets.items():
        if before["subsets"].get(name, digest := digest_of(clip_ids)) != digest:
            raise UsageError(
                f"{folder}: {name} held other clips when it was begun (measures were made anew); give another --name"
            )


def prompts_of(path: Path | None, usable: Sequence[Usable], heldout: Sequence[str]) -> list[dict[str, Any]]:
    """The file's lines, or different captions of the judge's clips; with a clip whose first frame an image-to-video model is shown.

    Raises UsageError for a file that cannot be read or holds none.
    """
    by_id = {clip.clip_id: clip for clip in usable}
    if path is None:
        texts = list(dict.fromkeys(by_id[clip_id].caption for clip_id in heldout if clip_id in by_id))[:PROMPTS]
    else:
        try:
            texts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--prompts {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
        if not texts:
            raise UsageError(f"--prompts {path}: it holds no prompt")
        if longest := next((text for text in texts if len(text) > LONGEST_PROMPT), None):
            raise UsageError(f"--prompts {path}: a prompt of {len(longest)} characters; {LONGEST_PROMPT} are allowed")
    ids = list(heldout)
    first = {clip.caption: clip.clip_id for clip in usable if clip.clip_id in set(ids)}
    return [
        {"text": text, "seed": SAMPLE_SEED + i, "clip_id": first.get(text, ids[i % len(ids)])}
        for i, text in enumerate(texts)
    ]
