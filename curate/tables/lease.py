"""Holding a run directory, so that two runs do not work on it at once.

On a local disk it is a lock of the file system, which goes with its process. Object storage has no locks: there it is `RUN/lease.json`,
which the holder writes anew every few seconds. Whoever finds one watches it: if it changes, its holder is at work and the comer is refused; if
it does not for `STALE_S`, or was written by a process of this machine that is no more, it is taken over. No clocks are compared. A holder that
was taken over (its machine stood still for a while) finds another's name in the file at its next beat and stops.

What two holders could do to each other in between is little: parts are named by their keys, and hold the same rows whoever writes them.
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
"""The holder writes the lease anew this often: 17,000 puts a day. Ours."""
STALE_S = 20.0
"""A lease that has not changed for so long has no holder. Ours: four beats; after a kill on another machine the next run waits so long."""
SETTLE_S = 0.5
"""Of two that take a lease at the same moment the later one has it: it is looked at again after this time. Ours."""


class Lease:
    """The lease of one run directory on object storage, held by this process from `take` to `release`."""

    def __init__(self, root: str) -> None:
        self.root, self.where = root, store.join(root, LEASE)
        self.own: dict[str, Any] = {"id": secrets.token_hex(8), "beat": 0, **_this_process()}
        self.lost = False
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._go_on, daemon=True, name="lease")

    def take(self) -> None:
        """Takes it, from a holder that is no more if need be. Raises UsageError when somebody holds it."""
        found = store.get_json(self.where)
        if found is not None and not _is_over(found):
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
        """Raises RunError when another run has taken it over."""
        if self.lost:
            raise RunError(
                f"another rushes run has taken {self.root} over, for this one was not heard of for {STALE_S:.0f} s; what is done is kept"
            )

    def release(self) -> None:
        """Gives it back."""
        self._over.set()
        if self._beats.is_alive():
            self._beats.join()
        with contextlib.suppress(OSError, RunError):
            if not self.lost and self._is_own(store.get_json(self.where)):
                store.remove(self.where)

    def _is_own(self, found: dict[str, Any] | None) -> bool:
        return found is not None and found.get("id") == self.own["id"]

    def _go_on(self) -> None:
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(OSError, RunError):  # storage that is away for a while
                if not self._is_own(store.get_json(self.where)):
                    self.lost = True
                    return
                self.own["beat"] += 1
                store.put_json(self.where, self.own)


def _this_process() -> dict[str, Any]:
    """What tells this process from every other, here and elsewhere. Two containers of one machine may count the same pids."""
    with contextlib.suppress(OSError):
        boot, pids = (
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        )
        began = psutil.Process().create_time()
        return {"host": socket.gethostname(), "boot": boot, "pids": pids, "pid": os.getpid(), "began": began}
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _is_over(found: dict[str, Any]) -> bool:
    """Whether it was written by a process that is no more, as far as can be seen from here."""
    here = _this_process()
    if "boot" not in here or any(found.get(name) != here[name] for name in ("host", "boot", "pids")):
        return False
    try:
        return bool(psutil.Process(found["pid"]).create_time() != found["began"])
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def held(root: str, instead: str = "choose another --run") -> Iterator[Lease | None]:
    """Holds a run directory, or a folder of one. `instead` is what the second comer is told to do.

    Raises UsageError when another run is at work in it, RunError when nothing can be written there.
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
        raise RunError(f"nothing can be written in {root}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(refusal(root, instead)) from error
        yield None
    finally:
        os.close(handle)


def refusal(root: str, instead: str = "choose another --run") -> str:
    """What the second run is told."""
    return f"another rushes run is at work in {root}; wait for it, or {instead}"
