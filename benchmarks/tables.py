"""CPU and memory of the driver for many clips: opening tables, pending work, selection, ledger; before and after `compact`.

    python -m benchmarks.tables [--clips 2000000] [--per-part 20] [--keep FOLDER]

The tables are synthetic, written as workers write them: a part of clips per minute of footage (20 clips), thumbnails of one byte, two
measures. Each operation runs in its own process; printed are CPU seconds, and peak memory above that of a process that has opened the
run, in bytes per clip. `--per-part` writes larger and fewer parts.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.report import filled
from curate.config import pipeline_file
from curate.dataset.run import Run
from curate.pipeline import plan as planning
from curate.progress import status
from curate.run.windows import pending_windows
from curate.scan import scan, sources
from curate.tables import store
from curate.tables.compact import compact
from curate.tables.table import encoding, light_of

PIPELINE = """\
run: run
sources: footage
measure:
  - use: filters.Motion
  - use: filters.Quality
keep:
  motion: {above: p25}
"""
PER_SOURCE, SECONDS = 100, 3.0


def make_run(folder: Path, n: int, per_part: int) -> Run:
    """A run of `n` clips; the second measure lacks the last twentieth of them."""
    (folder / "pipeline.yaml").write_text(PIPELINE)
    loaded = pipeline_file.load(folder / "pipeline.yaml")
    run = Run(str(folder / "run"), loaded)
    saved = {"pipeline": dict(loaded.resolved), "directory": str(folder), "home": str(folder)}
    store.put_json(run.path("pipeline.json"), saved)
    for name, table in run.tables().items():
        table.begin(run.claims[name])
    n_sources = n // PER_SOURCE
    facts = {
        "uri": [f"/footage/{i:08d}.mp4" for i in range(n_sources)],
        "source_id": [f"{i:020d}" for i in range(n_sources)],
        "duration_s": np.full(n_sources, PER_SOURCE * SECONDS),
    }
    _put(run.sources_table, "part-0.parquet", filled(sources.SCHEMA, n_sources, facts))
    rng = np.random.default_rng(1)
    block = per_part * max(1, 200_000 // per_part)  # rows are made many at once, and written few at once
    for first in range(0, n, block):
        some = np.arange(first, min(first + block, n), dtype=np.uint64)
        at_s = (some % PER_SOURCE).astype(float) * SECONDS
        spans = {
            "clip_id": _ids(some * np.uint64(0x9E3779B97F4A7C15)),
            "source_id": _ids(some // PER_SOURCE),
            "window": np.zeros(len(some), np.int32),
            "start_s": at_s,
            "end_s": at_s + SECONDS,
            "fps": np.full(len(some), 25.0),
            "n_frames": np.full(len(some), 75, np.int32),
            "start_kind": pa.repeat("hard", len(some)),
            "thumbs": pa.repeat(pa.scalar([b"x"], pa.list_(pa.binary())), len(some)),
        }
        made = [(run.clips_table, filled(scan.SCHEMA, len(some), spans))]
        for k, step in enumerate(run.steps):
            fields = [f for f in step.table.schema if f.name in step.columns and pa.types.is_floating(f.type)]
            values = {field.name: rng.gamma(2.0, 0.4, len(some)) for field in fields}
            rows = filled(step.table.schema, len(some), values | {"clip_id": spans["clip_id"]})
            made.append((step.table, rows.slice(0, max(0, min(len(rows), n - n // 20 - first))) if k else rows))
        for table, rows in made:
            for at in range(0, len(rows), per_part):
                _put(table, f"part-{first + at:012d}.parquet", rows.slice(at, per_part))
    return run


def _ids(numbers: np.ndarray) -> pa.Array:
    """Numbers as texts of twenty digits, as long as an id."""
    return pc.utf8_lpad(pa.array(numbers.astype(np.uint64)).cast(pa.string()), 20, "0")


def _put(table: Any, name: str, rows: pa.Table) -> None:
    """As Table.put, without fsync for each part."""
    folder = Path(table.root)
    folder.mkdir(parents=True, exist_ok=True)
    if media := table.media():
        light = rows.drop_columns(sorted(media))
        pq.write_table(light, folder / light_of(name), **encoding(light.schema))
    pq.write_table(rows, folder / name, row_group_size=table.row_group_rows, **encoding(rows.schema))


def pending(run: Run) -> str:
    """The pending clips of each measure."""
    clips = pa.array(run.clip_ids(), pa.string())
    return ", ".join(f"{len(step.table.lacking(clips)):,}" for step in run.steps)


def units(run: Run) -> str:
    """The units of the second measure's pending clips."""
    todo = run.steps[-1].table.lacking(pa.array(run.clip_ids(), pa.string()))
    return f"{len(planning.stage_units(run.clips_table, {'motion': run.steps[0].table}, todo, 16)):,} units"


