"""Servers that tests talk to on loopback."""

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
"""Linux gives ports from 32768 up to whoever asks for any; Ray's workers take 10002 to 19999."""


def free_port() -> int:
    """A port that nothing listens on, and that nothing is given that asks for any port."""
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
    """An S3-compatible server (moto): its port and its log of requests. It chooses the port itself, so that no other process can have it."""
    _forget_connections()
    log = folder / "moto.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 120
        while not (told := re.search(r"Running on http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.1)
        yield int(told[1]), log
        assert process.poll() is None, f"the server ended by itself ({process.returncode}): {log.read_text()[-2000:]}"
    finally:
        process.kill()
        process.wait()
        _forget_connections()


def _forget_connections() -> None:
    """s3fs gives the same object to all who ask with the same arguments, and the address from the environment is not among them."""
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()
