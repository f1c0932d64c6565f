"""Files and ports that the tested code must not touch."""

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.videos import numbered_frames, write_video


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A normal video of 2 s."""
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", numbered_frames(50))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """Returns the names of the files in `tmp_path` that were opened since the last call."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, str(tmp_path).encode(), 0x20) >= 0  # IN_OPEN

    def names() -> list[str]:
        try:
            data = os.read(watch, 2**16)
        except BlockingIOError:
            return []
        found, at = [], 0
        while at < len(data):
            size = int.from_bytes(data[at + 12 : at + 16], "little")
            found.append(data[at + 16 : at + 16 + size].rstrip(b"\0").decode())
            at += 16 + size
        return [name for name in found if name]

    yield names
    os.close(watch)


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A port of this machine; `accept` raises BlockingIOError when there is no connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
