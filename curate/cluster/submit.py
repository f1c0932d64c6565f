"""Submitting a pipeline as a Ray job, and running as one.

Three ways lead to the same run, in the directory where `ray start --head` was typed:

    rushes submit pipeline.yaml                         sets the authentication mode, uploads the directory, follows the log
    ray job submit --working-dir . -- ./pipeline.yaml   the file is executable; its first line runs `rushes run` on it
    ray job submit pipeline.yaml                        `pipeline.yaml` is also an installed command: curate/cli/launch.py

A job's working directory is a temporary copy that is deleted with the job. Relative paths of a pipeline therefore start, inside such a copy, at
the directory in which Ray was started on the head node. On a real cluster, give `run:` and `sources:` as absolute paths or URLs.

A submitted job carries metadata: its run directory, and a digest of the pipeline file and options. By the run directory a second
`rushes submit` finds the job that is still active and reattaches to it; two jobs in one run directory would exclude each other.
"""

import hashlib
import os
import posixpath
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from curate.errors import RunError, UsageError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
AGENT_S = 60.0
"""Timeout for a head that answers but takes no jobs yet. Ours."""
POLL_S = 1.0
"""Seconds between two reads of a job's log."""
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
RUN_KEY, DIGEST_KEY = "rushes_run", "rushes_digest"
"""Keys of a job's metadata."""
ACTIVE = ("PENDING", "RUNNING")
"""States of a job that has not ended."""


def home(directory: Path) -> Path:
    """The directory at which relative paths of a pipeline in `directory` start: `directory` itself, or, in a job's temporary copy, the directory
    in which Ray was started."""
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
    """Sets RAY_AUTH_MODE when a token exists on this machine: Ray then enables token authentication, and a client must present the token."""
    token = (
        os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or (Path.home() / ".ray" / "auth_token").exists()
    )
    if token:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@dataclass(frozen=True)
class Job:
    """A job on a cluster."""

    client: Any
    """Ray's JobSubmissionClient."""
    address: str
    id: str
    is_new: bool = True
    """False when an earlier command submitted it."""

    def command(self, verb: str) -> str:
        """The `ray job` command for this job, such as `logs --follow` or `stop`, ready to be copied."""
        mode = "RAY_AUTH_MODE=token " if os.environ.get("RAY_AUTH_MODE") == "token" else ""
        return f"{mode}ray job {verb} --address {shlex.quote(self.address)} {self.id}"


def submit(pipeline: Path, arguments: Sequence[str], run: str, address: str | None) -> Job:
    """Submits `rushes run PIPELINE ARGUMENTS` to a cluster, or finds the active job of an earlier, identical command.

    Args:
        pipeline: the pipeline file; its directory is uploaded.
        arguments: further arguments of `rushes run`.
        run: the run directory, as the job will read it.
        address: of the cluster's job server; RAY_API_SERVER_ADDRESS or the local default otherwise.

    Raises UsageError when no cluster answers, or when a different job is active in the run directory; RunError when the head takes no jobs.
    """
    authenticate()
    where = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    client = _client(where)
    metadata = {RUN_KEY: _normal(run), DIGEST_KEY: _digest(pipeline, arguments)}
    if (active := _active(client, where, metadata[RUN_KEY])) is not None:
        job, digest = active
        if digest != metadata[DIGEST_KEY]:
            raise UsageError(
                f"job {job.id} is active in the run directory {run}, with another pipeline file or other options; stop it:  "
                f"{job.command('stop')}"
            )
        return job
    job_id = _submit(
        client,
        entrypoint=shlex.join(["rushes", "run", pipeline.name, *arguments]),
        runtime_env={"working_dir": str(pipeline.absolute().parent), "excludes": NOT_UPLOADED},
        metadata=metadata,
    )
    return Job(client, where, job_id)


def follow(job: Job, log: Callable[[str], Any] = print) -> None:
    """Prints a job's log until the job ends. Raises RunError when it does not succeed."""
    printed = 0
    while True:
        status = str(getattr(job.client.get_job_status(job.id), "value", ""))
        text = job.client.get_job_logs(job.id)
        if text[printed:].strip():
            log(text[printed:].rstrip("\n"))
        printed = len(text)
        if status not in ACTIVE:
            break
        time.sleep(POLL_S)
    if status != "SUCCEEDED":
        raise RunError(f"the job {job.id} ended as {status}; its log:  {job.command('logs')}")


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"no Ray cluster answers at {address} ({reason}); start one with  ray start --head") from error


def _submit(client: Any, **job: Any) -> str:
    """Submits a job and returns its id. Retries while a head that has just started has no job agent yet."""
    deadline = time.monotonic() + AGENT_S
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:
            if "No available agent" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise RunError(
                    f"the Ray head has taken no job for {AGENT_S:.0f} s; if another Ray runs on its machine, "
                    "start the head with --dashboard-agent-listen-port=PORT, a free port"
                ) from error
        time.sleep(1.0)


def _active(client: Any, address: str, run: str) -> tuple[Job, str] | None:
    """The active job in a run directory with its digest; None when no job is active."""
    for details in client.list_jobs():
        metadata = details.metadata or {}
        if (
            metadata.get(RUN_KEY) == run
            and str(getattr(details.status, "value", details.status)) in ACTIVE
            and details.submission_id
        ):
            return Job(client, address, str(details.submission_id), is_new=False), str(metadata.get(DIGEST_KEY))
    return None


def _normal(run: str) -> str:
    """One spelling of a run directory. A relative one starts where Ray was started, whichever directory is uploaded."""
    return run.rstrip("/") if "://" in run else posixpath.normpath(run)


def _digest(pipeline: Path, arguments: Sequence[str]) -> str:
    """Of the pipeline file and the options: equal for the same command."""
    return hashlib.sha256(b"\0".join([pipeline.read_bytes(), *(word.encode() for word in arguments)])).hexdigest()
