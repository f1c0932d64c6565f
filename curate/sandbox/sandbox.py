"""Runs functions in a child process that can be killed: decoding untrusted files must never cost more than the file.

The child is a fresh interpreter (spawned, never forked: a fork after decoder threads exist can deadlock), reused from call to call. A call
has a wall-clock limit and a limit on memory; a child that dies, hangs or grows too large is killed with all it started, and the call is
tried once more in a new one. The last words of the decoder on its standard error come along in the message.

Memory is watched from outside (resident, every 20 ms) and, on Linux, bounded from inside (RLIMIT_DATA, a GiB and more higher, since reserved
memory counts there too): something that takes 10 GB/s is stopped within 200 MB. A child whose parent died ends within a second, or, hanging in
machine code, by its own alarm.

The child gives up the network (unless the source lies there) and writing outside a scratch directory, where the kernel allows it
(curate/sandbox/confine.py), and does not get the secrets of the environment. Its answers hold values, never code (curate/sandbox/answers.py).
"""

import fcntl
import importlib
import os
import pickle
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil

from curate.errors import printable
from curate.sandbox import answers
from curate.sandbox.confine import confine, scrubbed

T = TypeVar("T")
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A worker has one core; more threads would wait for each other in loops. What the user has set counts more."""
POLL_S = 0.02
START_S = 120.0
"""A child that has not imported its function after this long is taken for dead (a cold disk can be slow)."""


HEADROOM_MB = 1024 + 32 * (os.cpu_count() or 1)
"""What a child may reserve beyond the memory it may use: arenas of malloc, and the stacks of thread pools, one thread a core each. Ours;
measured on two cores: 190 MB with all that a scan imports, 390 MB with torch."""
LOG_BYTES = 4 * 2**20
"""A decoder that writes more than this has its log cut off at the front. Ours."""
OUT_OF_MEMORY = 137
"""Exit code of a child that was refused memory."""


class SandboxError(Exception):
    """The call did not return a value. The message is one sentence; `raised` says that the function itself raised (trying again is no use)."""

    def __init__(self, message: str, raised: bool = False) -> None:
        super().__init__(message)
        self.raised = raised


class Sandbox:
    """One reusable child. Not thread-safe: one call at a time.

    Args:
        memory_mb: resident memory at which the child is killed. What it started itself is killed with it, but not counted.
        attempts: how often a call is tried whose child died, hung or grew too large.
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
        """`function(*args)` in the child; both must be picklable, the function importable, its answer plain (curate/sandbox/answers.py).

        `online` leaves the child the network and the whole environment, for a source that is not a local file. A call of the other kind than
        the last one begins a new child.

        Raises SandboxError when the function raises (its own sentence, and the decoder's last words if the exception has a true attribute
        `log`), or when the child died, hung or grew too large in every attempt.
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
        """Kills the child, if there is one, and what it started."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._child is not None:
            if self._child.returncode is None:  # not reaped yet: its number is still its own
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._child = None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None
        if self._scratch is not None:
            with suppress(OSError):  # full of what cannot be removed: the system's own tidying up is for that
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
            reason = self._how_it_ended(child, wall_s)
            self.close()
            raise SandboxError(reason) from error
        except BaseException:  # an answer that comes late must not be taken for that of the next call
            self.close()
            raise
        if kind == "raised":
            raise SandboxError(value, raised=True)
        if kind == "failed":
            raise SandboxError(f"{value}{self._tail()}", raised=True)
        result: T = value
        return result

    def _receive(self, pipe: Connection, child: subprocess.Popen[bytes], limit_s: float) -> tuple[str, Any]:
        """The child's next message. Raises SandboxError when it takes too long or grows too large, EOFError when it is gone."""
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
            if _is_dead(child) and not pipe.poll():  # something that it started still holds the other end
                raise EOFError
        try:
            kind, value = answers.decode(pipe.recv_bytes(self.memory_mb * 2**20))
        except (answers.AnswerError, TypeError, ValueError) as error:
            raise SandboxError("the decoder gave an answer that is none") from error
        return (kind, printable(value)) if kind in ("raised", "failed") else (kind, value)

    def _started(self, online: bool) -> tuple[Connection, subprocess.Popen[bytes]]:
        if self._child is not None and self._pipe is not None and self._online == online and not _is_dead(self._child):
            return self._pipe, self._child
        self.close()
        self._online = online
        self._scratch = tempfile.TemporaryDirectory(prefix="rushes-sandbox-", ignore_cleanup_errors=True)
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child, closed with it
        # The child writes at the end, wherever that is: the file is cut off while it writes.
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, fcntl.fcntl(self._stderr, fcntl.F_GETFL) | os.O_APPEND)
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from curate.sandbox.sandbox import serve; serve()",
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

    def _how_it_ended(self, child: subprocess.Popen[bytes], wall_s: float) -> str:
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
        """The last line the child wrote since this call began."""
        log = self._stderr.fileno()
        written = os.pread(log, 4000, max(0, os.fstat(log).st_size - 4000)).decode(errors="replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", written) if line.strip()]
        while lines and lines[-1].startswith("Last message repeated"):
            lines.pop()
        # FFmpeg's "[h264 @ 0x5581c0]": the address would differ from run to run.
        return f"; it last said: {printable(re.sub(r' @ 0x[0-9a-f]+', '', lines[-1])[:200])}" if lines else ""


def _resident_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


def _is_dead(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended, without reaping it: until then its process group cannot become another's."""
    if child.returncode is not None:
        return True
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def serve() -> None:
    """The child: answers calls until its parent closes the pipe or dies."""
    pipe = Connection(int(sys.argv[1]))
    parent = os.getppid()
    confine(Path(sys.argv[3]), sys.argv[4] == "online")

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _bound_memory(int(sys.argv[2]))
    from curate.video.container import log_to_stderr

    log_to_stderr()
    while True:
        try:
            request = pipe.recv_bytes()
        except EOFError:
            return
        # The parent stops a call that is late; this is for a child that hangs where its thread above cannot run.
        signal.alarm(int(START_S) + 60)
        try:
            module, name, args, wall_s = pickle.loads(request)
            function: Any = importlib.import_module(module)
            for part in name.split("."):
                function = getattr(function, part)
            pipe.send_bytes(answers.encode(["started", None]))
            signal.alarm(int(wall_s) + 60)
            answer = answers.encode(["returned", function(*args)])
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:
            from curate.stages.stage import one_sentence

            kind = "failed" if getattr(error, "log", False) else "raised"
            answer = answers.encode([kind, one_sentence(error)])
        pipe.send_bytes(answer)
        signal.alarm(0)


def _bound_memory(limit_mb: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit_mb * 2**20
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
