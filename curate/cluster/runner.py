"""Ray, behind one function: `run_units(job, units, resources)` does units of work in a pool of actors and yields their receipts.

Jobs, units and receipts are defined in curate/cluster/work.py, the size of a pool in curate/cluster/pool.py. On one machine a step of a
single unit, or of a single worker, is done in this process, without Ray.
"""

import importlib
import logging
import os
import pickle
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil

from curate.cluster import exit_reason
from curate.cluster.pool import NoRoomError, Pool, Resources, plan, shape
from curate.cluster.work import Finished, Job
from curate.errors import RunError, RushesError
from curate.stages.stage import one_sentence

U = TypeVar("U")
R = TypeVar("R")
_TOKEN = secrets.token_hex(32)
_own_environment: list[str] = []
_release: list[Callable[[], None]] = []
_is_own = False
"""Whether this process is connected to a Ray that it started itself."""
_meters: dict[str, Any] = {}

BLOCKS = 4096
"""Maximum number of Ray blocks into which units are grouped: it bounds the driver's bookkeeping in a run of millions of units. Ours."""

WAIT_S = 60.0
"""Timeout for a node with room for one worker, in seconds. Ours: a cluster whose nodes are still starting."""
LONG_WAIT_S = 900.0
"""The same for a pool with bounds, that is, on a cluster with an autoscaler. Ours: a node with GPUs takes minutes to start."""


@dataclass(frozen=True)
class _Fatal:
    """Why a unit could not be done, in one sentence."""

    reason: str


class _Actor:
    """A Ray Data map worker around a job. An exception is returned as a value, so that the driver can report it in one sentence."""

    def __init__(self, job: Job[Any, Any]) -> None:
        self.job = job
        self.is_set_up = False

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"finished": [pickle.dumps(self.one(pickle.loads(unit))) for unit in batch["unit"]]}

    def one(self, unit: Any) -> Finished[Any] | _Fatal:
        """Does one unit and measures how long it takes."""
        began = time.perf_counter()
        try:
            if not self.is_set_up:
                self.job.setup()
                self.is_set_up = True
            ready = time.perf_counter()
            receipt = self.job.work(unit)
            return Finished(receipt, ready - began, time.perf_counter() - ready)
        except Exception as error:
            return _Fatal(str(error) if isinstance(error, RushesError) else one_sentence(error))


def run_units(job: Job[U, R], units: Sequence[U], resources: Resources) -> Iterator[Finished[R]]:
    """Does all units, in any order, and yields each as soon as it is finished.

    Raises RunError when a unit could not be done for a reason other than its data (a full disk, a stage whose setup fails).
    """
    if not units:
        return
    if _is_here(resources, len(units)):
        yield from _here(job, units)
        return
    import ray

    start()
    _quiet(ray)
    pool = _pool(ray, resources, len(units))
    dataset = ray.data.from_items(
        [{"unit": pickle.dumps(unit)} for unit in units], override_num_blocks=min(len(units), BLOCKS)
    )
    done = dataset.map_batches(
        _Actor,
        batch_size=1,
        fn_constructor_args=[job],
        compute=ray.data.ActorPoolStrategy(min_size=pool.least, max_size=pool.most, initial_size=pool.first),
        **shape(resources, "num_cpus", "num_gpus"),
    )
    try:
        for row in done.iter_rows():
            yield _checked(pickle.loads(row["finished"]))
    except ray.exceptions.RayError as error:
        raise RunError(f"Ray failed: {one_sentence(error)}; run the same command to resume") from error


def _has_cluster() -> bool:
    """Whether this process belongs to a Ray cluster or has started one."""
    return bool(os.environ.get("RAY_ADDRESS")) or ("ray" in sys.modules and sys.modules["ray"].is_initialized())


def _is_here(resources: Resources, n_units: int) -> bool:
    """Whether the work is done in this process: one unit or one worker, and no cluster. Ray starts slower than a short video is curated."""
    return (n_units <= 1 or resources.workers == 1) and not resources.gpus and not _has_cluster()


def _checked(finished: "Finished[R] | _Fatal") -> "Finished[R]":
    if isinstance(finished, _Fatal):
        raise RunError(finished.reason)
    return finished


def _here(job: Job[U, R], units: Sequence[U]) -> Iterator[Finished[R]]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray does for its workers, so that sums are bit-equal
    actor = _Actor(job)
    try:
        for unit in units:
            yield _checked(actor.one(unit))
    finally:
        if actor.is_set_up and (close := getattr(job, "close", None)) is not None:
            close()


