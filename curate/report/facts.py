"""What the report's page is told besides the clips' columns: the run, its account of seconds, rules, errors, costs of stages, trainings."""

import inspect
import math
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.progress import cost, status
from curate.run.data import RunData
from curate.run.select import Selection
from curate.run.steps import CLIP_FACTS
from curate.run.windows import pending_windows
from curate.tables import store

EXAMPLES = 5
"""Of each error message, so many files are named. Ours."""
CURVE_STEPS = 2_000
"""Steps of a training curve that are drawn at most, evenly chosen. Ours."""
SHEETS = 6
"""Sample sheets shown of a training, evenly chosen, the last one among them. Ours."""
FACTS_SHOWN = ("duration_s", "fps", "width_px", "height_px", "start_confidence", "end_confidence")
"""Facts of a clip that are shown as measures."""


def facts(run: RunData, selection: Selection) -> dict[str, Any]:
    """Everything but the columns themselves. `selection` is what the pipeline's rules keep."""
    listed = run.sources()
    index = run.index() or {}
    return {
        "run": run.root,
        "name": run.root.rstrip("/").rsplit("/", 1)[-1],
        "sources": {
            "total": len(listed),
            "failed": int(listed["error"].notna().sum()),
            "duplicates": int(listed["duplicate_of"].notna().sum()),
        },
        "shards": {
            "files": len(index.get("shards", [])),
            "clips": index.get("clips", 0),
            "bytes": index.get("bytes", 0),
        },
        "unwritten": [item["clip_id"] for item in index.get("left_out", [])],
        "ledger": _fixed_seconds(run, selection),
        "keep": [
            {"column": name, **rule.model_dump(by_alias=True, exclude_none=True)}
            for name, rule in run.pipeline.config.keep.items()
        ],
        "captions": [step.names["caption"] for step in run.steps if step.kind == "caption" and "caption" in step.names],
        "errors": error_groups(status.failures(run)),
        "stages": _costs(run),
    }


def of_stages(run: RunData) -> dict[str, dict[str, Any]]:
    """Each column with the stage that makes it, what that says of itself, and whether it is a measure (what `keep:` is about)."""
    found = {name: {"stage": "clips", "about": "", "measure": name in FACTS_SHOWN} for name in CLIP_FACTS}
    for step in run.steps:
        paragraph = (inspect.getdoc(type(step.stage)) or "").split("\n\n")[0]
        said = " ".join(paragraph.replace("`", "").split())
        for name in step.columns:
            found[name] = {"stage": step.spec.name, "about": said, "measure": step.kind in ("measure", "review")}
    return found


def _fixed_seconds(run: RunData, selection: Selection) -> dict[str, float] | None:
    """The entries of the ledger that no rule changes; None while there are sources to scan.

    `failed_s` are the seconds of files and spans that failed; those of clips on which a stage failed, or that could not be written, the page
    adds up itself.
    """
    if pending_windows(run):
        return None
    ledger = run.ledger(selection)
    unwritten_s = selection.kept_s - ledger.kept_s
    return {
        "total_s": ledger.total_s,
        "too_short_s": ledger.too_short_s,
        "transition_s": ledger.transition_s,
        "unaligned_s": ledger.unaligned_s,
        "failed_s": ledger.failed_s - selection.failed_s - unwritten_s,
        "duplicate_s": ledger.duplicate_s,
        "unknown_length_files": ledger.unknown_length_files,
    }


def error_groups(failures: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Failures by table and message, the most frequent first; numbers and ids in a message do not tell groups apart."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for failure in failures:
        message = str(failure["error"])
        key = failure["table"], re.sub(r"\b[0-9a-f]{8,}\b|\d+(\.\d+)?", "#", message.replace(str(failure["uri"]), ""))
        group = groups.setdefault(key, {"table": key[0], "message": message, "count": 0, "examples": []})
        group["count"] += 1
        if len(group["examples"]) < EXAMPLES:
            group["examples"].append({"uri": failure["uri"], "clip_id": failure["clip_id"], "error": message})
    return sorted(groups.values(), key=lambda group: -group["count"])


def _costs(run: RunData) -> list[dict[str, Any]]:
    """What each step has cost so far; in a pass that several stages share, each of them has a row of its own below it."""
    found: list[dict[str, Any]] = []
    for name, spent in cost.read(run.root).items():
        found.append(
            {"name": name, "rows": spent.rows, "errors": spent.errors, "busy_s": spent.busy_s, "tokens": spent.tokens}
        )
        found += [{"name": part, "busy_s": share * spent.busy_s, "of": name} for part, share in spent.shares.items()]
    return found


def trainings(run: RunData, folder: str) -> list[dict[str, Any]]:
    """The trainings under `train/` of the run: their curves, and their samples, which are copied into `folder`."""
    store.remove(folder)
    found: list[dict[str, Any]] = []
    for name in store.names(run.path("train"), ""):
        metrics = run.path("train", name, "metrics.parquet")
        if not store.exists(metrics):
            continue
        try:
            table = pq.ParquetFile(pa.BufferReader(store.get(metrics))).read()
        except pa.ArrowInvalid:  # a training that can be looked at no more costs itself
            damaged = f"{metrics} is damaged and cannot be read"
            found.append({"name": name, "curves": {"step": []}, "sheets": [], "video": None, "problem": damaged})
            continue
        step = max(1, math.ceil(len(table) / CURVE_STEPS))
        chosen = sorted({*range(0, len(table), step), *_told(table, "heldout_loss")})
        table = table.take(chosen)
        curves = {
            column: [None if v is not None and not math.isfinite(v) else v for v in table.column(column).to_pylist()]
            for column in table.column_names
            if column != "stage" and table.column(column).null_count < len(table)
        }
        video = run.path("train", name, "sample.mp4")
        told = {
            "name": name,
            "curves": curves,
            "sheets": _sheets(run, name, folder, len(found)),
            "video": None,
            "problem": None,
        }
        if store.exists(video):
            told["video"] = f"{len(found)}.mp4"
            store.put(store.join(folder, f"{len(found)}.mp4"), store.get(video))
        found.append(told)
    return found


def _told(table: pa.Table, column: str) -> list[int]:
    values = table.column(column).to_pylist() if column in table.column_names else []
    return [i for i, value in enumerate(values) if value is not None]


def _sheets(run: RunData, name: str, folder: str, number: int) -> list[dict[str, Any]]:
    sheets = store.names(run.path("train", name, "samples"), ".png")
    if len(sheets) > SHEETS:
        sheets = [sheets[round(i * (len(sheets) - 1) / (SHEETS - 1))] for i in range(SHEETS)]
    copied = []
    for n, sheet in enumerate(sheets):
        file = f"{number}-{n}.png"
        store.put(store.join(folder, file), store.get(run.path("train", name, "samples", sheet)))
        copied.append({"file": file, "title": sheet.removesuffix(".png")})
    return copied
