"""Submitting a pipeline as a Ray job, and running as one.

Three ways lead to the same run, in the directory where `ray start --head` was typed:

    rushes submit pipeline.yaml                         sets the authentication mode, uploads the directory, follows the log
    ray job submit --working-dir . -- ./pipeline.yaml   the file is executable; its first line runs `rushes run` on it
    ray job submit pipeline.yaml                        `pipeline.yaml` is also an installed command: curate/cli/launch.py

A job's working directory is a temporary copy that vanishes with the job. Relative paths of a pipeline therefore start, inside such a copy, at
the directory in which Ray was started on the head node. On a real cluster, give `run:` and `sources:` as absolute paths or URLs.
"""

import os
import shlex
import time
from pathlib import Path
from typing import Any

import psutil

from curate.errors import RunError, UsageError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
AGENT_S = 60.0
"""How long a head is waited for that answers but takes no jobs yet. Ours."""
NOT_UPLOADED = [
    ".git",
    ".venv*",
    "runs",
    "footage",
    "**/__pycache__",
    "**/.mypy_cache",
    "**/.ruff_cache",
    "**/.pytest_cache",
]


def home(directory: Path) -> Path:
    """Where relative paths of a pipeline in `directory` start: there, or where Ray was started when `directory` is a job's temporary copy."""
    if "working_dir_files" not in directory.parts or not os.environ.get("RAY_ADDRESS"):
        return directory
    return ray_directory() or directory


def ray_directory() -> Path | None:
    """The directory in which the Ray node above this process was started; None outside a Ray job."""
    for parent in psutil.Process().parents():
        try:
            if parent.name() == "raylet":
                return Path(parent.cwd())
        except psutil.Error:
            continue
    return None


def authenticate() -> None:
    """Ray switches token authentication on as soon as a token exists on the machine; the client must then ask for it."""
    token = (
        os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or (Path.home() / ".ray" / "auth_token").exists()
    )
    if token:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _submitted(client: Any, **what: Any) -> str:
    """Submits a job and returns its id. A head that has only just come up has no agent for jobs yet: it is asked again."""
    deadline = time.monotonic() + AGENT_S
    while True:
        try:
            return str(client.submit_job(**what))
        except RuntimeError as error:
            if "No available agent" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise RunError(
                    f"the Ray head takes no jobs ({AGENT_S:.0f} s long); where another Ray runs on its machine, "
                    "start the head with --dashboard-agent-listen-port=PORT, a free one"
                ) from error
        time.sleep(1.0)


def submit(pipeline: Path, arguments: list[str], address: str | None, follow: bool, say: Any = print) -> str:
    """Submits `rushes run PIPELINE ARGUMENTS` to a cluster and returns the job's id.

    Args:
        pipeline: the pipeline file; its directory is uploaded.
        arguments: further arguments of `rushes run`.
        address: of the cluster's job server; RAY_API_SERVER_ADDRESS or the local default otherwise.
        follow: whether to print the job's log until it ends.
        say: prints a line.

    Raises UsageError when no cluster answers and RunError when the job fails.
    """
    authenticate()
    where = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    from ray.job_submission import JobStatus, JobSubmissionClient

    try:
        client = JobSubmissionClient(where)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"no Ray cluster answers at {where} ({reason}); start one with  ray start --head") from error
    directory = pipeline.absolute().parent
    job = _submitted(
        client,
        entrypoint=shlex.join(["rushes", "run", pipeline.name, *arguments]),
        runtime_env={"working_dir": str(directory), "excludes": NOT_UPLOADED},
    )
    say(f"submitted {job}; its log:  ray job logs {job}")
    if not follow:
        return job
    shown = 0
    while True:
        status = client.get_job_status(job)
        log = client.get_job_logs(job)
        if log[shown:].strip():
            say(log[shown:].rstrip("\n"))
        shown = len(log)
        if status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED):
            break
        time.sleep(1.0)
    if status != JobStatus.SUCCEEDED:
        raise RunError(f"the job {job} ended as {status.value}; its log:  ray job logs {job}")
    return job