def all_units(run: Run) -> str:
    """The units of all clips, as for a measure that is new."""
    clips = pa.array(run.clip_ids(), pa.string())
    return f"{len(planning.stage_units(run.clips_table, {'motion': run.steps[0].table}, clips, 16)):,} units"


WORK: dict[str, Callable[[Run], str]] = {
    "open a measure": lambda run: f"{len(run.steps[0].table.read_unordered(['motion'])):,} rows",
    "open clips": lambda run: f"{len(run.clips_table.read(['source_id', 'start_s', 'end_s'])):,} rows",
    "pending windows": lambda run: f"{len(pending_windows(run)):,}",
    "pending clips": pending,
    "units, a twentieth": units,
    "units, all": all_units,
    "selection": lambda run: f"{len(run.selection().clip_ids):,} kept",
    "funnel": lambda run: f"{len(run.funnel())} lines",
    "ledger": lambda run: f"{run.ledger().accounted_share:.6f} accounted for",
    "status": lambda run: f"{status.counts(run)['clips']['total']:,} clips",
}


def _alone(root: str, name: str, pipe: Any) -> None:
    run = Run.open(root)
    assert run.steps
    Path("/proc/self/clear_refs").write_text("5")  # its peak is that of its parent so far
    before = peak_bytes()
    cpu, wall = time.process_time(), time.perf_counter()
    result = WORK[name](run)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    pipe.send((result, cpu, wall, peak_bytes() - before))


def peak_bytes() -> int:
    """The peak resident memory of this process since the last reset (Linux)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def measure(run: Run, n: int, only: list[str]) -> dict[str, tuple[float, float]]:
    """CPU seconds and bytes per clip of each operation."""
    found = {}
    spawn = multiprocessing.get_context("spawn")
    for name in only or WORK:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_alone, args=(run.root, name, theirs))
        process.start()
        theirs.close()
        try:
            result, cpu_s, _, size = ours.recv()
        except EOFError:
            print(f"  {name:20s} DIED", flush=True)
            process.join()
            continue
        process.join()
        found[name] = (cpu_s, size / n)
        print(
            f"  {name:20s} {1e6 * cpu_s / n:8.2f} CPU s for a million clips, {size / n:7.0f} bytes a clip   ({result})",
            flush=True,
        )
    return found


def main() -> None:
    """Measures before and after compaction."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--clips", type=int, default=2_000_000)
    ask.add_argument("--per-part", type=int, default=20)
    ask.add_argument("--only", nargs="*", default=[], choices=[[], *WORK])
    ask.add_argument("--no-compact", action="store_true")
    ask.add_argument(
        "--keep", type=Path, help="a folder for the run, which is kept; one that is there already is measured as it is"
    )
    given = ask.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = given.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        run = (
            Run.open(str(folder / "run"))
            if (folder / "run").exists()
            else make_run(folder, given.clips, given.per_part)
        )
        parts = sum(len(table.parts()) for table in run.tables().values())
        print(f"{given.clips:,} clips in {parts:,} parts")
        before = measure(run, given.clips, given.only)
        if given.no_compact:
            return
        cpu = time.process_time()
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        done = compact(run)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu = time.process_time() - cpu
        print(
            f"compact: {sum(d.before for d in done):,} parts are {sum(d.after for d in done):,} now, "
            f"{sum(d.before_bytes for d in done) / sum(d.after_bytes for d in done):.2f} times smaller; "
            f"{1e6 * cpu / given.clips:.1f} CPU s for a million clips, {(most - start) / 2**10:.0f} MiB more at its peak"
        )
        after = measure(run, given.clips, given.only)
        print(
            "CPU before over after: "
            + ", ".join(f"{k} {before[k][0] / max(after[k][0], 1e-3):.1f}" for k in before if k in after)
        )


if __name__ == "__main__":
    sys.exit(main())
