"""What is pending: for each step of a run, the units of work that its tables lack. Reads tables, writes nothing.

Presence means done, so a plan is a set difference, computed again whenever a run resumes.
"""

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from curate.cluster.pool import Resources
from curate.pipeline.source_jobs import ProbeJob, ProbeUnit, ScanJob, ScanUnit
from curate.pipeline.stage_jobs import Reading, StageJob, StageTask, StageUnit, WholeJob, WholeUnit
from curate.run.data import SCORED, RunData
from curate.run.steps import Step
from curate.run.windows import all_windows, pending_windows
from curate.stages import stage
from curate.tables.table import Table

FILES_PER_PROBE = 16
SECONDS_PER_UNIT = 60.0
"""Short sources are scanned together until a unit holds this many seconds: what one worker loses at most when it is killed. Ours."""
CLIPS_PER_UNIT = 64
"""Maximum number of clips of one unit from a part made by `rushes compact`. Ours: about what SECONDS_PER_UNIT holds."""


@dataclass(frozen=True)
class Pass:
    """Work that fills one table, or several that share a pass over the thumbnails.

    Attributes:
        tables: Names of the tables.
        job: What a worker does (curate/cluster/work.py).
        units: What is pending.
        resources: What one worker takes, and how many there may be.
        total: Rows of each table when it is full; windows, in the scan.
        done: Those that exist.
        restart: Tables to drop and begin again first: those of a stage that reads all clips at once, and what depends on them.
    """

    tables: tuple[str, ...]
    job: Any
    units: Sequence[Any]
    resources: Resources
    total: int
    done: int
    restart: tuple[str, ...] = ()


def probe(run: RunData, listed: Mapping[str, str | None]) -> Pass:
    """The files that are not in the sources table. `listed`: path or URL to the manifest's columns, as `sources.discover` returns it."""
    known = {uri for (uri,) in run.sources_table.read_keys()}
    files = [(uri, manifest) for uri, manifest in listed.items() if uri not in known]
    units = [ProbeUnit(tuple(files[i : i + FILES_PER_PROBE])) for i in range(0, len(files), FILES_PER_PROBE)]
    scan = run.pipeline.config.scan
    job = ProbeJob(scan.memory_mb, run.sources_table, run.pipeline.config.digest, scan.file_limits)
    return Pass(("sources",), job, units, Resources(scan.workers), len(listed), len(known))


def scan(run: RunData, sample: Container[tuple[str, int]] | None = None) -> Pass:
    """The windows that have no rows yet. Short sources share a unit, so that many sources do not make a part each.

    Args:
        run: The run.
        sample: `(source_id, window)` of the windows to scan; None: all.
    """
    config = run.pipeline.config.scan

    def chosen(window: Mapping[str, Any]) -> bool:
        return sample is None or (window["source_id"], window["window"]) in sample

    pending = list(filter(chosen, pending_windows(run)))
    total = sum(map(chosen, all_windows(run)))
    groups: list[list[Mapping[str, Any]]] = []
    length_s = SECONDS_PER_UNIT
    for window in pending:
        seconds = min(window["duration_s"] or config.window_s, config.window_s)
        if length_s + seconds > SECONDS_PER_UNIT:
            groups.append([])
            length_s = 0.0
        groups[-1].append(window)
        length_s += seconds
    job = ScanJob(config.memory_mb, run.clips_table, config, run.pipeline.cuts, run.pipeline.config.digest)
    units = [ScanUnit(tuple(group)) for group in groups]
    return Pass(("clips",), job, units, Resources(config.workers), total, total - len(pending))


def selected(run: RunData, kinds: tuple[str, ...] = SCORED) -> pa.Array:
    """Ids of the clips that the rules keep, as an array: a quarter of the memory of a list."""
    return pa.array(run.selection(kinds).clip_ids, pa.string())


@dataclass(frozen=True)
class Level:
    """Steps of one kind that do not read each other. `counts` holds (table, total, done) of each, `passes` what is pending."""

    counts: Sequence[tuple[str, int, int]]
    passes: Sequence[Pass]


