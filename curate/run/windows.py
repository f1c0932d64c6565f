"""The scan windows of a run's sources: all windows, and the pending ones."""

from typing import Any

import pandas as pd

from curate.run.data import RunData
from curate.scan import scan, sources


def all_windows(run: RunData) -> list[dict[str, Any]]:
    """Every window of every readable source: `uri, source_id, duration_s` (None: unknown), `window`, `last_window`, counted from 0."""
    found: list[dict[str, Any]] = []
    for source in sources.primary(run.sources()):
        last = scan.n_windows(source["duration_s"], run.pipeline.config.scan.window_s) - 1
        known_s = source["duration_s"] if pd.notna(source["duration_s"]) else None
        facts = {"uri": source["uri"], "source_id": source["source_id"], "duration_s": known_s, "last_window": last}
        found += [{**facts, "window": window} for window in range(last + 1)]
    return found


def pending_windows(run: RunData) -> list[dict[str, Any]]:
    """The windows without rows in the clips table."""
    rows = run.clips_table.read_unordered(["source_id", "window"]).group_by(["source_id", "window"]).aggregate([])
    done = set(zip(rows.column("source_id").to_pylist(), rows.column("window").to_pylist(), strict=True))
    return [window for window in all_windows(run) if (window["source_id"], window["window"]) not in done]
