"""The walk of the data, top to bottom: sources, clips, measures, captions, shards, index, report. Every step tops up what is missing."""

import contextlib
import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa

from curate.cluster import runner
from curate.cluster.pool import Resources
from curate.errors import ClaimError, RunError, UsageError, nearest
from curate.pipeline.jobs import ProbeJob, Reading, ScanJob, StageJob, StageTask, WholeJob
from curate.progress.progress import Progress
from curate.report import write as report
from curate.run.data import PIPELINE, SCORED, RunData
from curate.run.steps import Step
from curate.run.windows import all_windows, pending_windows
from curate.scan import sources
from curate.search import index
from curate.shards import plan as shard_plan
from curate.shards import write as shards
from curate.stages import stage, weights
from curate.stages.stage import one_sentence
from curate.tables import compact as compaction
from curate.tables import lease, store
from curate.tables.compact import Compacted
from curate.tables.table import Table, difference

FILES_PER_PROBE = 16
SECONDS_PER_UNIT = 60.0
"""Short sources are scanned together until they hold this much footage: what a kill can cost one worker."""
CLIPS_PER_UNIT = 64
"""Clips of one unit, of a part that `rushes compact` has made of many. Ours: about what SECONDS_PER_UNIT comes to."""
JUDGED_ROWS = 20
"""A table with fewer rows is not judged by its share of errors."""


def execute(run: RunData, progress: Progress, recompute: Sequence[str] = (), retry_errors: bool = False) -> None:
    """Runs the pipeline, or goes on with it: does what is missing and nothing else.

    Args:
        run: the run, with the pipeline it is made by.
        progress: where it is told how far things are.
        recompute: tables to drop first, with everything made from them.
        retry_errors: whether rows that failed are tried again.

    Raises UsageError before anything is run (wrong configuration, missing weights, another configuration's directory) and RunError when
    the run itself cannot go on.
    """
    listed = sources.discover(run.pipeline.config.sources, run.pipeline.home)
    check_weights(run)
    check_stages(run)
    dropped = _with_descendants(run, recompute)
    with _alone(run, progress):
        store.sweep(run.root, deep=True)
        if dropped:
            shard_plan.forget(run, dropped)  # first, so that a kill in between leaves no shards that seem to fit
        for name in dropped:
            run.tables()[name].drop()
        _check_claims(run, listed)
        store.put_json(
            run.path(PIPELINE),
            {
                "pipeline": dict(run.pipeline.resolved),
                "directory": str(run.pipeline.directory),
                "home": str(run.pipeline.home),
                "listed": len(listed),
            },
        )
        if retry_errors:
            _forget_errors(run)
        for name, table in run.tables().items():
            table.begin(run.claims[name])

        with progress.over(run.walk(), run.root):
            probe(run, listed, progress)
            split(run, progress)
            measure(run, progress)
            caption(run, progress)
            review(run, progress)
            changed = shards.write(run, run.selection(), progress)
            embed(run, progress)
            run.ledger().check()
            if changed or not index.is_current(run):
                progress.doing("writing the search index")
                _index(run)
            if progress.did_something or changed or not store.exists(run.report_path):
                progress.doing("writing the report")
                report.write(run)
            progress.doing("")


def repair_shards(run: RunData, files: Sequence[str], progress: Progress) -> None:
    """Writes shards of the newest version again, by file name. Raises RunError when they cannot be written."""
    with _alone(run, progress), progress.over(["shards"], run.root):
        shard_plan.spoil(run.shards_root(), files)
        shards.write(run, run.selection(), progress)
        _index(run)


def compact(run: RunData, progress: Progress, heard: Callable[[Compacted], None]) -> list[Compacted]:
    """Merges the parts of every table (curate/tables/compact.py), while nobody else works on the run. Raises UsageError when somebody does."""
    with _alone(run, progress), progress.over([], None):
        return compaction.compact(run.tables(), heard)


