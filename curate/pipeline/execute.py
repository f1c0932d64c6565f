"""The walk of the data, top to bottom: sources, clips, measures, captions, shards, index, report. Every step does what is pending."""

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence

import pyarrow as pa

from curate.cluster.work import StageReceipt
from curate.errors import ClaimError, RunError, UsageError, nearest
from curate.pipeline import plan as planning
from curate.pipeline.plan import Pass
from curate.progress.progress import Progress
from curate.report import write as report
from curate.run.data import PIPELINE, RunData
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

JUDGED_ROWS = 20
"""A table with fewer rows is not judged by its share of errors. Ours."""


def execute(run: RunData, progress: Progress, recompute: Sequence[str] = (), retry_errors: bool = False) -> None:
    """Runs the pipeline, or resumes it: does what is pending and nothing else.

    Args:
        run: The run directory and its pipeline.
        progress: Where each finished unit is reported.
        recompute: Tables to drop first, with everything made from them.
        retry_errors: Whether failed rows are tried again.

    Raises UsageError before anything is run (wrong configuration, missing weights, a directory made by another configuration) and RunError
    when the run cannot continue.
    """
    listed = sources.discover(run.pipeline.config.sources, run.pipeline.home)
    check_weights(run)
    check_stages(run)
    dropped = _with_descendants(run, recompute)
    with _alone(run, progress):
        store.sweep(run.root, deep=True)
        if dropped:
            shard_plan.forget(run, dropped)  # first: a kill in between must not leave shards that seem valid
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
    """Rewrites shards of the newest version, by file name. Raises RunError when they cannot be written."""
    with _alone(run, progress), progress.over(["shards"], run.root):
        shard_plan.spoil(run.shards_root(), files)
        shards.write(run, run.selection(), progress)
        _index(run)


def compact(run: RunData, progress: Progress, report: Callable[[Compacted], None]) -> list[Compacted]:
    """Merges the parts of every table (curate/tables/compact.py). Raises UsageError when another process works on the run."""
    with _alone(run, progress), progress.over([], None):
        return compaction.compact(run.tables(), report)


def probe(run: RunData, listed: Mapping[str, str | None], progress: Progress) -> None:
    """Reads the header of every listed file that is not in the sources table."""
    _do(run, planning.probe(run, listed), progress)


def split(run: RunData, progress: Progress, sample: Container[tuple[str, int]] | None = None) -> None:
    """Scans every window that has no rows yet; of those in `sample`, where it is given: `(source_id, window)` each."""
    _do(run, planning.scan(run, sample), progress)


def measure(run: RunData, progress: Progress) -> None:
    """Runs every filter on every clip."""
    _do_levels(run, "measure", pa.array(run.clip_ids(), pa.string()), progress)


def caption(run: RunData, progress: Progress) -> None:
    """Captions the clips that the measures keep, one captioner after the other, since a later one may read an earlier one's caption."""
    for step in (s for s in run.steps if s.kind == "caption"):
        chosen = planning.selected(run, ("measure",))
        _do(run, planning.stages(run, [step], step.table.lacking(chosen), len(chosen)), progress)


def review(run: RunData, progress: Progress) -> None:
    """Runs the filters that read captions on the captioned clips."""
    if planning.levels(run, "review"):
        _do_levels(run, "review", planning.selected(run, ("measure",)), progress)


def embed(run: RunData, progress: Progress) -> None:
    """Embeds the captions of the clips in the shards, for search."""
    for step in (s for s in run.steps if s.kind == "embed"):
        chosen = planning.selected(run)
        _do(run, planning.stages(run, [step], step.table.lacking(chosen), len(chosen)), progress)


def _do_levels(run: RunData, kind: str, clips: pa.Array, progress: Progress) -> None:
    """Runs all steps of a kind on these clips, level by level: a step comes after those that it reads."""
    for number in range(planning.levels(run, kind)):
        level = planning.level(run, kind, number, clips)
        for name, total, done in level.counts:
            progress.seen(name, total, done)
        for work in level.passes:
            _do(run, work, progress)