def level(run: RunData, kind: str, number: int, clips: pa.Array) -> Level:
    """The steps of a kind on one level. Steps with equal resources and the same pending clips share one pass."""
    here = [(step, step.table.lacking(clips)) for step in run.steps if step.kind == kind and step.level == number]
    counts = [(step.spec.name, len(clips), len(clips) - len(ids)) for step, ids in here]
    passes = [_whole(run, step, clips.to_pylist()) for step, ids in here if len(ids) and step.whole]
    shared = [(step, ids) for step, ids in here if len(ids) and not step.whole]

    def key(item: tuple[Step, pa.Array]) -> tuple[str, int, str]:
        return str(item[0].spec.resources), len(item[1]), _digest(item[1])

    for _, group in groupby(sorted(shared, key=key), key=key):
        steps = list(group)
        passes.append(stages(run, [step for step, _ in steps], steps[0][1], len(clips)))
    return Level(counts, passes)


def levels(run: RunData, kind: str) -> int:
    """The number of levels of a kind; 0 when the pipeline has no step of it."""
    return max((step.level + 1 for step in run.steps if step.kind == kind), default=0)


def stages(run: RunData, steps: Sequence[Step], clip_ids: pa.Array, total: int) -> Pass:
    """One pass of these steps over these clips, of `total` clips in all."""
    spec, reads = steps[0].spec, _reads(run, steps)
    facts = reads.pop("sources", None)
    tables = {name: reading.table for name, reading in reads.items()}
    units = stage_units(run.clips_table, tables, clip_ids, spec.batch_size or stage.BATCH_SIZE)
    job = StageJob(run.clips_table, [StageTask(step.spec, step.kind, step.table) for step in steps], reads, facts)
    resources = Resources(spec.workers, spec.cpus, spec.gpus, spec.memory_gb)
    return Pass(tuple(step.spec.name for step in steps), job, units, resources, total, total - len(clip_ids))


def stage_units(clips: Table, reads: Mapping[str, Table], clip_ids: pa.Array, least: int) -> list[StageUnit]:
    """Units that cover these clips, at least `least` clips each where parts allow, with the parts of other tables that hold them."""
    grouped = list(_grouped(clips, clip_ids, least)) if len(clip_ids) else []
    found: list[dict[str, list[str]]] = [{} for _ in grouped]
    in_order = pa.array([i for some in grouped for ids in some.values() for i in ids] if reads else [], pa.string())
    for name, table in reads.items():
        names, part_of = table.parts_of(in_order)
        at = 0
        for some, parts in zip(grouped, found, strict=True):
            n = sum(map(len, some.values()))
            parts[name] = sorted({names[i] for i in part_of[at : at + n].tolist() if i >= 0})
            at += n
    return [StageUnit(some, parts) for some, parts in zip(grouped, found, strict=True)]


def _grouped(clips: Table, clip_ids: pa.Array, least: int) -> Iterator[dict[str, list[str]]]:
    """These clips by the parts of the clips table that hold them: parts joined until they make a whole batch, large parts divided."""
    some: dict[str, list[str]] = {}
    most = max(least, CLIPS_PER_UNIT)
    for part, keys in clips.parts_with_keys(clip_ids):
        ids = [clip_id for (clip_id,) in keys]
        for first in range(0, len(ids), most):
            some[part] = ids[first : first + most]
            if sum(map(len, some.values())) >= least:
                yield some
                some = {}
    if some:
        yield some


def _whole(run: RunData, step: Step, clip_ids: list[str]) -> Pass:
    """The pass of a stage that reads all clips at once: its table is made from the start, since any row may depend on all clips."""
    spec = step.spec
    restart = tuple(with_descendants(run, [spec.name])) if step.table.parts() else ()
    job = WholeJob(run.clips_table, StageTask(spec, step.kind, step.table), _reads(run, [step]), clip_ids)
    resources = Resources(1, spec.cpus, spec.gpus, spec.memory_gb)
    return Pass((spec.name,), job, [WholeUnit()], resources, len(clip_ids), 0, restart)


def with_descendants(run: RunData, names: Sequence[str]) -> list[str]:
    """These tables and every table made from them, sorted by name."""
    chosen = set(names)
    for name, parents in run.made_from().items():  # in the order in which tables are filled
        if chosen & set(parents):
            chosen.add(name)
    return sorted(chosen)


def _reads(run: RunData, steps: Sequence[Step]) -> dict[str, Reading]:
    """The columns of other tables that the steps read, by table."""
    tables = run.tables()
    found: dict[str, Reading] = {}
    for step in steps:
        for name, (table, column) in step.reads.items():
            found.setdefault(table, Reading(tables[table], {})).names[name] = column
    return found


def _digest(ids: pa.Array) -> str:
    """A digest of these ids in their order."""
    digest = hashlib.sha256()
    for first in range(0, len(ids), 2**16):
        digest.update("\n".join(ids.slice(first, 2**16).to_pylist()).encode())
    return digest.hexdigest()