def probe(run: RunData, listed: Mapping[str, str | None], progress: Progress) -> None:
    """Reads the header of every file that is not in the sources table."""
    known = {uri for (uri,) in run.sources_table.read_keys()}
    files = [[uri, manifest] for uri, manifest in listed.items() if uri not in known]
    units = [{"files": files[i : i + FILES_PER_PROBE]} for i in range(0, len(files), FILES_PER_PROBE)]
    limits = run.pipeline.config.scan
    job = ProbeJob(limits.memory_mb, run.sources_table, run.pipeline.config.digest, limits.of_a_file)
    _do(run, ["sources"], job, units, Resources(limits.workers), progress, len(listed), len(known))


def split(run: RunData, progress: Progress, sample: Container[tuple[str, int]] | None = None) -> None:
    """Scans the windows that have no rows yet. Short sources share a unit, so that many sources do not make a part each.

    Args:
        run: The run.
        progress: Where each finished unit is reported.
        sample: `(source_id, window)` of the windows to scan; None: all.
    """
    scan = run.pipeline.config.scan
    units: list[dict[str, Any]] = []
    length_s = SECONDS_PER_UNIT
    chosen = lambda window: sample is None or (window["source_id"], window["window"]) in sample  # noqa: E731
    pending = list(filter(chosen, pending_windows(run)))
    total = sum(map(chosen, all_windows(run)))
    for window in pending:
        seconds = min(window["duration_s"] or scan.window_s, scan.window_s)
        if length_s + seconds > SECONDS_PER_UNIT:
            units.append({"windows": []})
            length_s = 0.0
        units[-1]["windows"].append(window)
        length_s += seconds
    _do(
        run,
        ["clips"],
        ScanJob(scan.memory_mb, run.clips_table, scan, run.pipeline.cuts, run.pipeline.config.digest),
        units,
        Resources(scan.workers),
        progress,
        total,
        total - len(pending),
    )


def measure(run: RunData, progress: Progress) -> None:
    """Runs every filter on every clip."""
    clips = pa.array(run.clip_ids(), pa.string())
    _apply_all(run, "measure", lambda: clips, progress)


def caption(run: RunData, progress: Progress) -> None:
    """Captions what the measures keep, one captioner after the other (a later one may read an earlier one's words)."""
    for step in (s for s in run.steps if s.kind == "caption"):
        chosen = _selected(run, ("measure",))
        _apply(run, [step], step.table.lacking(chosen), progress, len(chosen))


def review(run: RunData, progress: Progress) -> None:
    """Runs the filters that read captions, on what was captioned."""
    _apply_all(run, "review", lambda: _selected(run, ("measure",)), progress)


def embed(run: RunData, progress: Progress) -> None:
    """Embeds the captions of the clips in the shards, for search."""
    for step in (s for s in run.steps if s.kind == "embed"):
        chosen = _selected(run)
        _apply(run, [step], step.table.lacking(chosen), progress, len(chosen))


def _selected(run: RunData, kinds: tuple[str, ...] = SCORED) -> pa.Array:
    """Ids of the clips that the rules keep, as an array: a quarter of what a list of them takes."""
    return pa.array(run.selection(kinds).clip_ids, pa.string())


def _apply_all(run: RunData, kind: str, chosen: Callable[[], pa.Array], progress: Progress) -> None:
    """Runs all steps of a kind, those that others read first. Steps with equal resources and the same clips to do share one pass over the
    thumbnails."""
    steps = [step for step in run.steps if step.kind == kind]
    if not steps:
        return
    clips = chosen()
    for level in range(max(step.level for step in steps) + 1):
        here = [(step, step.table.lacking(clips)) for step in steps if step.level == level]
        for step, ids in here:
            progress.seen(step.spec.name, len(clips), len(clips) - len(ids))
        for step, ids in here:
            if len(ids) and step.whole:
                _apply_whole(run, step, clips.to_pylist(), progress)
        todo = [(step, ids) for step, ids in here if len(ids) and not step.whole]
        key = lambda item: (str(item[0].spec.resources), len(item[1]), _digest(item[1]))  # noqa: E731
        for _, group in groupby(sorted(todo, key=key), key=key):
            shared = list(group)
            _apply(run, [step for step, _ in shared], shared[0][1], progress, len(clips))


