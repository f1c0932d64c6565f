"""Ray jobs on a real local head, with token authentication off and on: three ways to submit, one result."""

import contextlib
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from curate.cluster import submit
from curate.dataset.run import Run
from curate.progress import cost
from curate.progress.status import counts
from tests.project import environment, moving
from tests.servers import free_port
from tests.videos import write_video

PIPELINE = """\
#!/usr/bin/env -S rushes run
run: runs/job
sources: footage
scan: {min_clip_s: 1.0, max_clip_s: 4.0}
measure:
  - use: filters.Motion
"""

pytestmark = pytest.mark.ray_cluster


@dataclass
class Head:
    """A Ray head started in the project's directory."""

    directory: Path
    env: dict[str, str]
    address: str
    metrics: str
    """Where Prometheus would look."""
    process: subprocess.Popen[bytes]

    def exported(self, run: Path, name: str) -> dict[str, float]:
        """A metric of the last job, by stage."""
        with urllib.request.urlopen(self.metrics, timeout=30) as answer:
            lines = re.findall(rf"^{name}{{(.*)}} (\S+)$", answer.read().decode(), flags=re.M)
        samples = [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in lines]
        last = max((labels["WorkerId"] for labels, _ in samples), default="")
        return {
            labels["stage"]: value
            for labels, value in samples
            if (labels["run"], labels["WorkerId"]) == (str(run), last)
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command; once more when the head has only just come up and has no agent for jobs yet."""
        deadline = time.monotonic() + 120
        # `rushes submit` asks for the token by itself.
        env = {key: value for key, value in self.env.items() if key != "RAY_AUTH_MODE" or command[0] != "rushes"}
        while True:
            done = subprocess.run(
                command, cwd=self.directory, env=env, capture_output=True, text=True, timeout=240, check=False
            )
            assert self.process.poll() is None, f"the head has ended:\n{(self.directory / 'ray.log').read_text()}"
            if "No available agent" not in done.stderr or time.monotonic() > deadline:
                return done
            time.sleep(1)


@pytest.fixture(scope="module", params=[pytest.param("off", marks=pytest.mark.slow), "token"])
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """`ray start --head` typed in a project's directory, with and without a token on the machine."""
    directory = tmp_path_factory.mktemp(f"cluster-{request.param}")
    write_video_to = directory / "footage"
    write_video_to.mkdir()
    write_video(write_video_to / "a.mp4", moving(80, 1), 25, gop=25)
    (directory / "pipeline.yaml").write_text(PIPELINE)
    (directory / "pipeline.yaml").chmod(0o755)
    home = directory / "home"
    home.mkdir()
    env = {key: value for key, value in environment().items() if not key.startswith("RAY_")}
    env |= {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    if request.param == "token":
        subprocess.run(["ray", "get-auth-token", "--generate"], env=env, capture_output=True, check=True, timeout=60)
        env["RAY_AUTH_MODE"] = "token"
    port, dashboard, agent, metrics = (
        free_port() for _ in range(4)
    )  # the tests beside this one have a Ray of their own
    where = [
        "--node-ip-address=127.0.0.1",
        f"--port={port}",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--metrics-export-port={metrics}",
        "--dashboard-host=127.0.0.1",
        "--num-cpus=2",
    ]
    with (directory / "ray.log").open("w") as log:
        process = subprocess.Popen(
            ["ray", "start", "--head", "--block", *where],
            cwd=directory,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        env |= {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        found = Head(directory, env, f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{metrics}/metrics", process)
        try:
            deadline = time.monotonic() + 120
            while found.run("ray", "job", "list").returncode:
                assert time.monotonic() < deadline, "the head did not come up"
                time.sleep(1)
            yield found
        finally:
            # Ray itself takes half a minute to end gracefully.
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()


WAYS = {
    "ray job submit pipeline.yaml": ["ray", "job", "submit", "pipeline.yaml"],
    "ray job submit --working-dir": ["ray", "job", "submit", "--working-dir", ".", "--", "./pipeline.yaml"],
    "rushes submit": ["rushes", "submit", "pipeline.yaml"],
}


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(way, id=name, marks=pytest.mark.slow if "--working-dir" in name else ())
        for name, way in WAYS.items()
    ],
)
def test_a_job_runs_the_pipeline_into_the_projects_directory(head: Head, command: list[str]) -> None:
    shutil.rmtree(head.directory / "runs", ignore_errors=True)
    done = head.run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 sources (0 failed), 1 clips (0 failed), 1 kept in 1 shard" in done.stdout
    status = counts(Run.open(head.directory / "runs" / "job"))
    assert status["shards"]["clips"] == 1
    assert "motion: done, 1 of 1 clips" in done.stdout, "a job prints plain lines"
    run = head.directory / "runs" / "job"
    rows = head.exported(run, "ray_rushes_rows_total")
    assert rows == {"sources": 1, "clips": 1, "motion": 1, "shards": 1}, "Ray's agent exports what the tables hold"
    queue = head.exported(run, "ray_rushes_queue")  # Ray forgets gauges of steps that ended 20 s ago
    assert queue == dict.fromkeys(queue, 0)
    assert "shards" in queue
    spent = cost.read(str(run))
    busy = head.exported(run, "ray_rushes_busy_seconds_total")
    assert busy == pytest.approx({name: step.busy_s for name, step in spent.items()})
    assert head.exported(run, "ray_rushes_errors_total") == {}


def test_a_job_that_fails_is_a_failed_command(head: Head) -> None:
    done = head.run("rushes", "submit", "pipeline.yaml", "--run", "runs/none", "--sources", "nosuch")
    assert done.returncode == 1
    assert "there is no file or directory 'nosuch'" in done.stdout
    assert "ended as FAILED" in done.stderr


def test_the_launcher_without_a_pipeline_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        ["pipeline.yaml"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "there is no pipeline.yaml" in done.stderr


def test_paths_start_at_the_file_outside_a_job(tmp_path: Path) -> None:
    assert submit.home(tmp_path) == tmp_path
