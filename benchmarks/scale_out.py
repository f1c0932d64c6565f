"""Parallel efficiency of one worker pool of the real pipeline on simulated nodes, with a stage that sleeps instead of computing.

    python -m benchmarks.scale_out [--workers 1 2 4 8 16 32 64] [--unit-s 2] [--per-worker 12]

Nodes are raylets of `ray.cluster_utils.Cluster` with up to 32 CPUs each, more than the machine has: a sleeping worker uses none. Everything
else is real: `run_units`, a `StageJob`, reading parts of a clips table, decoding thumbnails, writing rows. All workers wait for each other
before the first unit, so that process start is excluded. Efficiency is the time that the stage sleeps over the time from there to the last
receipt; the rest is Ray, reading and writing, and idle workers at the end. The job is the same for 1 to 8 workers (strong scaling); beyond
that, the number of units per worker is constant (weak scaling).
"""

import argparse
import logging
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import psutil
import pyarrow as pa

from curate.clip import Clip
from curate.cluster import runner
from curate.cluster.pool import Resources
from curate.pipeline.stage_jobs import StageJob, StageTask
from curate.scan import scan
from curate.stages import stage
from curate.stages.stage import StageSpec
from curate.tables.table import Table

CLIPS_PER_UNIT, PER_NODE = 4, 32


@dataclass
class Sleeps:
    """Sleeps `seconds` for a batch, as a stage that computes on another machine's cores would."""

    seconds: float = 2.0
    columns: ClassVar[dict[str, pa.DataType]] = {"slept": pa.float32()}

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """Decodes a thumbnail of each clip, then sleeps."""
        level = [float(clip.middle.mean()) for clip in clips]
        time.sleep(self.seconds)
        return [{"clip_id": clip.clip_id, "slept": value} for clip, value in zip(clips, level, strict=True)]


@dataclass
class TogetherJob(StageJob):
    """A StageJob whose workers begin together: each leaves a file in `folder` when it is set up, and waits until there are `n`."""

    folder: str = ""
    n: int = 1

    def setup(self) -> None:
        """Builds the stage, and waits for the others."""
        super().setup()
        (Path(self.folder) / str(os.getpid())).touch()
        while len(list(Path(self.folder).iterdir())) < self.n:
            time.sleep(0.02)

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        """Processes a unit; returns its process and times."""
        began = time.time()
        cpu = time.process_time()
        receipt = super().work(unit)
        return {**receipt, "pid": os.getpid(), "began": began, "ended": time.time(), "cpu_s": time.process_time() - cpu}


def make_clips(table: Table, n_units: int) -> list[dict[str, Any]]:
    """A clips table with a part for each unit, and the units."""
    picture = np.random.default_rng(0).integers(0, 255, (90, 160, 3)).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    units = []
    for i in range(n_units):
        facts = {
            "source_id": f"{i:020x}",
            "window": 0,
            "end_s": 3.0,
            "fps": 25.0,
            "n_frames": 75,
            "width_px": 160,
            "height_px": 90,
        }
        rows = [
            {
                **dict.fromkeys(scan.SCHEMA.names),
                **facts,
                "clip_id": f"{i:012x}{k:08x}",
                "start_s": 0.0,
                "thumbs": [jpeg] * 4,
            }
            | {"thumb_times_s": [0.0, 1.0, 2.0, 2.9]}
            for k in range(CLIPS_PER_UNIT)
        ]
        units.append({"parts": {table.write(rows): [row["clip_id"] for row in rows]}, "reads": {}})
    return units


@dataclass(frozen=True)
class Measured:
    """One pass over the units."""

    workers: int
    units: int
    efficiency: float
    driver: float
    """CPU seconds of the driver over its wall seconds."""
    ray: float
    """The same of Ray's own processes (raylets, gcs), in cores."""
    unit_cpu_ms: float
    """CPU of the worker for a unit: reading, decoding, writing."""
    gap_ms: float
    """Median wall time between two units of a worker: Ray's share of a unit."""
    driver_ms: float
    """CPU of the driver for a unit."""
    even: float
    """Units of the worker with most over the mean."""


