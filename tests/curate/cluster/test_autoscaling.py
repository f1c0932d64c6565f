"""Worker pools on an autoscaling cluster: Ray's autoscaler, with nodes that it starts on this machine."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from curate.cluster import runner
from curate.cluster.pool import NoRoomError, Resources
from tests.project import environment
from tests.servers import free_port

pytestmark = [
    pytest.mark.slow,  # a cluster of three processes and waits for its autoscaler
    pytest.mark.ray_cluster,
    # Ray Data 2.60 copies its own context attribute by attribute, deprecated ones too.
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning:ray"),
]

NODE = {"object_store_memory": 100_000_000}
KINDS = {"small": {"CPU": 1, **NODE}, "gpu": {"CPU": 1, "GPU": 1, **NODE}}
TABLES = ("auth", "docker", "file_mounts")
LISTS = ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands")
COMMANDS = ("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
"""Keys that a cluster description requires and that nodes on this machine do not use."""


class Sleeping:
    """Work that uses no CPU, so that two nodes on one machine do twice the work of one."""

    def setup(self) -> None:
        pass

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        import ray

        time.sleep(unit["s"])
        context = ray.get_runtime_context()
        return {"rows": 1, "errors": 0, "node": context.get_node_id(), "worker": os.getpid()}


@pytest.fixture(scope="module")
def scaling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Connects this process to a cluster whose head has no CPU and which starts nodes on demand."""
    folder = tmp_path_factory.mktemp("scaling")
    runner.start()  # a local Ray uses a token; after stop() this process must not require it, or no worker of the cluster starts
    runner.stop()
    port = free_port()
    provider = {
        "type": "fake_multinode",
        "gcs_address": f"127.0.0.1:{port}",
        **dict.fromkeys(("use_node_id_as_ip", "disable_node_updaters", "disable_launch_config_check"), True),
    }
    kinds = {
        name: {"resources": has, "node_config": {}, "min_workers": 0, "max_workers": 2} for name, has in KINDS.items()
    }
    head = {"head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}}
    (folder / "cluster.json").write_text(
        json.dumps(
            {
                "cluster_name": "fake",
                "max_workers": 4,
                "provider": provider,
                "available_node_types": kinds | head,
                "head_node_type": "head",
                "upscaling_speed": 4.0,
                "idle_timeout_minutes": 1,
                "file_mounts_sync_continuously": False,
                **{key: {} for key in TABLES},
                **{key: [] for key in LISTS + COMMANDS},
            }
        )
    )
    outside = {key: value for key, value in environment().items() if not key.startswith("RAY_")}
    outside |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled"}
    where = [f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=0", "--include-dashboard=false"]
    command = ["ray", "start", "--head", "--block", *where, f"--autoscaling-config={folder / 'cluster.json'}"]
    with (folder / "ray.log").open("w") as log, pytest.MonkeyPatch.context() as patch:
        process = subprocess.Popen(command, env=outside, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while "This command will now block" not in (folder / "ray.log").read_text():
                assert process.poll() is None, (folder / "ray.log").read_text()
                assert time.monotonic() < deadline, "the head did not come up"
                time.sleep(0.2)
            patch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
            patch.setenv("RAY_AUTH_MODE", "disabled")
            runner.stop()
            yield
        finally:
            runner.stop()
            for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()


@pytest.mark.usefixtures("scaling")
def test_a_gpu_stage_waits_for_its_node_and_shares_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    resources = Resources(workers=(1, 2), cpus=0.25, gpus=0.5)
    assert runner.workers_for(resources, 6, messages.append) == 2
    assert messages == [
        "a stage asks for 0.5 GPU, and the largest node of this Ray cluster has 0; waiting up to 900 s for one that has"
    ]
    receipts = list(runner.run_units(Sleeping(), [{"s": 0.2}] * 6, resources))
    assert len(receipts) == 6
    assert len({receipt["node"] for receipt in receipts}) == 1, "two workers fit on one GPU"

    monkeypatch.setattr(runner, "LONG_WAIT_S", 2.0)
    with pytest.raises(
        NoRoomError, match=r"asks for 4 GPU, and the largest node .* has 1; no such node joined within 2 s"
    ):
        runner.workers_for(Resources(workers=(1, 2), gpus=4), 6)
    monkeypatch.setattr(runner, "WAIT_S", 1.0)
    with pytest.raises(NoRoomError, match=r"asks for 64 CPU, .* no such node joined within 1 s"):
        runner.workers_for(Resources(cpus=64), 6)


@pytest.mark.usefixtures("scaling")
def test_a_pool_starts_with_one_worker_and_makes_the_cluster_grow() -> None:
    receipts = list(runner.run_units(Sleeping(), [{"s": 1.0}] * 60, Resources(workers=(1, 2))))
    assert len(receipts) == 60
    nodes = [receipt["node"] for receipt in receipts]
    assert len(set(nodes[:3])) == 1
    assert len(set(nodes)) == 2