def _do(run: RunData, work: Pass, progress: Progress) -> None:
    """Runs the units of a pass, and stops when too large a share of a table's rows fails."""
    tables = run.tables()
    for name in work.restart:
        tables[name].drop()
        tables[name].begin(run.claims[name])
    judges = {name: _Judge(run, name, tables[name] if work.units else None) for name in work.tables}
    errors = {name: judge.errors for name, judge in judges.items()}
    for finished in progress.run(
        ", ".join(work.tables), work.job, work.units, work.resources, work.total, work.done, errors
    ):
        for name, judge in judges.items():
            judge.add(finished.receipt.of(name))


class _Judge:
    """Counts the rows of one table and stops the run when more than `max_error_share` of them failed."""

    def __init__(self, run: RunData, name: str, table: Table | None) -> None:
        self.root, self.limit, self.name = run.root, run.pipeline.config.max_error_share, name
        self.rows = self.errors = 0
        if table is not None:
            errors = table.read_once(["error"]).column("error")
            self.rows, self.errors = len(errors), len(errors) - errors.null_count

    def add(self, receipt: StageReceipt) -> None:
        """Adds the rows of one unit. Raises RunError."""
        self.rows += receipt.rows
        self.errors += receipt.errors
        if self.rows >= JUDGED_ROWS and self.errors > self.limit * self.rows:
            raise RunError(
                f"{self.errors} of {self.rows} rows of {self.name} failed, more than max_error_share = {self.limit:g}: "
                f"the stage is broken, not the data; list the errors with  rushes errors {self.root}"
            )


def check_weights(run: RunData) -> None:
    """Locates the weights of every stage on this machine. Raises WeightsError, with the command that fetches them."""
    for built in (stage.build(run.pipeline.cuts), *(step.stage for step in run.steps)):
        for address in stage.weights_of(built).values():
            weights.locate(address)


def check_stages(run: RunData) -> None:
    """Calls `check` of every stage: what it needs besides weights (a server that answers, a key). Raises UsageError."""
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
        # A table without rows may be made by any configuration.
        if found is not None and (differences := list(difference(found, run.claims[name]))) and table.parts():
            changed = next((d for d in differences if not d.startswith("made_from")), differences[0])
            raise ClaimError(
                f"{run.root}: the table '{name}' was made by another configuration ({changed}); "
                f"restore that configuration, choose another --run, or add  --recompute {name}"
            )
    gone = sorted(uri for (uri,) in run.sources_table.read_keys() if uri not in listed)
    if gone:
        raise ClaimError(
            f"{run.root}: {len(gone)} source(s) of this run are no longer listed under sources (the first: {gone[0]}); "
            f"list them again, choose another --run, or add  --recompute sources"
        )


def _with_descendants(run: RunData, names: Sequence[str]) -> list[str]:
    """The named tables and everything made from them. Raises UsageError for an unknown table."""
    for name in names:
        if name not in run.tables():
            raise UsageError(f"--recompute: there is no table '{name}'{nearest(name, run.tables())}")
    return planning.with_descendants(run, names)


def _forget_errors(run: RunData) -> None:
    """Deletes failed rows, so that they are pending again."""
    for name, table in run.tables().items():
        rows = table.read(["error", *(["source_id", "window"] if name == "clips" else [])]).to_pylist()
        bad = {tuple(row[k] for k in table.key) for row in rows if row["error"] is not None}
        if name == "clips":
            # A window is scanned as a whole: its valid spans are deleted too, or the second scan would duplicate them.
            windows = {(row["source_id"], row["window"]) for row in rows if row["error"] is not None}
            bad = {(row["clip_id"],) for row in rows if (row["source_id"], row["window"]) in windows}
        if bad:
            table.drop_rows(bad)
    shard_plan.forget_left_out(run)


def _index(run: RunData) -> None:
    """Builds the search index. Raises RunError when the disk or the bucket fails."""
    try:
        index.build(run)
    except (OSError, RuntimeError) as error:
        raise RunError(
            f"the search index could not be written: {one_sentence(error)}; run the same command to resume"
        ) from error


@contextlib.contextmanager
def _alone(run: RunData, progress: Progress) -> Iterator[None]:
    """Holds the lease of the run directory; a run that loses its lease stops at the next receipt."""
    with lease.held(run.root) as hold:
        progress.on_receipt = hold.check if hold else progress.on_receipt
        yield
