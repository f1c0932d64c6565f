"""The jobs that apply stages to clips: filters, captioners, embeddings.

Both are picklable and run on any node: a job names its tables by directory and its stages by dotted name.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.clip import Clip
from curate.cluster.work import Receipt, StageReceipt, errors_in
from curate.stages import stage
from curate.stages.stage import StageSpec
from curate.tables import table
from curate.tables.table import Table

CLIP_FIELDS = ["clip_id", "source_id", "start_s", "end_s", "fps", "n_frames", "width_px", "height_px"]
THUMBNAILS = ["thumbs", "thumb_times_s"]


@dataclass
class StageTask:
    """One stage of a pass and the table it fills."""

    spec: StageSpec
    kind: str
    table: Table


Columns = dict[str, dict[str, Any]]
"""Values that a stage reads from other tables, by clip id and name."""


@dataclass
class Reading:
    """Columns of one table that a stage reads: the stage's name for each to the table's."""

    table: Table
    names: dict[str, str]

    def read(self, parts: Sequence[str] | None, wanted: set[str], into: Columns) -> None:
        """Reads the rows of `wanted` clips from these parts (None: all)."""
        for part in self.table.parts() if parts is None else parts:
            with self.table.open_part(part) as file:
                columns = list(dict.fromkeys(["clip_id", *self.names.values()]))
                rows = file.read_row_groups(groups_with(file, wanted), columns=columns)
            values = {name: _values(rows.column(column)) for name, column in self.names.items()}
            for i, clip_id in enumerate(rows.column("clip_id").to_pylist()):
                if clip_id in wanted:
                    into.setdefault(clip_id, {}).update({name: column[i] for name, column in values.items()})

    def by_source(self) -> Columns:
        """The values of every readable source by `source_id`; where two paths hold the same bytes, those of the first path."""
        rows = self.table.read(["source_id", "error", *self.names.values()]).to_pylist()
        rows.sort(key=lambda row: str(row["uri"]), reverse=True)
        return {
            row["source_id"]: {name: row[column] for name, column in self.names.items()}
            for row in rows
            if row["error"] is None
        }


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Plain values. A list of numbers becomes an array, a tenth of the memory."""
    kind = column.type
    listed = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    if listed and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        return [value.values.to_numpy(zero_copy_only=False) if value.is_valid else None for value in column]
    return list(column.to_pylist())


def groups_with(file: pq.ParquetFile, wanted: Iterable[str]) -> list[int]:
    """The row groups of a part that hold any of these clips. Parts made by `rushes compact` have many."""
    if file.num_row_groups < 2:
        return list(range(file.num_row_groups))
    return list(table.groups_with(file, wanted))


@dataclass(frozen=True)
class StageUnit:
    """Clips to work on: the ids in each part of the clips table, and for each other table the parts that hold these clips."""

    parts: Mapping[str, Sequence[str]]
    reads: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class StageJob:
    """Fills one or more stage tables in one pass over the thumbnails: each JPEG is read and decoded once for all stages."""

    clips: Table
    tasks: list[StageTask]
    reads: dict[str, Reading]
    sources: Reading | None = None
    """Columns of the sources table that the stages read, if any."""
    _ready: list[tuple[Any, dict[str, str], StageTask]] = field(default_factory=list, repr=False)

    def setup(self) -> None:
        """Builds the stages and loads their weights."""
        self._ready = [_ready(task) for task in self.tasks]
        self._facts = self.sources.by_source() if self.sources else {}

    def work(self, unit: StageUnit) -> Receipt:
        """Applies every stage to the unit's clips, batch by batch."""
        rows: list[list[dict[str, Any]]] = [[] for _ in self._ready]
        seconds = [0.0 for _ in self._ready]
        for batch in self._batches(unit):
            for i, (built, names, _) in enumerate(self._ready):
                began = time.perf_counter()
                rows[i] += stage.apply(built, batch, names)
                seconds[i] += time.perf_counter() - began
        for (_, _, task), made in zip(self._ready, rows, strict=True):
            task.table.write(made)
        stages = {
            task.spec.name: StageReceipt(len(made), errors_in(made), s, **_tokens(made, task))
            for (_, _, task), made, s in zip(self._ready, rows, seconds, strict=True)
        }
        clips = sum(len(ids) for ids in unit.parts.values())
        return Receipt(clips, sum(one.errors for one in stages.values()), stages=stages)

    def _batches(self, unit: StageUnit) -> Iterator[list[Clip]]:
        wanted = {clip_id for ids in unit.parts.values() for clip_id in ids}
        columns: Columns = {}
        for name, reading in self.reads.items():
            reading.read(unit.reads.get(name, []), wanted, columns)
        waiting: list[Clip] = []
        for row in self._rows(unit.parts):
            if row["clip_id"] in wanted:
                wanted.discard(row["clip_id"])
                waiting.append(_clip(row, self._facts.get(row["source_id"], {}) | columns.get(row["clip_id"], {})))
                if len(waiting) == self.tasks[0].spec.batch_size:
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    def _rows(self, parts: Mapping[str, Iterable[str]]) -> Iterator[dict[str, Any]]:
        for part, ids in parts.items():
            with self.clips.open_part(part) as file:
                groups = groups_with(file, ids) if file.num_row_groups > 1 else None
                for batch in file.iter_batches(batch_size=16, row_groups=groups, columns=[*CLIP_FIELDS, *THUMBNAILS]):
                    yield from batch.to_pylist()


@dataclass(frozen=True)
class WholeUnit:
    """All clips of a run; a step has exactly one."""


@dataclass
class WholeJob:
    """Fills the table of a stage that reads the columns of all clips at once, without thumbnails."""

    clips: Table
    task: StageTask
    reads: dict[str, Reading]
    ids: list[str]

    def setup(self) -> None:
        """Builds the stage and loads its weights."""
        self._built, self._names, _ = _ready(self.task)

    def work(self, unit: WholeUnit) -> Receipt:
        """Applies the stage to all clips, in the order of their ids."""
        wanted = set(self.ids)
        columns: Columns = {}
        sources = self.reads["sources"].by_source() if "sources" in self.reads else {}
        for name, reading in self.reads.items():
            if name != "sources":
                reading.read(None, wanted, columns)
        rows = [row for row in self.clips.read(CLIP_FIELDS).to_pylist() if row["clip_id"] in wanted]
        clips = [_clip(row, sources.get(row["source_id"], {}) | columns.get(row["clip_id"], {})) for row in rows]
        made = stage.apply_whole(self._built, clips, self._names)
        self.task.table.write(made)
        return Receipt(len(made), errors_in(made))


def _tokens(rows: Sequence[Mapping[str, Any]], task: StageTask) -> dict[str, int]:
    """The tokens that a captioner read and wrote."""
    kinds = ("prompt_tokens", "output_tokens")
    return {kind: sum(row.get(f"{kind}_{task.spec.name}") or 0 for row in rows) for kind in kinds}


def _ready(task: StageTask) -> tuple[Any, dict[str, str], StageTask]:
    built = stage.ready(task.spec)
    return built, stage.column_names(built, task.spec, task.kind), task


def _clip(row: dict[str, Any], columns: Mapping[str, Any]) -> Clip:
    jpegs, times_s = row.pop("thumbs", None), row.pop("thumb_times_s", None)
    return Clip(**row, jpegs=tuple(jpegs or ()), jpeg_times_s=tuple(times_s or ()), columns=columns)
