"""Growth of memory, file handles, processes and the run directory with the number of sources.

    python -m benchmarks.bounded memory  [--sources 100000] [--keep FOLDER]     many tiny files through sources, scan, a measure and the report
    python -m benchmarks.bounded handles [--sources 1000]                       fewer, longer files through all of these and the shards

The benchmark starts `rushes run` and samples it once a second: unshared resident memory (`rss - shared`), file handles and processes of the
driver, of Ray's workers and of the sandboxes that decode files. Growth is computed per phase: the median of the last third over that of the
middle third (the first third, with imports and loading, is excluded). The driver's state grows with the number of sources, and is printed as
bytes per source. The files are copies of one tiny video, made distinct by a box at the end that players skip. The curves are saved in
docs/pictures/.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import psutil

from tests.videos import numbered_frames, write_video

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "pictures"
PER_FOLDER = 1000
TABLES = ("sources", "clips", "measures", "captions", "embeddings")
PIPELINE = """\
run: run
sources: footage
scan: {{min_clip_s: 0.4, thumb_fps: 4, workers: 2}}
measure:
  - {{use: tests.stages.Brightness, workers: 2}}
keep:
  brightness: {{above: {above}}}
shards: {{short_side_px: 64}}
"""


def make_footage(folder: Path, n: int, n_frames: int, width_px: int, height_px: int) -> None:
    """Writes `n` videos with the same frames and different bytes: a box `free`, which players skip, holds a number."""
    folder.mkdir(parents=True)
    whole = write_video(
        folder / "one.mp4", numbered_frames(n_frames, width_px, height_px), 12, gop=n_frames
    ).read_bytes()
    (folder / "one.mp4").unlink()
    for i in range(n):
        inside = folder / f"{i // PER_FOLDER:04d}"
        inside.mkdir(exist_ok=True)
        (inside / f"{i:06d}.mp4").write_bytes(whole + struct.pack(">I4sQ", 16, b"free", i))


@dataclass
class Sample:
    """One sample of the processes of a run."""

    at_s: float
    phase: str
    mib: dict[str, float] = field(default_factory=dict)
    """Of the largest process of each kind: driver, worker, sandbox, ray."""
    handles: dict[str, int] = field(default_factory=dict)
    """Of all processes of a kind."""
    processes: dict[str, int] = field(default_factory=dict)
    tmp_files: int = 0


def kind_of(process: psutil.Process, driver: int) -> str:
    """The kind of a process of a run."""
    if process.pid == driver:
        return "driver"
    words = " ".join(process.cmdline())
    if "curate.sandbox.child" in words:
        return "sandbox"
    return "worker" if words.startswith("ray::") and "MapWorker" in words else "ray"


def look(driver: psutil.Process, run: Path, began: float) -> Sample:
    """Memory, handles and processes now."""
    phase = "sources"
    for name, there in (
        ("clips", "clips"),
        ("measure", "measures/brightness"),
        ("shards", "shards"),
        ("report", "report"),
    ):
        if any((run / there).glob("part-*")) if name in ("clips", "measure") else (run / there).exists():
            phase = name
    found = Sample(time.monotonic() - began, phase)
    for process in [driver, *driver.children(recursive=True)]:
        try:
            with process.oneshot():
                kind, memory, handles = kind_of(process, driver.pid), process.memory_info(), process.num_fds()
        except psutil.Error:
            continue
        found.mib[kind] = max(found.mib.get(kind, 0.0), (memory.rss - memory.shared) / 2**20)
        found.handles[kind] = found.handles.get(kind, 0) + handles
        found.processes[kind] = found.processes.get(kind, 0) + 1
    found.tmp_files = (
        sum(1 for name in TABLES for path in (run / name).rglob(".*.tmp") if (run / name).exists())
        if int(found.at_s) % 10 == 0
        else 0
    )
    return found


def follow(folder: Path, limit_s: float) -> tuple[list[Sample], int]:
    """Runs the pipeline in `folder` and samples it; stops it after `limit_s`. Returns the samples and the exit code."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}"}
    command = [sys.executable, "-c", "from curate.cli import main; main()", "run"]
    began, samples = time.monotonic(), []
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
        driver = psutil.Process(process.pid)
        try:
            while process.poll() is None and time.monotonic() - began < limit_s:
                with contextlib.suppress(psutil.NoSuchProcess):
                    samples.append(look(driver, folder / "run", began))
                time.sleep(1.0)
        finally:
            if process.poll() is None:
                process.terminate()
    return samples, process.wait()


def curves(samples: list[Sample], what: str) -> Iterator[tuple[str, list[float], list[float]]]:
    """(kind, seconds, values) of memory or handles or processes."""
    for kind in ("driver", "worker", "sandbox", "ray"):
        some = [s for s in samples if kind in getattr(s, what)]
        if some:
            yield kind, [s.at_s for s in some], [getattr(s, what)[kind] for s in some]