def start() -> None:
    """Connects to the cluster of this process (a submitted job, or RAY_ADDRESS), or starts Ray in this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    # Ray's core warns on standard error about actors that Ray Data restarts by design (ray#53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _native_stderr_silenced():
            _connect(ray, common)
    except Exception as error:  # Ray raises a bare Exception when a node does not start in time
        raise RunError(f"Ray could not be reached or started: {one_sentence(error)}") from error
    _release.append(exit_reason.arm())
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray has replaced them


def _connect(ray: Any, common: dict[str, Any]) -> None:
    global _is_own
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**common)
    else:
        if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            # A local Ray would write a token into the home directory, which switches token authentication on for every later `ray start` on
            # this machine. A token of this process only is as safe and leaves no file.
            os.environ["RAY_AUTH_TOKEN"] = _TOKEN
            _own_environment.extend(["RAY_AUTH_TOKEN", "RAY_AUTH_MODE"])  # Ray sets the mode itself
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        begin = partial(
            ray.init,
            address="local",
            include_dashboard=False,
            num_cpus=os.cpu_count(),
            object_store_memory=200 * 2**20,  # receipts only
            # Ray passes the interpreter's path to a shell unquoted: in a folder with a space no worker would start.
            runtime_env={"env_vars": {"PYTHONPATH": path}, "py_executable": shlex.quote(sys.executable)},
            **common,
        )
        others = set(psutil.Process().children(recursive=True))
        try:
            begin()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            # Ray 2.60 has a fixed timeout of 30 s for its node. Busy machines and cold disks take longer; the second attempt has warm caches.
            _kill_leftovers(Path(ray.__file__).parent, others)
            begin()
        _is_own = True


def _kill_leftovers(package: Path, others: set[psutil.Process]) -> None:
    """Kills the processes of a Ray that failed to start: children that run Ray's programs and are not in `others`."""
    for process in set(psutil.Process().children(recursive=True)) - others:
        with suppress(psutil.Error):
            if str(package) in " ".join(process.cmdline()):
                process.kill()


@contextmanager
def _native_stderr_silenced() -> Iterator[None]:
    """Discards what native code writes to standard error while Ray starts (it prints its log level). Python exceptions are not affected."""
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def stop() -> None:
    """Disconnects from the cluster, or stops the Ray that `start` started in this process."""
    global _is_own
    if "ray" in sys.modules:
        import ray

        ray.shutdown()
    while _release:
        _release.pop()()
    _meters.clear()
    _is_own = False
    if _own_environment:
        for name in _own_environment:
            os.environ.pop(name, None)
        _own_environment.clear()
        _forget_token()


def _forget_token() -> None:
    """Makes Ray's core read the authentication mode again.

    The core caches it for the life of the process. Without this, a process that then owns actors on a cluster without tokens rejects the
    cluster's health checks, and the cluster kills the actors. Ray has no public function for it: this is checked with Ray 2.60
    (tests/curate/cluster/test_private_names.py), and pyproject.toml bounds Ray from above.
    """
    core: Any = importlib.import_module("ray._raylet")
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()


def meter(metric: Any) -> Any:
    """The ray.util.metrics instrument of a metric (curate/progress/metrics.py); None outside Ray."""
    if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
        return None
    if metric.name not in _meters:
        from ray.util import metrics

        more = {"boundaries": list(metric.boundaries)} if metric.boundaries else {}
        make = {"counter": metrics.Counter, "gauge": metrics.Gauge, "histogram": metrics.Histogram}[metric.kind]
        _meters[metric.name] = make(metric.name, description=metric.what, tag_keys=metric.tags, **more)
    return _meters[metric.name]


def workers_for(resources: Resources, n_units: int, report: Callable[[str], None] = lambda _: None) -> int:
    """The number of workers that `run_units` will have for `n_units` units; starts Ray where `run_units` would.

    On a cluster it waits for a node with room for one worker and passes the reason to `report`. Raises RunError when no such node comes.
    """
    if _is_here(resources, n_units):
        return 1
    import ray

    start()
    return _pool(ray, resources, n_units, report).expected


def _pool(ray: Any, resources: Resources, n_units: int, report: Callable[[str], None] = lambda _: None) -> Pool:
    patience_s = 0.0 if _is_own else LONG_WAIT_S if isinstance(resources.workers, tuple) else WAIT_S
    deadline = time.monotonic() + patience_s
    wanted: Any = None
    try:
        while True:
            try:
                nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
                return plan(resources, n_units, nodes, _is_own)
            except NoRoomError as error:
                if time.monotonic() >= deadline:
                    waited = f"; no such node joined within {patience_s:.0f} s" if patience_s else ""
                    raise NoRoomError(f"{error}{waited}") from error
                if wanted is None:
                    report(f"{error}; waiting up to {patience_s:.0f} s for a node with room")
                    wanted = ray.util.placement_group(
                        [shape(resources, "CPU", "GPU")]
                    )  # a pending request, which an autoscaler acts on
                wanted.wait(0.5)
    finally:
        if wanted is not None:
            ray.util.remove_placement_group(wanted)


def _quiet(ray: Any) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal.execution.streaming_executor"):
        logging.getLogger(name).setLevel(logging.ERROR)
