"""A run directory, opened: its tables, the wide view over them, what is kept, and the account of every second. Reads only.

runs/demo/
    pipeline.json           the pipeline file as it was resolved
    sources/ clips/ measures/<name>/ captions/<name>/ embeddings/<name>/        tables (curate/table.py)
    shards/ index.lance/ report/                                                what is made from them
"""

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from curate import config, scan, sources, steps, store
from curate.config import Pipeline
from curate.errors import UsageError
from curate.ledger import Ledger, balance
from curate.select import Selection, select
from curate.steps import CLIP_FACTS, Step
from curate.table import Table
from curate.yaml_lines import Document

PIPELINE = "pipeline.json"
SCORED = ("measure", "caption", "review")
"""Kinds of steps whose columns the wide view holds."""
SPAN_COLUMNS = [name for name in scan.SCHEMA.names if name not in ("thumbs", "thumb_times_s")]
ROW_GROUP_ROWS = 16
"""Of tables and shards that carry pictures or video, so that a random read fetches little."""


class Run:
    """An opened run. `Run.open(path)` for a directory that exists; `Run(root, pipeline)` for one about to be made."""

    def __init__(self, root: str, pipeline: Pipeline) -> None:
        self.root = store.normalise(root)
        self.pipeline = pipeline
        self.sources_table = Table(self.path("sources"), sources.SCHEMA, key=("uri",))
        self.clips_table = Table(self.path("clips"), scan.SCHEMA, row_group_rows=ROW_GROUP_ROWS)

    @classmethod
    def open(cls, root: str | Path, overrides: tuple[str, ...] = ()) -> "Run":
        """Opens a run directory. Raises UsageError when it is none."""
        where = store.join(store.normalise(str(root)), PIPELINE)
        saved = store.get_json(where)
        if saved is None:
            raise UsageError(f"'{root}' is not a run directory (it has no {PIPELINE}); `rushes run` makes one")
        data = dict(saved["pipeline"])
        for override in overrides:
            config.override(data, override)
        return cls(
            str(root),
            config.validate(data, Document(PIPELINE, data, {}), Path(saved["directory"]), Path(saved["home"])),
        )

    def path(self, *names: str) -> str:
        """A path inside the run directory."""
        return store.join(self.root, *names)

    # -- steps and claims

    @cached_property
    def steps(self) -> list[Step]:
        """Every stage in the order in which it runs, built and checked. Raises ConfigError for what does not fit."""
        return steps.steps(self.pipeline, self.root)

    @cached_property
    def claims(self) -> dict[str, dict[str, Any]]:
        """What each table must have been made by, for this configuration."""
        return steps.claims(self.pipeline, self.steps)

    def tables(self) -> dict[str, Table]:
        """All tables by name, in the order in which they are made."""
        tables = {"sources": self.sources_table, "clips": self.clips_table}
        return tables | {step.spec.name: step.table for step in self.steps}

    def made_from(self) -> dict[str, tuple[str, ...]]:
        """Each table with the tables it is made from."""
        return {"sources": (), "clips": ("sources",), **{step.spec.name: step.made_from for step in self.steps}}

    # -- views

    def sources(self) -> pd.DataFrame:
        """One row per file, with `duplicate_of`."""
        return sources.with_duplicates(self.sources_table.read())

    def sources_scanned(self) -> pd.DataFrame:
        """One row per file with what came of its decode: `decoded_s` (null when there was none) and, in `error`, the first thing that failed."""
        frame, spans = self.sources(), self.spans()
        good = spans[spans["error"].isna()].groupby("source_id")["end_s"].max()
        failed = spans[spans["error"].notna()].sort_values("start_s").groupby("source_id")["error"].first()
        frame.insert(list(frame).index("duration_s") + 1, "decoded_s", frame["source_id"].map(good))
        frame["error"] = frame["error"].fillna(frame["source_id"].map(failed))
        return frame

    def spans(self) -> pd.DataFrame:
        """All rows of the clips table without thumbnails: clips, spans left out (`skip`), spans that failed (`error`)."""
        frame: pd.DataFrame = self.clips_table.read(SPAN_COLUMNS).to_pandas()
        return frame

    def clip_ids(self) -> list[str]:
        """Ids of all clips, in order."""
        spans = self.clips_table.read(["skip", "error"])
        good = pc.and_(pc.is_null(spans.column("skip")), pc.is_null(spans.column("error")))
        return cast(list[str], spans.filter(good).column("clip_id").to_pylist())

    def wide(self, kinds: tuple[str, ...] = SCORED, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """One row per clip: where it lies, every measure and caption made so far, and the first error met on it.

        `columns` limits which columns of the steps are read from disk.
        """
        spans = self.spans()
        clips = (
            spans[spans["skip"].isna() & spans["error"].isna()]
            .drop(columns=["window", "skip", "error"])
            .reset_index(drop=True)
        )
        paths = self.sources_table.read(["uri", "source_id", "error"]).to_pandas()
        paths = (
            paths[paths["error"].isna()].sort_values("uri").drop_duplicates("source_id").set_index("source_id")["uri"]
        )
        clips["uri"] = clips["source_id"].map(paths)
        clips["duration_s"] = clips["end_s"] - clips["start_s"]
        clips = clips[list(CLIP_FACTS)]
        errors = pd.Series(None, index=clips.index, dtype=object)
        for step in (s for s in self.steps if s.kind in kinds):
            caption = step.names.get("caption") if step.kind == "caption" else None
            wanted = {step.names.get(name, name) for name in columns or ()}  # `caption`: the first captioner's words
            names = [name for name in step.columns if columns is None or name in wanted]
            rows = step.table.read([*names, "error"]).to_pandas().set_index("clip_id").reindex(clips["clip_id"])
            for name in names:
                clips[name] = rows[name].to_numpy() if rows[name].dtype == object else rows[name].array
            said = rows["error"].reset_index(drop=True)
            errors = errors.where(errors.notna() | said.isna(), step.spec.name + ": " + said.astype(str))
            if caption in names and "caption" not in clips:
                clips["caption"] = clips[caption]
        clips["error"] = errors.astype("string")
        return clips

    def selection(self, kinds: tuple[str, ...] = SCORED) -> Selection:
        """What `keep:` keeps. With `kinds=("measure",)` the rules on captions wait: that is what gets captioned."""
        keep = self.pipeline.config.keep
        wide = self.wide(kinds, keep)
        return select(wide, {name: rule for name, rule in keep.items() if name in wide.columns or kinds == SCORED})

    def ledger(self) -> Ledger:
        """The account of every input second. Raises RunError when the spans of a source do not meet."""
        unwritten = (self.index() or {}).get("left_out", [])
        return balance(self.sources(), self.spans(), self.selection(), sum(item["seconds"] for item in unwritten))

    def index(self) -> dict[str, Any] | None:
        """The shards' `index.json`, or None when they are not finished."""
        found: dict[str, Any] | None = store.get_json(store.join(self.shards_root(), "index.json"))
        return found

    def shards_root(self, version: int | None = None) -> str:
        """The directory of a version of the shards, the newest by default; version 1 is `shards/` itself."""
        if version is None:
            found = [name for name in store.names(self.path("shards"), "") if re.fullmatch(r"v\d+", name)]
            begun = [int(name[1:]) for name in found if store.exists(self.path("shards", name, "plan.json"))]
            version = max(begun, default=1)
        return self.path("shards") if version == 1 else self.path("shards", f"v{version}")

    def shard_versions(self) -> list[tuple[str, dict[str, Any]]]:
        """(directory, index.json) of every finished version of the shards, oldest first."""
        newest = self.shards_root().removeprefix(self.path("shards", "v"))
        roots = [self.shards_root(n + 1) for n in range(int(newest) if newest.isdigit() else 1)]
        found = [(root, store.get_json(store.join(root, "index.json"))) for root in roots]
        return [(root, index) for root, index in found if index is not None]

    def pending_windows(self) -> list[dict[str, Any]]:
        """The windows of readable sources that are not scanned yet, each with what a worker must know of its source."""
        rows = self.clips_table.read(["source_id", "window"])
        done = set(zip(rows.column("source_id").to_pylist(), rows.column("window").to_pylist(), strict=True))
        pending = []
        for source in sources.primary(self.sources()):
            last = scan.n_windows(source["duration_s"], self.pipeline.config.scan.window_s) - 1
            known_s = source["duration_s"] if pd.notna(source["duration_s"]) else None
            facts = {"uri": source["uri"], "source_id": source["source_id"], "duration_s": known_s, "last_window": last}
            pending += [
                {**facts, "window": window} for window in range(last + 1) if (source["source_id"], window) not in done
            ]
        return pending


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the wide view as plain values that JSON knows: null is None, an array is a list."""
    rows: list[dict[str, Any]] = pa.Table.from_pandas(frame, preserve_index=False).to_pylist()
    return rows


def arrow_types(run: Run) -> dict[str, pa.DataType]:
    """The type of every column of the wide view."""
    types = {field.name: field.type for field in scan.SCHEMA} | {
        "uri": pa.string(),
        "duration_s": pa.float64(),
        "caption": pa.string(),
    }
    for step in run.steps:
        types |= {name: step.table.schema.field(name).type for name in step.columns}
    return types
