"""`rushes submit` finds the active job of the same command. A fake client stands for the cluster."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from curate.cli.common import Stopped
from curate.cluster import submit
from curate.errors import RunError, UsageError
from tests.curate.cli.conftest import Cli, cli

__all__ = ["cli"]


class FakeClient:
    """The methods of Ray's JobSubmissionClient that `rushes submit` calls."""

    def __init__(self) -> None:
        self.jobs: list[SimpleNamespace] = []
        self.interrupt = False

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> str:
        self.jobs.append(SimpleNamespace(submission_id=f"job_{len(self.jobs)}", status="RUNNING", metadata=metadata))
        return str(self.jobs[-1].submission_id)

    def list_jobs(self) -> list[SimpleNamespace]:
        driver = SimpleNamespace(submission_id=None, status="RUNNING", metadata=None)  # Ray lists drivers, too
        return [driver, *self.jobs]

    def get_job_status(self, job: str) -> SimpleNamespace:
        if self.interrupt:
            raise Stopped(2)
        return SimpleNamespace(value=self.jobs[-1].status)

    def get_job_logs(self, job: str) -> str:
        return "scan: 3 of 3\n"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient()
    monkeypatch.setattr(submit, "_client", lambda address: made)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(submit, "authenticate", lambda: None)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text("run: runs/job\nsources: footage\nmeasure:\n  - use: filters.Motion\n")
    return tmp_path


def test_ctrl_c_detaches_and_the_same_command_reattaches(client: FakeClient, folder: Path, cli: Cli) -> None:
    client.interrupt = True
    done = cli("submit", "--address", "http://head:8265", cwd=folder)
    assert done.code == 130
    assert "submitted job_0; its log:  ray job logs --address http://head:8265 job_0" in done.out
    assert "detached; job job_0 is still running" in done.out
    assert "ray job stop --address http://head:8265 job_0" in done.out

    client.interrupt = False
    client.jobs[0].status = "PENDING"
    again = cli("submit", "--address", "http://head:8265", "--no-follow", cwd=folder)
    assert again.code == 0
    assert "reattached to job_0" in again.out
    assert len(client.jobs) == 1

    client.jobs[0].status = "SUCCEEDED"
    assert "submitted job_1" in cli("submit", "--no-follow", cwd=folder).out


@pytest.mark.parametrize("change", ["option", "file"])
def test_a_different_command_in_the_same_run_directory_is_refused(
    client: FakeClient, folder: Path, cli: Cli, change: str
) -> None:
    assert cli("submit", "--no-follow", cwd=folder).code == 0
    if change == "file":
        with (folder / "pipeline.yaml").open("a") as file:
            file.write("# edited\n")
    done = cli("submit", *(["--set", "scan.max_clip_s=9"] if change == "option" else []), cwd=folder)
    assert done.code == 2
    assert "job job_0 is active in the run directory runs/job" in done.err
    assert "ray job stop" in done.err
    assert cli("submit", "--no-follow", "--run", "runs/other", cwd=folder).code == 0


def test_a_failed_job_is_a_failed_command(client: FakeClient, folder: Path) -> None:
    job = submit.submit(folder / "pipeline.yaml", [], "runs/job", "http://head:8265")
    client.jobs[0].status = "FAILED"
    lines: list[str] = []
    with pytest.raises(RunError, match="ended as FAILED; its log:  ray job logs --address http://head:8265 job_0"):
        submit.follow(job, lines.append)
    assert lines == ["scan: 3 of 3"]


def test_no_cluster_is_wrong_usage(folder: Path) -> None:
    with pytest.raises(UsageError, match="no Ray cluster answers"):
        submit.submit(folder / "pipeline.yaml", [], "runs/job", "http://127.0.0.1:9")
