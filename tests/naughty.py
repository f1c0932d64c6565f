"""Functions that crash, hang or eat memory in a sandbox, and a decoder that fails on certain files."""

import importlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from curate.cuts.cascade import Cascade
from curate.cuts.signals import Small
from curate.scan import scan
from curate.video.open import Frame, Reader, VideoError
from tests.awkward import MISBEHAVIOUR
from tests.videos import read_number


def double(x: int) -> int:
    return 2 * x


def double_slowly(value: int) -> int:
    time.sleep(1.0)
    return 2 * value


def process_id() -> int:
    return os.getpid()


def refuse() -> None:
    raise ValueError("this is not a video")


def segfault() -> None:
    print("about to read a bad address", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def segfault_in(process: int) -> str:
    """Crashes in the given process, not in others."""
    if os.getpid() == process:
        os.kill(process, signal.SIGSEGV)
    return "survived"


def hang() -> None:
    time.sleep(600)


def eat_memory() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(4096)) * (1 << 14))
        time.sleep(0.02)


def eat_memory_at_once() -> None:
    """Allocates as fast as possible until it is stopped."""
    hoard = []
    while True:
        hoard.append(np.ones(64 << 20, np.uint8))


def chatter(n_megabytes: int) -> int:
    """Logs many megabytes; returns the size of the log at the end."""
    line = b"the same complaint again, with an address [h264 @ 0x5581c0ffee]\n"
    for _ in range(n_megabytes):
        os.write(2, line * (2**20 // len(line)))
        time.sleep(0.01)
    os.write(2, b"[h264 @ 0x5581c0ffee] the final line\nLast message repeated 3 times\n")
    return os.fstat(2).st_size


class LoggedError(ValueError):
    """An exception whose message needs the last line of the decoder's log."""

    log = True


def complain() -> None:
    print("[mov @ 0x55aa] moov atom not found", file=sys.stderr, flush=True)
    raise LoggedError("not a video")


def large(n_bytes: int) -> bytes:
    return bytes(n_bytes)


def unpicklable() -> Any:
    return lambda: None


def leave_a_child_behind(then: str) -> int:
    """Starts a process that inherits all descriptors, then crashes, hangs or returns the process ID."""
    child = subprocess.Popen(["sleep", "600"], close_fds=False)
    print(child.pid, file=sys.stderr, flush=True)
    if then == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if then == "hang":
        hang()
    return child.pid


def alive(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def as_nobody(module: str, name: str, *args: Any) -> Any:
    """Calls a function as the user nobody. Requires root."""
    function = getattr(importlib.import_module(module), name)
    os.setegid(65534)
    os.seteuid(65534)
    try:
        return function(*args)
    finally:
        os.seteuid(0)
        os.setegid(0)


def refusal(uri: str) -> str | None:
    """The error for a file that is refused, None for others."""
    try:
        with Reader(uri):
            return None
    except VideoError as error:
        return str(error)


def read(uri: str) -> dict[str, Any]:
    """The number in each picture, the end of the last one, and the reader's sentence on damage."""
    with Reader(uri) as reader:
        numbers: list[int] = []
        trouble = None
        try:
            numbers.extend(read_number(frame.rgb()) for frame in reader)
        except VideoError as error:
            trouble = str(error)
        return {"numbers": numbers, "decoded_s": reader.decoded_s, "trouble": trouble or reader.trouble}


def scan_badly(*args: Any) -> list[dict[str, Any]]:
    """`scan_window` with a decoder that goes wrong when it sees one of the numbers of `MISBEHAVIOUR`."""
    decode = Reader._decode

    def decode_badly(self: Reader, packet: Any) -> Any:
        frames = decode(self, packet)
        for frame in frames:
            number = read_number(frame.to_ndarray(format="rgb24"))
            if how := MISBEHAVIOUR.get(number):
                globals()[how]()
        return frames

    Reader._decode = decode_badly  # type: ignore[method-assign]
    try:
        return scan.scan_window(*args)
    finally:
        Reader._decode = decode  # type: ignore[method-assign]


@dataclass
class BadCuts(Cascade):
    """The default cut detector, but it goes wrong when it sees one of the numbers of `MISBEHAVIOUR`."""

    def push(self, frame: Frame, small: Small) -> None:
        if frame.index == 0 and (how := MISBEHAVIOUR.get(read_number(frame.rgb()))):
            globals()[how]()
        super().push(frame, small)