def _digest(ids: pa.Array) -> str:
    """The same for the same ids in the same order."""
    digest = hashlib.sha256()
    for first in range(0, len(ids), 2**16):
        digest.update("\n".join(ids.slice(first, 2**16).to_pylist()).encode())
    return digest.hexdigest()


def _apply(run: RunData, steps: list[Step], clip_ids: pa.Array, progress: Progress, total: int) -> None:
    spec, reads = steps[0].spec, _reads(run, steps)
    facts = reads.pop("sources", None)
    tables = {name: reading.table for name, reading in reads.items()}
    units = _units(run.clips_table, tables, clip_ids, spec.batch_size or stage.BATCH_SIZE)
    job = StageJob(run.clips_table, [StageTask(step.spec, step.kind, step.table) for step in steps], reads, facts)
    resources = Resources(spec.workers, spec.cpus, spec.gpus, spec.memory_gb)
    _do(run, [step.spec.name for step in steps], job, units, resources, progress, total, total - len(clip_ids))


def _units(clips: Table, reads: Mapping[str, Table], clip_ids: pa.Array, least: int) -> list[dict[str, Any]]:
    """The units of a StageJob: some of these clips with the parts in which they lie, and the parts of other tables that hold them."""
    grouped = list(_grouped(clips, clip_ids, least)) if len(clip_ids) else []
    units: list[dict[str, Any]] = [{"parts": some, "reads": {}} for some in grouped]
    in_order = pa.array([i for some in grouped for ids in some.values() for i in ids] if reads else [], pa.string())
    for name, table in reads.items():
        names, part_of = table.parts_of(in_order)
        at = 0
        for unit in units:
            n = sum(map(len, unit["parts"].values()))
            unit["reads"][name] = sorted({names[i] for i in part_of[at : at + n].tolist() if i >= 0})
            at += n
    return units


def _grouped(clips: Table, clip_ids: pa.Array, least: int) -> Iterator[dict[str, list[str]]]:
    """These clips by the parts of the clips table that hold them: as many parts together as make a whole batch, or a piece of a large part."""
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


def _apply_whole(run: RunData, step: Step, clip_ids: list[str], progress: Progress) -> None:
    """Makes the table anew: what a stage says of one clip may depend on all the others."""
    spec = step.spec
    if step.table.parts():
        for name in _with_descendants(run, [spec.name]):
            run.tables()[name].drop()
            run.tables()[name].begin(run.claims[name])
    job = WholeJob(run.clips_table, StageTask(spec, step.kind, step.table), _reads(run, [step]), clip_ids)
    resources = Resources(1, spec.cpus, spec.gpus, spec.memory_gb)
    _do(run, [spec.name], job, [{}], resources, progress, len(clip_ids), 0)


def _reads(run: RunData, steps: list[Step]) -> dict[str, Reading]:
    """What the steps read from other tables."""
    tables = run.tables()
    found: dict[str, Reading] = {}
    for step in steps:
        for name, (table, column) in step.reads.items():
            found.setdefault(table, Reading(tables[table], {})).names[name] = column
    return found


def _do(
    run: RunData,
    names: list[str],
    job: Any,
    units: list[dict[str, Any]],
    resources: Resources,
    progress: Progress,
    total: int,
    done: int,
) -> None:
    """Runs units, tells the progress, and stops when too large a share of a table fails."""
    tables = run.tables()
    counts = {name: [0, 0] for name in names}
    if units:
        for name in names:
            errors = tables[name].read_once(["error"]).column("error")
            counts[name] = [len(errors), len(errors) - errors.null_count]
    with progress.step(", ".join(names), total, done, resources.gpus, len(units)) as step:
        if units:
            step.staffed(runner.workers_for(resources, len(units), step.waits))
        for line in step.lines:
            line.errors = counts[line.name][1]
        for receipt in runner.run_units(job, units, resources):
            step.advance(receipt)
            for name in names:
                heard = receipt.get("stages", {}).get(name, receipt)
                counts[name][0] += heard["rows"]
                counts[name][1] += heard["errors"]
                _judge(run, name, *counts[name])


