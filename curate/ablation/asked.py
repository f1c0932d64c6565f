"""The options of `rushes ablate`, merged with an earlier plan in the same folder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from curate.ablation.axis import Axis
from curate.ablation.plan import Grid, digest_of
from curate.errors import UsageError, nearest
from curate.run.data import RunData

USUAL_AXES = ("motion", "aesthetic", "text_area", "watermark")
USUAL_LEVELS = (0.0, 12.5, 25.0, 50.0)
"""Per cent. Axes and levels of SVD (arXiv 2311.15127, appendix E), which also cut by CLIP similarity and had no watermark score."""
SEEDS = 3
"""Trainings of each subset. Our choice; SVD had one."""
PROMPTS, SAMPLE_SEED, LONGEST_PROMPT = 8, 1000, 10_000
"""The default number of prompts, the seed of the first, and the maximum characters of a prompt. Our choice; SVD had 64 prompts."""
Plan = Mapping[str, Any]


class Usable(Protocol):
    """A clip of the shards in train_hooks."""

    @property
    def clip_id(self) -> str:
        """The id."""

    @property
    def caption(self) -> str:
        """The caption, or an empty string."""


def axes_of(run: RunData, typed: str | None, before: Plan | None, log: Callable[[str], None]) -> list[Axis]:
    """The axes of the earlier plan and of the option `--axes`, by default USUAL_AXES. `log` receives a note on each axis that `keep:` cuts.

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
            raise UsageError(
                f"--axes {text}: the existing ablation cuts {axis.name} on the other side; give another --name"
            )
    found = found or {name: Axis.parse(name, keep) for name in USUAL_AXES if name in columns}
    if not found:
        raise UsageError(f"{run.root} has none of {', '.join(USUAL_AXES)}; name its measures with  --axes NAME,...")
    for axis in found.values():
        if axis.name in keep and before is None:
            log(
                f"keep: already has a rule on {axis.name}; levels are per cent of the clips that it keeps. Remove the rule to cut all clips"
            )
    return list(found.values())


def levels_of(typed: str | None, before: Plan | None) -> list[float]:
    """The levels of the earlier plan and of the option `--levels`, by default USUAL_LEVELS. Raises UsageError for text that is not a number."""
    known = {float(arm["level"]) for arm in before["arms"]} if before else set()
    if typed is None:
        return sorted(known or USUAL_LEVELS)
    try:
        return sorted(known | {float(text) for text in typed.split(",")})
    except ValueError:
        raise UsageError(
            f"--levels {typed}: expected percentages separated by commas, as in  --levels 0,12.5,25,50"
        ) from None


def seeds_of(typed: int | None, before: Plan | None) -> int:
    """The option `--seeds`, but never fewer than the earlier plan has."""
    return max(typed or SEEDS, *(len(arm["subsets"]) for arm in before["arms"])) if before else typed or SEEDS


def check_same_subsets(folder: Path, before: Plan | None, made: Grid) -> None:
    """Raises UsageError when a subset of the earlier plan has other clips now."""
    if before is None:
        return
    for name, clip_ids in made.subsets.items():
        if before["subsets"].get(name, digest := digest_of(clip_ids)) != digest:
            raise UsageError(
                f"{folder}: {name} had other clips when the ablation started, because measures were recomputed; give another --name"
            )


def prompts_of(path: Path | None, usable: Sequence[Usable], heldout: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of a file, by default captions of the held-out clips. Each has a clip, for image-to-video models to start from.

    Raises UsageError for a file that cannot be read, has no prompt or has one that is too long.
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
            raise UsageError(f"--prompts {path}: the file has no prompt; write one on each line")
        if longest := next((text for text in texts if len(text) > LONGEST_PROMPT), None):
            raise UsageError(
                f"--prompts {path}: a prompt has {len(longest)} characters; the maximum is {LONGEST_PROMPT}"
            )
    ids = list(heldout)
    first = {clip.caption: clip.clip_id for clip in usable if clip.clip_id in set(ids)}
    return [
        {"text": text, "seed": SAMPLE_SEED + i, "clip_id": first.get(text, ids[i % len(ids)])}
        for i, text in enumerate(texts)
    ]
