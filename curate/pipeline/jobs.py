"""What the workers of a run do: probe files, scan windows, apply stages. Each job does a unit of work and leaves whole parts behind.

Everything here is picklable and runs on any node: a job knows tables by their directory and stages by their dotted name.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.clip import Clip
from curate.config.config import ScanConfig
from curate.sandbox.job import Sandboxed
from curate.sandbox.sandbox import SandboxError
from curate.scan import scan, sources
from curate.stages import stage
from curate.stages.stage import StageSpec, one_sentence
from curate.tables import store, table
from curate.tables.table import Table
from curate.video.limits import Limits

CLIP_FIELDS = ["clip_id", "source_id", "start_s", "end_s", "fps", "n_frames", "width_px", "height_px"]
THUMBNAILS = ["thumbs", "thumb_times_s"]
PROBE_WALL_S = 60.0
"""A header that takes longer to read is taken for hung. Ours."""


def receipt(rows: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """What the driver hears of a unit: how many rows were written and how many of them failed."""
    return {"rows": len(rows), "errors": sum(row["error"] is not None for row in rows), **more}


@dataclass
class ProbeJob(Sandboxed):
    """Units `{"files": [[uri, manifest], ...]}` become rows of `sources`."""

    table: Table
    digest: str
    limits: Limits = field(default_factory=Limits)

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        """Reads the headers of some files."""
        rows = [self._probe(uri, manifest) for uri, manifest in unit["files"]]
        self.table.write(rows)
        return receipt(rows)

    def _probe(self, uri: str, manifest: str | None) -> dict[str, Any]:
        row: dict[str, Any] = {**dict.fromkeys(sources.SCHEMA.names), "uri": uri, "manifest": manifest}
        try:
            row |= sources.identify(uri, self.digest)
            row |= self._sandbox.call(
                sources.probe_file, uri, self.limits, wall_s=PROBE_WALL_S, online=not store.is_local(uri)
            )
        except SandboxError as error:
            row["error"] = f"probe: {error}"
        except FileNotFoundError:
            row["error"] = "probe: there is no such file"
        except (OSError, ValueError) as error:
            row["error"] = f"probe: {one_sentence(error)}"
        return row


@dataclass
class ScanJob(Sandboxed):
    """Units `{"windows": [{source columns, window, last_window}, ...]}` become rows of `clips`."""

    table: Table
    config: ScanConfig
    cuts: StageSpec
    digest: str
    _seen: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    """Of each file that was looked at: the state it was in (size, time, version) and its content's id."""

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        """Decodes some windows."""
        rows = [row for window in unit["windows"] for row in self._scan(window)]
        self.table.write(rows)
        return receipt(rows, done=len(unit["windows"]))

    def _scan(self, window: Mapping[str, Any]) -> list[dict[str, Any]]:
        length_s = min(window["duration_s"] or self.config.window_s, 1.5 * self.config.window_s)
        wall_s = self.config.timeout_floor_s + self.config.timeout_factor * length_s
        arguments = (
            window["uri"],
            window["source_id"],
            window["window"],
            window["last_window"],
            self.config,
            self.cuts,
        )
        try:
            self._check(window["uri"], window["source_id"])
            online = not store.is_local(window["uri"])
            return self._sandbox.call(scan.scan_window, *arguments, wall_s=wall_s, online=online)
        except FileNotFoundError:
            told = "there is no such file any more"
        except SandboxError as error:
            told = str(error)
        except (OSError, ValueError) as error:
            told = one_sentence(error)
        return [scan.failed_row(window, window["window"], self.config, f"scan: {told}")]

    def _check(self, uri: str, source_id: str) -> None:
        """Another file under the same name must not give its clips to this one. Raises ValueError, or OSError when it cannot be read."""
        state = store.state(uri)
        if uri not in self._seen or self._seen[uri][0] != state:
            self._seen[uri] = (state, sources.identify(uri, self.digest)["source_id"])
        if (now := self._seen[uri][1]) != source_id:
            raise ValueError(f"{uri} has changed since its header was read (its content was {source_id}, now {now})")


