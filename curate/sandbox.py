"""Runs functions in a child process that can be killed: decoding untrusted files must never cost more than the file.

The child is a fresh interpreter (spawned, never forked: a fork after decoder threads exist can deadlock), reused from call to call. A call
has a wall-clock limit and a limit on resident memory; a child that dies, hangs or grows too large is killed and the call is tried once more
in a new one. The tail of what the decoder wrote to its standard error comes along in the message.
"""

import importlib
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")
POLL_S = 0.1
START_S = 120.0
"""A child that has not imported its function after this long is taken for dead (a cold disk can be slow)."""


class SandboxError(Exception):
    """The call did not return a value. The message is one sentence; `raised` says that the function itself raised (trying again is no use)."""

    def __init__(self, message: str, raised: bool = False) -> None:
        super().__init__(message)
        self.raised = raised


class Sandbox:
    """One reusable child. Not thread-safe: one call at a time.

    Args:
        memory_mb: resident memory at which the child is killed.
        attempts: how often a call is tried whose child died, hung or grew too large.
    """

    def __init__(self, memory_mb: int = 4096, attempts: int = 2) -> None:
        self.memory_mb = memory_mb
        self.attempts = attempts
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._stderr: Any = None

    def call(self, function: Callable[..., T], *args: Any, wall_s: float) -> T:
        """`function(*args)` in the child; both must be picklable, the function importable.

        Raises SandboxError when the function raises (its own sentence), or when the child died, hung or grew too large in every attempt.
        """
        reason = ""
        for attempt in range(1, self.attempts + 1):
            try:
                return self._once(function, args, wall_s)
            except SandboxError as error:
                if error.raised:
                    raise
                reason = f"{error} (attempt {attempt} of {self.attempts})"
                self.close()
        raise SandboxError(reason)

    def close(self) -> None:
        """Kills the child, if there is one."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _once(self, function: Callable[..., T], args: tuple[Any, ...], wall_s: float) -> T:
        pipe, child = self._started()
        written = self._stderr.seek(0, os.SEEK_END)
        try:
            pipe.send_bytes(pickle.dumps((function.__module__, function.__qualname__, args)))
            kind, value = self._receive(pipe, child, START_S, written)
            if kind == "started":
                kind, value = self._receive(pipe, child, wall_s, written)
        except (EOFError, OSError) as error:
            code = child.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise SandboxError(f"the decoder process {how}{self._tail(written)}") from error
        if kind == "raised":
            raise SandboxError(value, raised=True)
        result: T = value
        return result

    def _receive(
        self, pipe: Connection, child: subprocess.Popen[bytes], limit_s: float, written: int
    ) -> tuple[str, Any]:
        """The child's next message. Raises SandboxError when it takes too long or grows too large, EOFError when it is gone."""
        deadline = time.monotonic() + limit_s
        while not pipe.poll(POLL_S):
            if time.monotonic() > deadline:
                raise SandboxError(f"the decoder took longer than {limit_s:.0f} s and was stopped{self._tail(written)}")
            if _resident_mb(child.pid) > self.memory_mb:
                raise SandboxError(
                    f"the decoder used more than {self.memory_mb} MB of memory and was stopped{self._tail(written)}"
                )
        message: tuple[str, Any] = pickle.loads(pipe.recv_bytes())
        return message

    def _started(self) -> tuple[Connection, subprocess.Popen[bytes]]:
        if self._child is not None and self._pipe is not None and self._child.poll() is None:
            return self._pipe, self._child
        self.close()
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child, closed with it
        self._child = subprocess.Popen(
            [sys.executable, "-c", "from curate.sandbox import serve; serve()", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)},
        )
        theirs.close()
        self._pipe = Connection(ours.detach())
        return self._pipe, self._child

    def _tail(self, written: int) -> str:
        """The last line the child wrote since this call began."""
        self._stderr.seek(written)
        lines = self._stderr.read()[-4000:].decode(errors="replace").strip().splitlines()
        return f"; it last said: {lines[-1].strip()[:200]}" if lines else ""


def _resident_mb(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


def serve() -> None:
    """The child: answers calls until its parent closes the pipe or dies."""
    pipe = Connection(int(sys.argv[1]))
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    while True:
        try:
            module, name, args = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            function: Any = importlib.import_module(module)
            for part in name.split("."):
                function = getattr(function, part)
            pipe.send_bytes(pickle.dumps(("started", None)))
            answer = ("returned", function(*args))
        except MemoryError:
            os._exit(137)
        except Exception as error:
            from curate.stage import one_sentence

            answer = ("raised", one_sentence(error))
        pipe.send_bytes(pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL))
