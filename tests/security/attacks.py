"""Attacks by a decoder that was exploited by its file: functions for the sandbox's child. Each returns the error that stopped it, or "done"."""

import os
import pickle
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "done"


def touch_files(folder: str, victim: str) -> dict[str, str]:
    """All ways to change files outside the scratch directory. `victim`: a file in `folder`."""
    new, old = Path(folder) / "new", Path(victim)
    return {
        "create": outcome(lambda: new.write_text("x")),
        "overwrite": outcome(lambda: old.write_text("x")),
        "append": outcome(lambda: old.open("a").close()),
        "truncate": outcome(lambda: os.truncate(old, 0)),
        "remove": outcome(old.unlink),
        "rename": outcome(lambda: old.rename(new)),
        "make a directory": outcome(new.mkdir),
        "make a link": outcome(lambda: new.symlink_to(old)),
        "make a hard link": outcome(lambda: new.hardlink_to(old)),
        "make a pipe": outcome(lambda: os.mkfifo(new)),
        "change the mode": outcome(lambda: old.chmod(0o777)),
        "change the times": outcome(lambda: os.utime(old, (0, 0))),
        "change attributes": outcome(lambda: os.setxattr(old, "user.x", b"x")),
        "move out of the scratch directory": outcome(_move_out(new)),
    }


def _move_out(new: Path) -> Callable[[], object]:
    mine = Path(tempfile.gettempdir()) / "mine"
    mine.write_text("x")
    return lambda: mine.rename(new)


def use_scratch() -> str:
    with tempfile.NamedTemporaryFile("w+") as file:
        file.write("a temporary file")
        file.seek(0)
        return file.read()


def reach_out(port: int) -> dict[str, str]:
    """All ways to reach a port of this machine."""

    def tcp() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            pass

    def udp() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"a secret", ("127.0.0.1", port))

    def listen() -> None:
        with socket.create_server(("127.0.0.1", 0)):
            pass

    def unix() -> None:
        with socket.socket(socket.AF_UNIX) as sender:
            sender.connect("\0nobody")

    return {"tcp": outcome(tcp), "udp": outcome(udp), "listen": outcome(listen), "unix": outcome(unix)}


def connect(port: int) -> str:
    """Connects to a port of this machine, as a reader of object storage does."""
    return outcome(lambda: socket.create_connection(("127.0.0.1", port), timeout=5).close())


def look_into_the_parent() -> dict[str, str]:
    parent = os.getppid()
    return {
        "environment": outcome(lambda: Path(f"/proc/{parent}/environ").read_bytes()),
        "memory": outcome(lambda: Path(f"/proc/{parent}/mem").open("rb").close()),
        "signal": outcome(lambda: os.kill(parent, signal.SIGCONT)),
    }


def environment() -> dict[str, str]:
    return dict(os.environ)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path(self.canary), "code ran")


def answer_with(message: bytes) -> None:
    """Sends a forged answer immediately."""
    Connection(int(sys.argv[1])).send_bytes(message)
    os._exit(0)


def answer_with_a_pickle(canary: str) -> None:
    answer_with(pickle.dumps(("returned", Bomb(canary))))


def announce(n_bytes: int) -> None:
    """Announces an answer that is larger than the memory."""
    os.write(int(sys.argv[1]), struct.pack("!iQ", -1, n_bytes) + bytes(2**16))
    os._exit(0)


def return_code() -> object:
    return Bomb("/nowhere")


def complain_with_escape_codes() -> None:
    raise ValueError("\x1b]0;owned\x07\x1b[2Jnot a video\u202e")