def ray_seconds() -> float:
    """CPU seconds so far of the processes of Ray that are not workers."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if not " ".join(process.cmdline()).startswith("ray::"):
                used = process.cpu_times()
                total += used.user + used.system
        except psutil.Error:
            continue
    return total


def one_pass(clips: Table, units: Sequence[dict[str, Any]], n: int, unit_s: float, folder: Path) -> Measured:
    """Processes the units with `n` workers."""
    spec = StageSpec("benchmarks.scale_out.Sleeps", "sleeps", {"seconds": unit_s}, batch_size=CLIPS_PER_UNIT)
    built = stage.build(spec)
    table = Table(str(folder / f"slept-{n}"), stage.table_schema(built, stage.column_names(built, spec, "measure")))
    barrier = folder / f"barrier-{n}"
    barrier.mkdir()
    job = TogetherJob(clips, [StageTask(spec, "measure", table)], {}, None, folder=str(barrier), n=n)
    receipts, driver, others = [], 0.0, 0.0
    for receipt in runner.run_units(job, list(units), Resources(workers=(n, n))):
        if not receipts:  # by now all workers are there
            driver, others, first_s = time.process_time(), ray_seconds(), time.time()
        receipts.append(receipt)
    last_s = time.time()
    driver, others = time.process_time() - driver, ray_seconds() - others
    assert len(table.read_keys()) == len(units) * CLIPS_PER_UNIT
    began = min(r["began"] for r in receipts)
    by_worker: dict[int, list[dict[str, Any]]] = {}
    for r in sorted(receipts, key=lambda r: r["began"]):
        by_worker.setdefault(r["pid"], []).append(r)
    gaps = [b["began"] - a["ended"] for own in by_worker.values() for a, b in pairwise(own)]
    return Measured(
        n,
        len(units),
        len(units) * unit_s / (n * (last_s - began)),
        driver / (last_s - first_s),
        others / (last_s - first_s),
        1e3 * statistics.median(r["cpu_s"] for r in receipts),
        1e3 * statistics.median(gaps),
        1e3 * driver / len(units),
        max(map(len, by_worker.values())) / (len(units) / n),
    )


def tell_ports() -> None:
    """Writes, for each node of this process, the port of an unused agent, as the agent does when it starts.

    A raylet waits 15 s for that file and then ends, and on a machine with other work the agent takes longer to be imported.
    """
    known, wanted = "runtime_env_agent_port_", "dashboard_agent_listen_port_"
    while True:
        for there in Path("/tmp/ray").glob(f"session_*_{os.getpid()}/{known}*"):
            file = there.with_name(there.name.replace(known, wanted))
            if not file.exists():
                file.write_text(there.read_text())
        time.sleep(0.1)


def begin(n: int, tries: int = 6) -> Any:
    """A cluster with room for `n` workers; retried when a busy machine misses Ray's own deadlines."""
    from ray.cluster_utils import Cluster

    for left in reversed(range(tries)):
        cluster = None
        try:
            cluster = Cluster(
                initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small()}
            )
            for first in range(0, n, PER_NODE):
                cluster.add_node(num_cpus=min(PER_NODE, n - first), **small())
            return cluster
        except Exception as error:  # Ray raises nothing narrower
            print(f"a node did not come up: {str(error)[:80]}", file=sys.stderr)
            if not left:
                raise
            if cluster is not None:
                cluster.shutdown()
    raise AssertionError("unreachable")


def small() -> dict[str, int]:
    """Options of every node: little memory, and its own ports, for which a raylet would otherwise wait 15 s and then exit."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    held = [socket.socket() for _ in names]
    for one in held:
        one.bind(("", 0))
    ports = {name: one.getsockname()[1] for name, one in zip(names, held, strict=True)}
    for one in held:
        one.close()
    return {"object_store_memory": 80 * 2**20, **ports}


def main() -> None:
    """Measures every size of the pool."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    ask.add_argument("--unit-s", type=float, default=2.0)
    ask.add_argument("--per-worker", type=int, default=12, help="units for each worker; of 1 to 8 workers, that of 8")
    given = ask.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_AUTH_MODE"] = "disabled"  # of nodes on the loopback, for minutes
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    # A machine with other work, and 64 processes that start at once: nothing is taken for dead that is slow.
    for name, milliseconds in (("agent_register_timeout_ms", 300_000), ("health_check_timeout_ms", 120_000)):
        os.environ[f"RAY_{name}"] = str(milliseconds)
    os.environ["RAY_raylet_start_wait_time_s"] = "40"  # noqa: SIM112
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    import ray

    threading.Thread(target=tell_ports, daemon=True).start()
    print("workers units efficiency driver-cpu ray-cores worker-cpu/unit gap/unit driver-cpu/unit most/mean")
    for n in given.workers:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            clips = Table(str(folder / "clips"), scan.SCHEMA, row_group_rows=16)
            units = make_clips(clips, given.per_worker * max(8 if n <= 8 else 0, n))
            cluster = begin(n)
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            try:
                m = one_pass(clips, units, n, given.unit_s, folder)
            finally:
                runner.stop()
                cluster.shutdown()
            print(
                f"{m.workers:7d} {m.units:5d} {m.efficiency:10.3f} {m.driver:10.1%} {m.ray:9.2f} {m.unit_cpu_ms:12.1f} ms "
                f"{m.gap_ms:5.1f} ms {m.driver_ms:12.1f} ms {m.even:9.2f}",
                flush=True,
            )
    print(f"machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f} at the end", file=sys.stderr)


if __name__ == "__main__":
    main()
