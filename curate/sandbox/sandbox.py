"""Runs functions in a child process that can be killed: an untrusted file that crashes or hangs its decoder affects only itself.

The child (curate/sandbox/child.py) is a new interpreter, reused from call to call. It is spawned, never forked, because a fork can deadlock
once decoder threads exist. A call has a limit on wall-clock time and on memory. A child that dies, hangs or grows too large is killed with all
the processes it started, and the call is retried once in a new child. The error message includes the last line of the decoder's log.

The parent checks the child's resident memory every 20 ms. On Linux the child also has RLIMIT_DATA, a GiB and more higher because it counts
reserved memory too; a child that allocates 10 GB/s is stopped within 200 MB.

The child has no network (unless the source is remote), cannot write outside a scratch directory where the kernel supports that
(curate/sandbox/confine.py), and does not get the secrets of the environment. Its answers hold values, never code (curate/sandbox/answers.py).
"""

import fcntl
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil

from curate.errors import printable
from curate.sandbox import answers
from curate.sandbox.child import OUT_OF_MEMORY, START_S
from curate.sandbox.confine import scrubbed

T = TypeVar("T")
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A worker has one core, where more threads would only wait for each other. Values that the user has set take precedence."""
POLL_S = 0.02
HEADROOM_MB = 1024 + 32 * (os.cpu_count() or 1)
"""Memory that a child may reserve beyond `memory_mb`: malloc arenas, and stacks of thread pools with one thread a core. Ours;
measured on two cores: 190 MB with all imports of a scan, 390 MB with torch."""
LOG_BYTES = 4 * 2**20
"""When the decoder's log grows larger than this, it is emptied. Ours."""


class SandboxError(Exception):
    """The call returned no value. The message is one sentence. `raised`: the function itself raised, so a retry is useless."""

    def __init__(self, message: str, raised: bool = False) -> None:
        super().__init__(message)
        self.raised = raised


