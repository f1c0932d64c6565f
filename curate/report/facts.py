"""The data of the report's page except the columns of the clips: run, ledger, rules, errors, costs of stages, trainings."""

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
"""The maximum number of files named for each error message. Our choice."""
CURVE_STEPS = 2_000
"""The maximum number of steps drawn of a training curve, evenly chosen. Our choice."""
SHEETS = 6
"""The maximum number of sample sheets shown of a training, evenly chosen, the last one included. Our choice."""
FACTS_SHOWN = ("duration_s", "fps", "width_px", "height_px", "start_confidence", "end_confidence")
"""Columns of the clips table that are shown as measures."""


def facts(run: RunData, selection: Selection) -> dict[str, Any]:
    """The data for `run.js`. `selection` is the selection by the pipeline's rules."""
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
    """For each column its stage, the stage's own description, and whether it is a measure (a column for rules of `keep:`)."""
    found = {name: {"stage": "clips", "about": "", "measure": name in FACTS_SHOWN} for name in CLIP_FACTS}
    for step in run.steps:
        paragraph = (inspect.getdoc(type(step.stage)) or "").split("\n\n")[0]
        about = " ".join(paragraph.replace("`", "").split())
        for name in step.columns:
            found[name] = {"stage": step.spec.name, "about": about, "measure": step.kind in ("measure", "review")}
    return found


def _fixed_seconds(run: RunData, selection: Selection) -> dict[str, float] | None:
    """The entries of the ledger that no rule changes, or None while there are sources to scan.

    `failed_s` counts the files and spans that failed. The page itself adds the clips on which a stage failed and the clips that could not be
    written.
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
    """Failures by table and message, the most frequent first. Messages that differ only in numbers and ids are one group."""
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
    """The cost of each step so far. Below a pass that several stages share there is a row for each of them."""
    found: list[dict[str, Any]] = []
    for name, spent in cost.read(run.root).items():
        found.append(
            {"name": name, "rows": spent.rows, "errors": spent.errors, "busy_s": spent.busy_s, "tokens": spent.tokens}
        )
        found += [{"name": part, "busy_s": share * spent.busy_s, "of": name} for part, share in spent.shares.items()]
    return found


def trainings(run: RunData, folder: str) -> list[dict[str, Any]]:
    """The trainings under `train/` of the run: their curves and samples. The samples are copied into `folder`."""
    store.remove(folder)
    found: list[dict[str, Any]] = []
    for name in store.names(run.path("train"), ""):
        metrics = run.path("train", name, "metrics.parquet")
        if not store.exists(metrics):
            continue
        try:
            table = pq.ParquetFile(pa.BufferReader(store.get(metrics))).read()
        except pa.ArrowInvalid:
            damaged = f"{metrics} is damaged and cannot be read"
            found.append({"name": name, "curves": {"step": []}, "sheets": [], "video": None, "problem": damaged})
            continue
        video = run.path("train", name, "sample.mp4")
        training = {
            "name": name,
            "curves": _curves(table),
            "sheets": _sheets(run, name, folder, len(found)),
            "video": None,
            "problem": None,
        }
        if store.exists(video):
            training["video"] = f"{len(found)}.mp4"
            store.put(store.join(folder, f"{len(found)}.mp4"), store.get(video))
        found.append(training)
    return found


def _curves(table: pa.Table) -> dict[str, list[Any]]:
    """The metrics at up to CURVE_STEPS steps and at every step with a held-out loss. NaN and infinity become null."""
    step = max(1, math.ceil(len(table) / CURVE_STEPS))
    table = table.take(sorted({*range(0, len(table), step), *_known(table, "heldout_loss")}))
    return {
        column: [None if v is not None and not math.isfinite(v) else v for v in table.column(column).to_pylist()]
        for column in table.column_names
        if column != "stage" and table.column(column).null_count < len(table)
    }


def _known(table: pa.Table, column: str) -> list[int]:
    """The rows that have a value in this column."""
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