def slopes(samples: list[Sample], what: str) -> None:
    """Prints, for each phase, the median of the last third over that of the middle third."""
    for phase in dict.fromkeys(s.phase for s in samples):
        within = [s for s in samples if s.phase == phase]
        if len(within) < 15:
            continue
        ratios = []
        for kind, _, values in curves(within, what):
            third = len(values) // 3
            if third >= 5:
                middle, last = statistics.median(values[third : 2 * third]), statistics.median(values[2 * third :])
                ratios.append(f"{kind} {last / max(middle, 1e-9):.3f} (largest {max(values):.0f})")
        print(f"  {what:9s} {phase:8s} last third over the middle: {', '.join(ratios)}", flush=True)


def draw(samples: list[Sample], path: Path, whats: tuple[str, ...], title: str) -> None:
    """Draws the curves, a panel for each of `whats`."""
    figure, panels = plt.subplots(len(whats), 1, figsize=(7.5, 2.4 * len(whats)), sharex=True, squeeze=False)
    names = {"mib": "MiB, the largest of its kind", "handles": "file handles, all", "processes": "processes"}
    starts = [(p, next(s.at_s for s in samples if s.phase == p)) for p in dict.fromkeys(s.phase for s in samples)]
    for panel, what in zip(panels[:, 0], whats, strict=True):
        for kind, at_s, values in curves(samples, what):
            panel.plot(at_s, values, label=kind, linewidth=1)
        for phase, at_s in starts:
            panel.axvline(at_s, color="0.8", linewidth=0.8)
            panel.annotate(phase, (at_s, 1), xycoords=("data", "axes fraction"), fontsize=7, va="top", rotation=90)
        panel.set_ylabel(names[what], fontsize=8)
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=7, loc="center right")
    panels[-1, 0].set_xlabel("seconds", fontsize=8)
    panels[0, 0].set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def rows_of(folder: Path) -> str:
    """The number of rows that each step has written so far."""
    spent = json.loads((folder / "run" / "spent.json").read_text())
    return ", ".join(f"{name} {step['rows']:,}" for name, step in spent.items())


def beyond_tables(run: Path) -> tuple[int, int, list[str]]:
    """Names and bytes of the files of the run directory outside its tables, shards, index and report."""
    extra = [
        p
        for p in run.rglob("*")
        if p.is_file() and p.relative_to(run).parts[0] not in (*TABLES, "shards", "index.lance", "report")
    ]
    return len(extra), sum(p.stat().st_size for p in extra), sorted(str(p.relative_to(run)) for p in extra)[:8]


def measure(
    name: str, n: int, n_frames: int, size_px: tuple[int, int], above: int, keep: Path | None, limit_s: float
) -> None:
    """Writes the footage, runs the pipeline on it, prints the growth and saves the curves."""
    folder = keep or Path(tempfile.mkdtemp(prefix="bounded-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        make_footage(folder / "footage", n, n_frames, *size_px)
        (folder / "pipeline.yaml").write_text(PIPELINE.format(above=above))
        samples, code = follow(folder, limit_s)
        (folder / "samples.json").write_text(json.dumps([vars(s) for s in samples]))
        if code and samples[-1].at_s < limit_s - 5:
            sys.exit((folder / "out").read_text()[-2000:])
        whats = ("mib", "handles", "processes")
        print(f"{n:,} sources, {len(samples)} looks; {rows_of(folder)}", flush=True)
        for what in whats:
            slopes(samples, what)
        first = statistics.median(s.mib["driver"] for s in samples[5:15] if "driver" in s.mib)
        print(
            f"  driver: {(max(s.mib['driver'] for s in samples) - first) * 2**20 / n:.0f} bytes for each source over its start"
        )
        files, size, some = beyond_tables(folder / "run")
        left = sum(1 for path in (folder / "run").rglob(".*.tmp"))
        print(
            f"  beyond the tables: {files} files, {size:,} bytes ({', '.join(some)}); "
            f"files left aside: {left}, most at once {max(s.tmp_files for s in samples)}"
        )
        draw(samples, RESULTS / f"bounded_{name}.png", whats, f"{n:,} sources")
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Runs the selected part."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("part", choices=["memory", "handles"])
    ask.add_argument("--sources", type=int)
    ask.add_argument("--keep", type=Path, help="a new folder for the footage and the run, which are kept")
    ask.add_argument("--limit-s", type=float, default=3600.0, help="the run is stopped after so many seconds")
    given = ask.parse_args()
    if given.part == "memory":
        measure("memory", given.sources or 100_000, 6, (64, 48), 1000, given.keep, given.limit_s)
    else:
        measure("handles", given.sources or 1_000, 36, (160, 96), 0, given.keep, given.limit_s)


if __name__ == "__main__":
    main()
