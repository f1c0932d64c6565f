"""What the workers of a run do: probe files, scan windows, apply stages. Each job does a unit of work and leaves whole parts behind.

Everything here is picklable and runs on any node: a job knows tables by their directory and stages by their dotted name.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curate import scan, sources, stage
from curate.clip import Clip
from curate.config import ScanConfig
from curate.sandbox import Sandbox, SandboxError
from curate.stage import StageSpec, one_sentence
from curate.table import Table

CLIP_COLUMNS = [
    "clip_id",
    "source_id",
    "start_s",
    "end_s",
    "fps",
    "n_frames",
    "width_px",
    "height_px",
    "thumbs",
    "thumb_times_s",
]
PROBE_WALL_S = 60.0
"""A header that takes longer to read is taken for hung. Ours."""


def receipt(rows: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """What the driver hears of a unit: how many rows were written and how many of them failed."""
    return {"rows": len(rows), "errors": sum(row["error"] is not None for row in rows), **more}


@dataclass
class ProbeJob:
    """Units `{"files": [[uri, manifest], ...]}` become rows of `sources`."""

    table: Table
    digest: str
    memory_mb: int

    def setup(self) -> None:
        """Begins the sandbox."""
        self._sandbox = Sandbox(self.memory_mb)

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        """Reads the headers of some files."""
        rows = [self._probe(uri, manifest) for uri, manifest in unit["files"]]
        self.table.write(rows)
        return receipt(rows)

    def _probe(self, uri: str, manifest: str | None) -> dict[str, Any]:
        row: dict[str, Any] = {**dict.fromkeys(sources.SCHEMA.names), "uri": uri, "manifest": manifest}
        try:
            row |= sources.identify(uri, self.digest)
            row |= self._sandbox.call(sources.probe_file, uri, wall_s=PROBE_WALL_S)
        except SandboxError as error:
            row["error"] = f"probe: {error}"
        except FileNotFoundError:
            row["error"] = "probe: there is no such file"
        except (OSError, ValueError) as error:
            row["error"] = f"probe: {one_sentence(error)}"
        return row


@dataclass
class ScanJob:
    """Units `{"windows": [{source columns, window, last_window}, ...]}` become rows of `clips`."""

    table: Table
    config: ScanConfig
    cuts: StageSpec

    def setup(self) -> None:
        """Begins the sandbox."""
        self._sandbox = Sandbox(self.config.memory_mb)

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
            return self._sandbox.call(scan.scan_window, *arguments, wall_s=wall_s)
        except SandboxError as error:
            return [scan.failed_row(window, window["window"], self.config, f"scan: {error}")]


@dataclass
class StageTask:
    """One stage of a pass and the table it fills."""

    spec: StageSpec
    kind: str
    table: Table


@dataclass
class StageJob:
    """Units `{"part": name, "ids": [...], "columns": {id: {...}}}` become rows of one or more stage tables: one JPEG decode for all of them."""

    clips: Table
    tasks: list[StageTask]
    _ready: list[tuple[Any, dict[str, str], StageTask]] = field(default_factory=list, repr=False)

    def setup(self) -> None:
        """Builds the stages and loads their weights."""
        for task in self.tasks:
            built = stage.ready(task.spec)
            self._ready.append((built, stage.column_names(built, task.spec, task.kind), task))

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        """Applies every stage to the clips of one part."""
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
            task.spec.name: receipt(made, busy_s=s)
            for (_, _, task), made, s in zip(self._ready, rows, seconds, strict=True)
        }
        return {"rows": len(unit["ids"]), "errors": sum(r["errors"] for r in per_stage.values()), "stages": per_stage}

    def _batches(self, unit: Mapping[str, Any]) -> Iterator[list[Clip]]:
        wanted = set(unit["ids"])
        size = self.tasks[0].spec.batch_size
        waiting: list[Clip] = []
        with self.clips.open_part(unit["part"]) as file:
            for batch in file.iter_batches(batch_size=16, columns=CLIP_COLUMNS):
                for row in batch.to_pylist():
                    if row["clip_id"] in wanted:
                        wanted.discard(row["clip_id"])
                        waiting.append(_clip(row, unit["columns"].get(row["clip_id"], {})))
                        if len(waiting) == size:
                            yield waiting
                            waiting = []
        if waiting:
            yield waiting


def _clip(row: dict[str, Any], columns: Mapping[str, Any]) -> Clip:
    jpegs, times_s = row.pop("thumbs"), row.pop("thumb_times_s")
    return Clip(**row, jpegs=tuple(jpegs or ()), jpeg_times_s=tuple(times_s or ()), columns=columns)
