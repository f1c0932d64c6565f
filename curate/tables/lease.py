"""The lease of a run directory, so that two runs do not write to it at once.

On a local disk it is a lock of the file system, released when its process ends. Object storage has no locks: there it is `RUN/lease.json`,
which the holder rewrites every few seconds. A second run watches the file. If it changes, the holder is alive and the second run is refused. If
it does not change for `STALE_S`, or its holder was a process of this machine that has ended, the second run takes the lease over. Clocks of
machines are not compared. A holder that was suspended and lost its lease finds another id in the file at its next beat and stops.

Two holders for a short time do little damage: parts are named by their keys, and hold the same rows whichever process writes them.
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from curate.errors import RunError, UsageError
from curate.tables import store

LEASE = "lease.json"
BEAT_S = 5.0
"""Interval between two beats of the holder, in seconds: 17,000 puts a day. Ours."""
STALE_S = 20.0
"""A lease without a change for this many seconds has no holder. Ours: four beats. After a kill elsewhere the next run waits this long."""
SETTLE_S = 0.5
"""Of two runs that take a lease at the same moment the later write wins: the file is read again after this many seconds. Ours."""


class Lease:
    """The lease of one run directory on object storage, held by this process from `take` to `release`."""

    def __init__(self, root: str) -> None:
        self.root, self.where = root, store.join(root, LEASE)
        self.own: dict[str, Any] = {"id": secrets.token_hex(8), "beat": 0, **_this_process()}
        self.lost = False
        self._released = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True, name="lease")

    def take(self) -> None:
        """Takes the lease, also from a holder that has ended. Raises UsageError when another run holds it."""
        found = store.get_json(self.where)
        if found is not None and not _has_ended(found):
            deadline = time.monotonic() + STALE_S
            while time.monotonic() < deadline and found is not None:
                time.sleep(BEAT_S / 5)
                now = store.get_json(self.where)
                if now is not None and now != found:
                    raise UsageError(refusal(self.root))
                found = now
        store.put_json(self.where, self.own)
        time.sleep(SETTLE_S)
        if not self._is_own(store.get_json(self.where)):
            raise UsageError(refusal(self.root))
        self._beats.start()

    def check(self) -> None:
        """Raises RunError when another run has taken the lease over."""
        if self.lost:
            raise RunError(
                f"another rushes run has taken {self.root} over, because this one did not respond for {STALE_S:.0f} s; finished work is kept"
            )

    def release(self) -> None:
        """Releases the lease."""
        self._released.set()
        if self._beats.is_alive():
            self._beats.join()
        with contextlib.suppress(OSError, RunError):
            if not self.lost and self._is_own(store.get_json(self.where)):
                store.remove(self.where)

    def _is_own(self, found: dict[str, Any] | None) -> bool:
        return found is not None and found.get("id") == self.own["id"]

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            with contextlib.suppress(OSError, RunError):  # storage is temporarily unavailable
                if not self._is_own(store.get_json(self.where)):
                    self.lost = True
                    return
                self.own["beat"] += 1
                store.put_json(self.where, self.own)


def _this_process() -> dict[str, Any]:
    """What identifies this process on any machine. Two containers of one machine may have equal pids, so their namespace is included."""
    with contextlib.suppress(OSError):
        boot, pids = (
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        )
        began = psutil.Process().create_time()
        return {"host": socket.gethostname(), "boot": boot, "pids": pids, "pid": os.getpid(), "began": began}
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _has_ended(found: dict[str, Any]) -> bool:
    """Whether the lease was written by a process of this machine that has ended."""
    here = _this_process()
    if "boot" not in here or any(found.get(name) != here[name] for name in ("host", "boot", "pids")):
        return False
    try:
        return bool(psutil.Process(found["pid"]).create_time() != found["began"])
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def held(root: str, instead: str = "choose another --run") -> Iterator[Lease | None]:
    """Holds the lease of a run directory, or of a folder in it.

    Args:
        root: The directory or URL.
        instead: What a second run is advised to do.

    Raises UsageError when another run holds it, RunError when the directory is not writable.
    """
    if not store.is_local(root):
        lease = Lease(root)
        lease.take()
        try:
            yield lease
        finally:
            lease.release()
        return
    try:
        import fcntl
    except ImportError:  # Windows
        yield None
        return
    directory = store.local_path(root)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"{root} is not writable: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(refusal(root, instead)) from error
        yield None
    finally:
        os.close(handle)


def refusal(root: str, instead: str = "choose another --run") -> str:
    """The error of a second run."""
    return f"another rushes run is at work in {root}; wait for it, or {instead}"
