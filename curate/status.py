"""How far a run is, and everything that failed in it."""

from collections.abc import Iterator
from typing import Any

from curate import sources
from curate.run import Run
from curate.table import Table


def counts(run: Run) -> dict[str, Any]:
    """Counts of everything, for people and scripts."""
    listed, spans, wide, selection = run.sources(), run.spans(), run.wide(), run.selection()
    scan_failed = set(spans.loc[spans["error"].notna(), "source_id"])
    failed = listed["error"].notna() | listed["source_id"].isin(scan_failed)
    index = run.index()
    left_out = {item["clip_id"] for item in (index or {}).get("left_out", [])}
    clip_failed = int(wide["error"].notna().sum()) + len(left_out)
    ledger = run.ledger() if not run.pending_windows() else None
    seconds = (
        {key.removesuffix("_s"): value for key, value in ledger.as_dict().items() if key.endswith("_s")}
        if ledger
        else None
    )
    return {
        "run": run.root,
        "sources": {
            "total": len(listed),
            "ok": int((~failed).sum()),
            "failed": int(failed.sum()),
            "duplicates": int(listed["duplicate_of"].notna().sum()),
        },
        "clips": {
            "total": len(wide),
            "ok": len(wide) - clip_failed,
            "failed": clip_failed,
            "kept": len(selection.clip_ids) - len(left_out),
            "dropped": len(wide) - int(wide["error"].notna().sum()) - len(selection.clip_ids),
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


def failures(run: Run) -> Iterator[dict[str, Any]]:
    """Everything that failed: a file, a span, a stage on a clip, a clip that could not be written; one dict each, with a sentence."""
    for row in run.sources_table.read(["uri", "source_id", "error"]).to_pylist():
        if row["error"]:
            yield {
                "table": "sources",
                "uri": row["uri"],
                "source_id": row["source_id"],
                "clip_id": None,
                "error": row["error"],
            }
    wide = run.wide(columns=())
    uris = dict(zip(wide["clip_id"], wide["uri"], strict=True))
    paths = {row["source_id"]: row["uri"] for row in sources.primary(run.sources())}
    for row in run.clips_table.read(["source_id", "start_s", "end_s", "error"]).to_pylist():
        if row["error"]:
            span = {"start_s": row["start_s"], "end_s": row["end_s"]}
            where = {
                "table": "clips",
                "uri": paths.get(row["source_id"]),
                "source_id": row["source_id"],
                "clip_id": None,
            }
            yield {**where, **span, "error": row["error"]}
    for step in run.steps:
        for row in step.table.read(["error"]).to_pylist():
            if row["error"]:
                yield {
                    "table": step.spec.name,
                    "uri": uris.get(row["clip_id"]),
                    "clip_id": row["clip_id"],
                    "error": row["error"],
                }
    for item in (run.index() or {}).get("left_out", []):
        yield {
            "table": "shards",
            "uri": uris.get(item["clip_id"]),
            "clip_id": item["clip_id"],
            "error": item["error"],
        }


def _rows(table: Table) -> dict[str, int]:
    errors = table.read(["error"]).column("error")
    return {"rows": len(errors), "errors": len(errors) - errors.null_count}
