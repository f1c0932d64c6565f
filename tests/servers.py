"""Servers for tests, on loopback."""

import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BELOW_EPHEMERAL = range(20_000, 32_000)
"""Linux assigns ports from 32768 up to sockets without a fixed port; Ray's workers take 10002 to 19999."""


def free_port() -> int:
    """A port that nothing listens on and that Linux does not assign by itself."""
    while True:
        port = random.SystemRandom().choice(BELOW_EPHEMERAL)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@contextmanager
def s3_server(folder: Path) -> Iterator[tuple[int, Path]]:
    """An S3-compatible server (moto): its port and its log of requests. It chooses the port itself, so that no other process can take it."""
    _forget_connections()
    log = folder / "moto.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"Running on http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.1)
        yield int(found[1]), log
        assert process.poll() is None, f"the server ended by itself ({process.returncode}): {log.read_text()[-2000:]}"
    finally:
        process.kill()
        process.wait()
        _forget_connections()


def _forget_connections() -> None:
    """Clears the cache of s3fs, whose key holds the arguments but not the endpoint from the environment."""
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()