class Sandbox:
    """One reusable child process. Not thread-safe: one call at a time.

    Args:
        memory_mb: resident memory at which the child is killed. Processes that it started are killed with it, but their memory is not counted.
        attempts: maximum number of attempts when the child dies, hangs or grows too large.
    """

    def __init__(self, memory_mb: int = 4096, attempts: int = 2) -> None:
        self.memory_mb = memory_mb
        self.attempts = attempts
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._stderr: Any = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._online = False

    def call(self, function: Callable[..., T], *args: Any, wall_s: float, online: bool = False) -> T:
        """Returns `function(*args)`, computed in the child. The function must be importable, the arguments picklable, and the result one of the
        values of curate/sandbox/answers.py.

        `online` gives the child the network and the whole environment, for a source that is not a local file. A change of `online` starts a
        new child.

        Raises SandboxError when the function raises (with its message, and the last line of the decoder's log if the exception has a true
        attribute `log`), or when the child died, hung or grew too large in every attempt.
        """
        reason = ""
        for attempt in range(1, self.attempts + 1):
            try:
                return self._once(function, args, wall_s, online)
            except SandboxError as error:
                if error.raised:
                    raise
                reason = f"{error} (attempt {attempt} of {self.attempts})"
        raise SandboxError(reason)

    def close(self) -> None:
        """Kills the child, if there is one, and all processes that it started."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._child is not None:
            if self._child.returncode is None:  # not reaped yet, so its process ID cannot belong to another process
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._child = None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None
        if self._scratch is not None:
            with suppress(OSError):  # undeletable files are left to the system's clean-up
                self._scratch.cleanup()
            self._scratch = None

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _once(self, function: Callable[..., T], args: tuple[Any, ...], wall_s: float, online: bool) -> T:
        pipe, child = self._started(online)
        os.ftruncate(self._stderr.fileno(), 0)
        try:
            pipe.send_bytes(pickle.dumps((function.__module__, function.__qualname__, args, wall_s)))
            kind, value = self._receive(pipe, child, START_S)
            if kind == "started":
                kind, value = self._receive(pipe, child, wall_s)
        except (EOFError, OSError) as error:
            reason = self._exit_reason(child, wall_s)
            self.close()
            raise SandboxError(reason) from error
        except BaseException:  # a late answer must not be read as the answer of the next call
            self.close()
            raise
        if kind == "raised":
            raise SandboxError(value, raised=True)
        if kind == "failed":
            raise SandboxError(f"{value}{self._tail()}", raised=True)
        result: T = value
        return result

    def _receive(self, pipe: Connection, child: subprocess.Popen[bytes], limit_s: float) -> tuple[str, Any]:
        """The child's next message. Raises SandboxError when the child takes too long or grows too large, EOFError when it has ended."""
        deadline = time.monotonic() + limit_s
        process = psutil.Process(child.pid)
        log = self._stderr.fileno()
        while not pipe.poll(POLL_S):
            if time.monotonic() > deadline:
                raise SandboxError(f"the decoder took longer than {limit_s:.0f} s and was stopped{self._tail()}")
            if _resident_mb(process) > self.memory_mb:
                raise SandboxError(f"{self._too_large()}{self._tail()}")
            if os.fstat(log).st_size > LOG_BYTES:
                os.ftruncate(log, 0)
            if _is_dead(child) and not pipe.poll():  # a process that it started may hold the other end open
                raise EOFError
        try:
            kind, value = answers.decode(pipe.recv_bytes(self.memory_mb * 2**20))
        except (answers.AnswerError, TypeError, ValueError) as error:
            raise SandboxError("the decoder returned a malformed answer") from error
        return (kind, printable(value)) if kind in ("raised", "failed") else (kind, value)

    def _started(self, online: bool) -> tuple[Connection, subprocess.Popen[bytes]]:
        if self._child is not None and self._pipe is not None and self._online == online and not _is_dead(self._child):
            return self._pipe, self._child
        self.close()
        self._online = online
        self._scratch = tempfile.TemporaryDirectory(prefix="rushes-sandbox-", ignore_cleanup_errors=True)
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child, closed with it
        # The child appends, because the parent truncates the file while the child writes.
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, fcntl.fcntl(self._stderr, fcntl.F_GETFL) | os.O_APPEND)
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from curate.sandbox.child import serve; serve()",
                str(theirs.fileno()),
                str(self.memory_mb + HEADROOM_MB),
                self._scratch.name,
                "online" if online else "offline",
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            env={
                **ONE_THREAD,
                **(os.environ if online else scrubbed(os.environ)),
                "PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path),
                "TMPDIR": self._scratch.name,
            },
            start_new_session=True,
        )
        theirs.close()
        self._pipe = Connection(ours.detach())
        return self._pipe, self._child

    def _exit_reason(self, child: subprocess.Popen[bytes], wall_s: float) -> str:
        """Waits for the end of the child, kills it if necessary, and returns the reason in one sentence."""
        tail = self._tail()
        for _ in range(500):
            if _is_dead(child):
                break
            time.sleep(0.01)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
        if code == OUT_OF_MEMORY:
            return f"{self._too_large()}{tail}"
        if code == -signal.SIGALRM:
            return f"the decoder took longer than {wall_s:.0f} s and was stopped{tail}"
        if code >= 0:
            return f"the decoder process ended with exit code {code}{tail}"
        hint = " (as the system does when it is short of memory)" if code == -signal.SIGKILL else ""
        return f"the decoder process was killed by signal {-code}{hint}{tail}"

    def _too_large(self) -> str:
        return f"the decoder used more than {self.memory_mb} MB of memory and was stopped"

    def _tail(self) -> str:
        """The last line that the child logged during this call, as a clause for the message."""
        log = self._stderr.fileno()
        written = os.pread(log, 4000, max(0, os.fstat(log).st_size - 4000)).decode(errors="replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", written) if line.strip()]
        while lines and lines[-1].startswith("Last message repeated"):
            lines.pop()
        # FFmpeg's "[h264 @ 0x5581c0]": the address differs from run to run.
        return f"; its last log line: {printable(re.sub(r' @ 0x[0-9a-f]+', '', lines[-1])[:200])}" if lines else ""


def _resident_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


def _is_dead(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child has ended. Does not reap it: until then its process group ID cannot be reused."""
    if child.returncode is not None:
        return True
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
