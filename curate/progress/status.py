"""The counts of a run, and every failure in it."""

from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc

from curate.run.data import RunData
from curate.run.undecided import undecided
from curate.run.windows import pending_windows
from curate.scan import sources
from curate.tables.table import Table


def counts(run: RunData) -> dict[str, Any]:
    """Counts of sources, clips, seconds, shards and tables, for `rushes status`. Clips whose values are pending count as `undecided`."""
    listed, selection = run.sources(), run.selection()
    scan_failed = {row["source_id"] for row in _failed(run.clips_table, ["source_id"])}
    failed = listed["error"].notna() | listed["source_id"].isin(scan_failed)
    index = run.index()
    left_out = {item["clip_id"] for item in (index or {}).get("left_out", [])}
    waiting = undecided(run)
    clip_failed = selection.failed_clips + len(left_out)
    ledger = run.ledger(selection) if not pending_windows(run) else None
    seconds = None
    if ledger is not None:
        seconds = {key.removesuffix("_s"): value for key, value in ledger.as_dict().items() if key.endswith("_s")}
        if waiting.clips:
            seconds["kept"] -= waiting.as_kept_s
            seconds["dropped"] -= waiting.seconds - waiting.as_kept_s
            seconds["undecided"] = waiting.seconds
    return {
        "run": run.root,
        "sources": {
            "total": len(listed),
            "ok": int((~failed).sum()),
            "failed": int(failed.sum()),
            "duplicates": int(listed["duplicate_of"].notna().sum()),
        },
        "clips": {
            "total": selection.total_clips,
            "ok": selection.total_clips - clip_failed,
            "failed": clip_failed,
            "kept": len(selection.clip_ids) - len(left_out) - waiting.as_kept,
            "dropped": selection.total_clips
            - selection.failed_clips
            - len(selection.clip_ids)
            - (waiting.clips - waiting.as_kept),
            "undecided": waiting.clips,
        },
        "seconds": seconds,
        "shards": {
            "files": len(index["shards"]) if index else 0,
            "clips": index["clips"] if index else 0,
            "bytes": index["bytes"] if index else 0,
        },
        "tables": {name: _rows(table) for name, table in run.tables().items()},
        "finished": index is not None,
    }


def failures(run: RunData) -> Iterator[dict[str, Any]]:
    """Every failure: a file, a span, a stage on a clip, a clip that could not be written; one dict each, with a sentence in `error`."""
    for row in _failed(run.sources_table, ["uri", "source_id"]):
        ids = {"uri": row["uri"], "source_id": row["source_id"], "clip_id": None}
        yield {"table": "sources", **ids, "error": row["error"]}
    paths = {row["source_id"]: row["uri"] for row in sources.primary(run.sources())}
    for row in _failed(run.clips_table, ["source_id", "start_s", "end_s"]):
        ids = {"uri": paths.get(row["source_id"]), "source_id": row["source_id"], "clip_id": None}
        yield {"table": "clips", **ids, "start_s": row["start_s"], "end_s": row["end_s"], "error": row["error"]}
    failed = [(step.spec.name, row["clip_id"], row["error"]) for step in run.steps for row in _failed(step.table, [])]
    failed += [("shards", item["clip_id"], item["error"]) for item in (run.index() or {}).get("left_out", [])]
    spans = run.clips_table.read(["source_id"]) if failed else run.clips_table.schema.empty_table()
    source_of = dict(zip(spans.column("clip_id").to_pylist(), spans.column("source_id").to_pylist(), strict=True))
    for table, clip_id, error in failed:
        yield {"table": table, "uri": paths.get(source_of.get(clip_id)), "clip_id": clip_id, "error": error}


def _failed(table: Table, columns: list[str]) -> list[dict[str, Any]]:
    rows = table.read([*columns, "error"])
    found: list[dict[str, Any]] = rows.filter(pc.is_valid(rows.column("error"))).to_pylist()
    return found


def _rows(table: Table) -> dict[str, int]:
    errors = table.read_once(["error"]).column("error")
    return {"rows": len(errors), "errors": len(errors) - errors.null_count}
