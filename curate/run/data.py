"""An opened run directory: its tables, the wide view over them, the selection and the ledger. Read-only.

runs/demo/
    pipeline.json           the resolved pipeline file
    sources/ clips/ measures/<name>/ captions/<name>/ embeddings/<name>/        tables (curate/tables/table.py)
    shards/ index.lance/ report/                                                written from the tables
"""

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from curate.config import pipeline_file
from curate.config.config import Pipeline
from curate.config.lines import Document
from curate.errors import ConfigError, UsageError, printable
from curate.run import steps
from curate.run.ledger import Ledger, balance
from curate.run.select import Selection, select
from curate.run.steps import CLIP_FACTS, Step
from curate.scan import scan, sources
from curate.tables import store
from curate.tables.table import Table
from curate.tables.where import parse as parse_where

PIPELINE = "pipeline.json"
SCORED = ("measure", "caption", "review")
"""Kinds of steps whose columns are in the wide view."""
SPAN_COLUMNS = [name for name in scan.SCHEMA.names if name not in ("thumbs", "thumb_times_s")]
ROW_GROUP_ROWS = 16
"""Rows of a row group in tables and shards with images or video; small groups keep random reads small."""


class RunData:
    """An opened run directory, read only. `RunData.open(path)` opens an existing one; `RunData(root, pipeline)` is for a new one."""

    def __init__(self, root: str, pipeline: Pipeline) -> None:
        self.root = store.normalise(root)
        self.unread: str | None = None
        """The directory of the pipeline file when it is not on Python's path: stages stored there are not imported. Else None."""
        self.pipeline = pipeline
        self.listed: int | None = None
        """The number of source files that `rushes run` found at its start, or None when it is not recorded."""
        self.sources_table = Table(self.path("sources"), sources.SCHEMA, key=("uri",))
        self.clips_table = Table(self.path("clips"), scan.SCHEMA, row_group_rows=ROW_GROUP_ROWS)

    @classmethod
    def open(cls, root: str | Path, overrides: tuple[str, ...] = (), *, code: str | Path | None = None) -> Self:
        """Opens a run directory.

        Args:
            root: The directory.
            overrides: `key.path=value` each, as `--set`.
            code: The directory from which the user's own stages are imported. Default: the directory of the pipeline file if it is the current
                directory, else none, because a run directory may be untrusted and must not choose the code that runs.

        Raises UsageError when it is not a run directory.
        """
        where = store.join(store.normalise(str(root)), PIPELINE)
        saved = store.get_json(where)
        if saved is None:
            raise UsageError(f"'{root}' is not a run directory (it has no {PIPELINE}); `rushes run` makes one")
        kinds = {"pipeline": dict, "directory": str, "home": str}
        if not isinstance(saved, dict) or not all(isinstance(saved.get(key), kind) for key, kind in kinds.items()):
            raise UsageError(f"'{root}' is not a run directory: its {PIPELINE} was not written by `rushes run`")
        place = saved["directory"] if code is None and saved["directory"] == str(Path.cwd()) else code
        if place is not None and str(Path(place).absolute()) not in sys.path:
            sys.path.append(str(Path(place).absolute()))
        data = dict(saved["pipeline"])
        for override in overrides:
            pipeline_file.override(data, override)
        run = cls(
            str(root),
            pipeline_file.validate(data, Document(PIPELINE, data, {}), Path(saved["directory"]), Path(saved["home"])),
        )
        run.listed = saved.get("listed")
        run.unread = None if saved["directory"] in sys.path or place is not None else saved["directory"]
        return run

    def path(self, *names: str) -> str:
        """A path inside the run directory."""
        return store.join(self.root, *names)

    @property
    def report_path(self) -> str:
        """The path of the report's HTML page."""
        return self.path("report", "index.html")

    # -- steps and claims

    @cached_property
    def steps(self) -> list[Step]:
        """All stages in the order in which they run, built and validated. Raises ConfigError for an invalid stage, option or column."""
        try:
            return steps.steps(self.pipeline, self.root)
        except ConfigError as error:
            if self.unread is None or not isinstance(error.__cause__, ModuleNotFoundError):
                raise
            raise ConfigError(
                f"{error}; stages beside the pipeline file are imported only from there:  cd {shlex.quote(printable(self.unread))}  "
                f"(in a notebook: Run.open(..., code=DIRECTORY))"
            ) from error

    @cached_property
    def claims(self) -> dict[str, dict[str, Any]]:
        """The claim that each table must have for this configuration."""
        return steps.claims(self.pipeline, self.steps)

    def tables(self) -> dict[str, Table]:
        """All tables by name, in the order in which they are filled."""
        tables = {"sources": self.sources_table, "clips": self.clips_table}
        return tables | {step.spec.name: step.table for step in self.steps}

    def phases(self) -> list[list[str]]:
        """All tables and the shards in the order in which they are filled; the rows of a phase depend on the phases before it."""
        of_kind = {
            kind: [s.spec.name for s in self.steps if s.kind == kind]
            for kind in ("measure", "caption", "review", "embed")
        }
        embeds = of_kind.pop("embed")
        return [["sources"], ["clips"], *of_kind.values(), ["shards"], embeds]

    def walk(self) -> list[str]:
        """The names of all phases in one list."""
        return [name for phase in self.phases() for name in phase]

    def made_from(self) -> dict[str, tuple[str, ...]]:
        """Each table with the tables that it is computed from."""
        return {"sources": (), "clips": ("sources",), **{step.spec.name: step.made_from for step in self.steps}}

    # -- views

    def sources(self) -> pd.DataFrame:
        """One row per file, with `duplicate_of`."""
        return sources.with_duplicates(self.sources_table.read())

    def sources_scanned(self) -> pd.DataFrame:
        """One row per file with the result of its decode: `decoded_s` (null when nothing was decoded) and `error`, the first failure."""
        frame, spans = self.sources(), self.spans()
        good = spans[spans["error"].isna()].groupby("source_id")["end_s"].max()
        failed = spans[spans["error"].notna()].sort_values("start_s").groupby("source_id")["error"].first()
        frame.insert(list(frame).index("duration_s") + 1, "decoded_s", frame["source_id"].map(good))
        frame["error"] = frame["error"].fillna(frame["source_id"].map(failed))
        return frame

    def spans(self) -> pd.DataFrame:
        """All rows of the clips table without thumbnails: clips, skipped spans (`skip`) and failed spans (`error`)."""
        frame: pd.DataFrame = self.clips_table.read(SPAN_COLUMNS).to_pandas()
        return frame

    def clip_ids(self) -> list[str]:
        """Ids of all clips, in order."""
        spans = self.clips_table.read(["skip", "error"])
        good = pc.and_(pc.is_null(spans.column("skip")), pc.is_null(spans.column("error")))
        return cast(list[str], spans.filter(good).column("clip_id").to_pylist())

    def thumbnails(self, clip_ids: Set[str]) -> Iterator[tuple[str, list[bytes]]]:
        """Thumbnails (JPEG) of these clips, in the order of the table; clips without thumbnails are left out."""
        for part, keys in self.clips_table.parts_with_keys():
            if clip_ids.isdisjoint(clip_id for (clip_id,) in keys):
                continue
            with self.clips_table.open_part(part) as file:
                for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS, columns=["clip_id", "thumbs"]):
                    if clip_ids.isdisjoint(batch.column("clip_id").to_pylist()):
                        continue
                    for row in batch.to_pylist():
                        if row["clip_id"] in clip_ids and row["thumbs"]:
                            yield row["clip_id"], row["thumbs"]

    def arrow(
        self,
        columns: Iterable[str] | None = None,
        kinds: tuple[str, ...] = SCORED,
        where: str | None = None,
        facts: Sequence[str] = CLIP_FACTS,
    ) -> pa.Table:
        """The wide view as an Arrow table: one row per clip, in order of clip_id. Only the named columns are read from disk.

        Args:
            columns: Columns of measures and captions; default: all. `caption` is the caption of the first captioner. The position of the clip
                (CLIP_FACTS) and `error`, its first error, are always included.
            kinds: Kinds of stages whose columns are read.
            where: A condition on the clips, as in `motion > 1 and camera = 'pan_left'` (curate/tables/where.py).
            facts: The columns of CLIP_FACTS that are returned.

        Raises UsageError for a malformed condition.
        """
        wanted = None if columns is None else set(columns)
        types = arrow_types(self)
        chosen = parse_where(where, types) if where else None
        if wanted is not None and chosen is not None:
            wanted |= chosen.columns
        if chosen is not None:
            facts = CLIP_FACTS
        read = dict.fromkeys(["source_id", "start_s", "end_s", *facts])
        spans = self.clips_table.read([name for name in read if name in scan.SCHEMA.names] + ["skip", "error"])
        spans = spans.filter(pc.and_(pc.is_null(spans.column("skip")), pc.is_null(spans.column("error"))))
        files = self.sources_table.read(["source_id", "error"])
        files = files.filter(pc.is_null(files.column("error")))
        at = pc.index_in(spans.column("source_id"), files.column("source_id"))
        made = {name: spans.column(name) for name in spans.column_names if name not in ("skip", "error")}
        made |= {
            "uri": files.column("uri").take(at),
            "duration_s": pc.subtract(spans.column("end_s"), spans.column("start_s")),
        }
        made = {name: made[name] for name in CLIP_FACTS if name in facts}
        errors = pa.nulls(len(spans), pa.string())
        requested = [(step, self._chosen_columns(step, wanted)) for step in self.steps if step.kind in kinds]
        with ThreadPoolExecutor() as pool:
            aligned = list(
                pool.map(lambda each: _aligned(each[0].table, [*each[1], "error"], made["clip_id"]), requested)
            )
        for (step, names), rows in zip(requested, aligned, strict=True):
            made |= {name: rows[name] for name in names}
            if rows["error"].null_count < len(spans):
                errors = pc.coalesce(errors, pc.binary_join_element_wise(f"{step.spec.name}: ", rows["error"], ""))
            caption = step.names.get("caption") if step.kind == "caption" else None
            if caption in names and "caption" not in made:
                made["caption"] = made[caption]
        table = pa.table({**made, "error": errors})
        return table.filter(chosen.expression) if chosen else table

    def _chosen_columns(self, step: Step, wanted: Set[str] | None) -> list[str]:
        """The requested columns of a step; `caption` is the caption of the first captioner."""
        asked = None if wanted is None else {step.names.get(name, name) for name in wanted}
        return [name for name in step.columns if asked is None or name in asked]

    def wide(
        self,
        kinds: tuple[str, ...] = SCORED,
        columns: Iterable[str] | None = None,
        where: str | None = None,
    ) -> pd.DataFrame:
        """The wide view as a DataFrame, see `arrow`: the position of each clip, all existing measures and captions, its first error."""
        frame: pd.DataFrame = self.arrow(columns, kinds, where).to_pandas(split_blocks=True, self_destruct=True)
        return frame

    def selection(self, kinds: tuple[str, ...] = SCORED) -> Selection:
        """The clips that `keep:` keeps. With `kinds=("measure",)` rules on captions are not applied: these clips are captioned."""
        keep = self.pipeline.config.keep
        wide = self.scored(keep, kinds)
        return select(wide, {name: rule for name, rule in keep.items() if name in wide.columns or kinds == SCORED})

    def scored(self, columns: Iterable[str], kinds: tuple[str, ...] = SCORED) -> pd.DataFrame:
        """The input of `curate.run.select.select`: these columns and the id, times and error of every clip. Takes a tenth of the memory of
        `wide`, because texts stay in Arrow."""
        wanted = list(columns)
        facts = [name for name in CLIP_FACTS if name in ("clip_id", "start_s", "end_s", *wanted)]
        texts = {pa.string(): pd.ArrowDtype(pa.string())}
        frame: pd.DataFrame = self.arrow(wanted, kinds, facts=facts).to_pandas(
            types_mapper=texts.get, split_blocks=True, self_destruct=True
        )
        return frame

    def ledger(self, selection: Selection | None = None) -> Ledger:
        """The ledger of all input seconds, for this selection or the pipeline's. Raises RunError for spans with gaps or overlaps."""
        selection = selection or self.selection()
        chosen = set(selection.clip_ids)
        unwritten = [item for item in (self.index() or {}).get("left_out", []) if item["clip_id"] in chosen]
        spans = self.clips_table.read_once(["source_id", "start_s", "end_s", "skip", "error"]).drop_columns("clip_id")
        frame = spans.to_pandas(strings_to_categorical=True)  # four bytes per repeated id
        return balance(self.sources(), frame, selection, sum(item["seconds"] for item in unwritten))

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


def _aligned(table: Table, columns: Sequence[str], clip_ids: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    """Columns of a table in the order of these clips; null for a clip without a row."""
    rows = table.read_unordered(columns)
    if rows.column("clip_id").equals(clip_ids):
        return {name: rows.column(name) for name in columns}
    at = pc.index_in(clip_ids, rows.column("clip_id"))
    return {name: rows.column(name).take(at) for name in columns}


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the wide view as JSON values: null is None, an array is a list."""
    rows: list[dict[str, Any]] = pa.Table.from_pandas(frame, preserve_index=False).to_pylist()
    return rows


def arrow_types(run: RunData) -> dict[str, pa.DataType]:
    """The type of every column of the wide view."""
    types = {field.name: field.type for field in scan.SCHEMA} | {
        "uri": pa.string(),
        "duration_s": pa.float64(),
        "caption": pa.string(),
    }
    for step in run.steps:
        types |= {name: step.table.schema.field(name).type for name in step.columns}
    return types
