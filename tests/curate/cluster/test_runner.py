"""Ray as a run starts it."""

import subprocess

import psutil
import pytest

from curate.cluster import runner


@pytest.mark.ray_cluster
@pytest.mark.filterwarnings("ignore")  # Ray's own warnings at start
def test_a_ray_start_that_times_out_is_retried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    true, asked = services.get_node, []

    bystander: list[subprocess.Popen[bytes]] = []

    def late(*arguments):
        asked.append(psutil.Process().children(recursive=True))
        if len(asked) == 1:
            bystander.append(subprocess.Popen(["sleep", "600"]))
            raise Exception("The current node timed out during startup.")
        return true(*arguments)

    monkeypatch.setattr(services, "get_node", late)
    runner.start()
    try:
        import ray

        assert ray.get(ray.remote(lambda: 1 + 1).remote()) == 2
        assert asked[0]
        assert bystander[0].poll() is None
        assert not [
            process for process in asked[0] if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]
    finally:
        runner.stop()
        for process in bystander:
            process.kill()
            process.wait()
