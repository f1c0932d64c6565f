"""Ray nodes that may be killed: a head without CPUs for its bookkeeping, and nodes of one logical CPU each that do the work."""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.faults.drivers import environment, family


class Nodes:
    """A Ray cluster on this machine."""

    def __init__(self, faults: Path, workers: int = 2) -> None:
        # Ray tells every other program of this user where its newest cluster is: not of this one.
        self.temp = tempfile.mkdtemp(prefix="ray-faults-")
        changed = environment(faults) | _ray_environment(self.temp)
        before = dict(os.environ)
        os.environ.update(changed)  # what nodes hand on to their workers
        try:
            from ray.cluster_utils import Cluster

            self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **_SMALL})
            self.address: str = self.cluster.address
            self.workers = [self.join() for _ in range(workers)]
        finally:
            os.environ.clear()
            os.environ.update(before)
        self.env = {"RAY_ADDRESS": self.address}
        self._faults = faults

    def join(self) -> Any:
        """A node comes."""
        return self.cluster.add_node(num_cpus=1, wait=False, **_SMALL)

    def joins(self) -> None:
        """A node comes, with the environment of the others."""
        before = dict(os.environ)
        os.environ.update(environment(self._faults) | _ray_environment(self.temp))
        try:
            self.workers.append(self.join())
        finally:
            os.environ.clear()
            os.environ.update(before)

    def raylet(self, node: Any) -> int:
        """The pid of a node's raylet, whose children are the node's workers."""
        return int(node.all_processes["raylet"][0].process.pid)

    def actors(self) -> list[psutil.Process]:
        """Processes of the pools' workers, on any node."""
        found = []
        for node in self.workers:
            for process in family(self.raylet(node)):
                with contextlib.suppress(psutil.Error):
                    if any("MapWorker" in word for word in process.cmdline()):
                        found.append(process)
        return found

    def lose(self, node: Any) -> None:
        """A node is gone at once: its raylet and all that it began."""
        for process in family(self.raylet(node)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        with contextlib.suppress(Exception):
            self.cluster.remove_node(node, allow_graceful=False)
        self.workers.remove(node)

    def is_well(self) -> bool:
        """Whether all of the cluster's own processes live."""
        return all(
            info.process.poll() is None
            for node in [self.cluster.head_node, *self.workers]
            for processes in node.all_processes.values()
            for info in processes
        )

    def processes(self) -> list[psutil.Process]:
        """Everything that belongs to the cluster."""
        found: list[psutil.Process] = []
        for node in [self.cluster.head_node, *self.workers]:
            for processes in node.all_processes.values():
                for info in processes:
                    found += family(info.process.pid)
        return found

    def close(self) -> None:
        """Kills what is left of it; Ray itself takes long to end gracefully."""
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
                process.kill()
        with contextlib.suppress(Exception):
            self.cluster.shutdown()
        shutil.rmtree(self.temp, ignore_errors=True)

    def settle(self, limit_s: float = 20.0) -> None:
        """Waits until the last driver's workers have ended."""
        deadline = time.monotonic() + limit_s
        while self.actors() and time.monotonic() < deadline:
            time.sleep(0.1)


def _ray_environment(temp: str) -> dict[str, str]:
    return {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_TMPDIR": temp, "RAY_raylet_start_wait_time_s": "120"}


_SMALL: dict[str, Any] = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