def _judge(run: RunData, name: str, rows: int, errors: int) -> None:
    limit = run.pipeline.config.max_error_share
    if rows >= JUDGED_ROWS and errors > limit * rows:
        raise RunError(
            f"{errors} of {rows} rows of {name} failed, more than max_error_share = {limit:g}: that is a broken stage, not bad data; "
            f"see  rushes errors {run.root}"
        )


def check_weights(run: RunData) -> None:
    """Finds the weights of every stage on this machine. Raises WeightsError, with the command that fetches them."""
    for built in (stage.build(run.pipeline.cuts), *(step.stage for step in run.steps)):
        for address in stage.weights_of(built).values():
            weights.locate(address)


def check_stages(run: RunData) -> None:
    """Lets every stage look at what it needs besides weights (a server that answers, a key). Raises UsageError."""
    for step in run.steps:
        if (check := getattr(step.stage, "check", None)) is None:
            continue
        try:
            check()
        except ValueError as error:
            raise UsageError(f"{step.spec.where}: {step.spec.use}: {error}") from error


def _check_claims(run: RunData, listed: Mapping[str, str | None]) -> None:
    for name, table in run.tables().items():
        found = table.claim()
        # A table that was begun and has no rows yet may be made by anything.
        if found is not None and (differences := list(difference(found, run.claims[name]))) and table.parts():
            told = next((d for d in differences if not d.startswith("made_from")), differences[0])
            raise ClaimError(
                f"{run.root}: the table '{name}' was made by another configuration ({told}); "
                f"go back to that, choose another --run, or add  --recompute {name}"
            )
    gone = sorted(uri for (uri,) in run.sources_table.read_keys() if uri not in listed)
    if gone:
        raise ClaimError(
            f"{run.root}: {len(gone)} source(s) of this run are no longer listed under sources (the first: {gone[0]}); "
            f"list them again, choose another --run, or add  --recompute sources"
        )


def _with_descendants(run: RunData, names: Sequence[str]) -> list[str]:
    """The named tables and everything made from them. Raises UsageError for a name that is no table."""
    chosen: set[str] = set()
    for name in names:
        if name not in run.tables():
            raise UsageError(f"--recompute: there is no table '{name}'{nearest(name, run.tables())}")
        chosen.add(name)
    for name, parents in run.made_from().items():  # in the order in which tables are made
        if chosen & set(parents):
            chosen.add(name)
    return sorted(chosen)


def _forget_errors(run: RunData) -> None:
    """Deletes failed rows, so that they are pending again."""
    for name, table in run.tables().items():
        rows = table.read(["error", *(["source_id", "window"] if name == "clips" else [])]).to_pylist()
        bad = {tuple(row[k] for k in table.key) for row in rows if row["error"] is not None}
        if name == "clips":
            # A window is scanned as a whole: its good spans go too, or the second scan would make them twice.
            windows = {(row["source_id"], row["window"]) for row in rows if row["error"] is not None}
            bad = {(row["clip_id"],) for row in rows if (row["source_id"], row["window"]) in windows}
        if bad:
            table.drop_rows(bad)
    shard_plan.forget_left_out(run)


def _index(run: RunData) -> None:
    """Builds the search index. What its library says of a disk or a bucket that fails becomes a RunError."""
    try:
        index.build(run)
    except (OSError, RuntimeError) as error:
        raise RunError(
            f"the search index could not be written: {one_sentence(error)}; the same command goes on from here"
        ) from error


@contextlib.contextmanager
def _alone(run: RunData, progress: Progress) -> Iterator[None]:
    """Holds the run directory; a run whose directory was taken over stops at the next receipt."""
    with lease.held(run.root) as hold:
        progress.heard = hold.check if hold else progress.heard
        yield
