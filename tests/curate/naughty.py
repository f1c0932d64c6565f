"""Functions that a sandbox must survive."""

import os
import signal
import sys
import time


def double(x: int) -> int:
    return 2 * x


def process_id() -> int:
    return os.getpid()


def refuse() -> None:
    raise ValueError("this is not a video")


def segfault() -> None:
    print("about to read a bad address", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def segfault_once(marker: str) -> str:
    if not os.path.exists(marker):  # noqa: PTH110
        open(marker, "w").close()  # noqa: PTH123
        os.kill(os.getpid(), signal.SIGSEGV)
    return "survived"


def hang() -> None:
    time.sleep(600)


def eat_memory() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20)) * 32)
        time.sleep(0.02)