@dataclass
class StageTask:
    """One stage of a pass and the table it fills."""

    spec: StageSpec
    kind: str
    table: Table


Columns = dict[str, dict[str, Any]]
"""Values of other tables that a stage reads, by clip id and name."""


@dataclass
class Reading:
    """Columns of one table that a stage reads: the names by which it knows them to the names in the table."""

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
        """The values of every readable source, by its id; of the same bytes under two paths, those of the first."""
        rows = self.table.read(["source_id", "error", *self.names.values()]).to_pylist()
        rows.sort(key=lambda row: str(row["uri"]), reverse=True)
        return {
            row["source_id"]: {name: row[column] for name, column in self.names.items()}
            for row in rows
            if row["error"] is None
        }


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Plain values; a list of numbers is an array, which holds a vector of a thousand in a tenth of the memory."""
    kind = column.type
    listed = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    if listed and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        return [value.values.to_numpy(zero_copy_only=False) if value.is_valid else None for value in column]
    return list(column.to_pylist())


def groups_with(file: pq.ParquetFile, wanted: Iterable[str]) -> list[int]:
    """The row groups of a part that hold any of these clips: `rushes compact` makes parts of which a unit wants a few."""
    if file.num_row_groups < 2:
        return list(range(file.num_row_groups))
    return list(table.groups_with(file, wanted))


@dataclass
class StageJob:
    """Units `{"parts": {part: [id, ...]}, "reads": {table: [part, ...]}}` become rows of one or more stage tables: one JPEG decode for all."""

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

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        """Applies every stage to the clips of some parts."""
        rows: list[list[dict[str, Any]]] = [[] for _ in self._ready]
        seconds = [0.0 for _ in self._ready]
        for batch in self._batches(unit):
            for i, (built, names, _) in enumerate(self._ready):
                began = time.perf_counter()
                rows[i] += stage.apply(built, batch, names)
                seconds[i] += time.perf_counter() - began
        for (_, _, task), made in zip(self._ready, rows, strict=True):
            task.table.write(made)
        per_stage = {
            task.spec.name: receipt(made, busy_s=s, **_tokens(made, task))
            for (_, _, task), made, s in zip(self._ready, rows, seconds, strict=True)
        }
        clips = sum(len(ids) for ids in unit["parts"].values())
        return {"rows": clips, "errors": sum(r["errors"] for r in per_stage.values()), "stages": per_stage}

    def _batches(self, unit: Mapping[str, Any]) -> Iterator[list[Clip]]:
        wanted = {clip_id for ids in unit["parts"].values() for clip_id in ids}
        columns: Columns = {}
        for name, reading in self.reads.items():
            reading.read(unit["reads"].get(name, []), wanted, columns)
        waiting: list[Clip] = []
        for row in self._rows(unit["parts"]):
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


@dataclass
class WholeJob:
    """The unit `{}` becomes all rows of the table of a stage that looks at every clip at once: columns only, no thumbnails."""

    clips: Table
    task: StageTask
    reads: dict[str, Reading]
    ids: list[str]

    def setup(self) -> None:
        """Builds the stage and loads its weights."""
        self._built, self._names, _ = _ready(self.task)

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
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
        return receipt(made)


def _tokens(rows: Sequence[Mapping[str, Any]], task: StageTask) -> dict[str, int]:
    """How many tokens a captioner read and wrote."""
    kinds = ("prompt_tokens", "output_tokens")
    return {kind: sum(row.get(f"{kind}_{task.spec.name}") or 0 for row in rows) for kind in kinds}


def _ready(task: StageTask) -> tuple[Any, dict[str, str], StageTask]:
    built = stage.ready(task.spec)
    return built, stage.column_names(built, task.spec, task.kind), task


def _clip(row: dict[str, Any], columns: Mapping[str, Any]) -> Clip:
    jpegs, times_s = row.pop("thumbs", None), row.pop("thumb_times_s", None)
    return Clip(**row, jpegs=tuple(jpegs or ()), jpeg_times_s=tuple(times_s or ()), columns=columns)
