"""The child process of a sandbox: it confines itself, then answers calls until its parent closes the pipe or dies.

A child whose parent died ends within a second, or, when it hangs in native code, by its own alarm.
"""

import importlib
import os
import pickle
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from curate.sandbox import answers
from curate.sandbox.confine import confine

START_S = 120.0
"""Seconds after which a child that has not imported its function counts as dead (a cold disk can be slow)."""
OUT_OF_MEMORY = 137
"""Exit code of a child that could not allocate memory."""


def serve() -> None:
    """Answers calls. `sys.argv`: the pipe's file descriptor, the memory limit in MB, the scratch directory, and `online` or `offline`."""
    pipe = Connection(int(sys.argv[1]))
    parent = os.getppid()
    confine(Path(sys.argv[3]), sys.argv[4] == "online")

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _limit_memory(int(sys.argv[2]))
    from curate.video.container import log_to_stderr

    log_to_stderr()
    while True:
        try:
            request = pipe.recv_bytes()
        except EOFError:
            return
        # The parent stops a late call; the alarm is for a child that hangs where the thread above cannot run.
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


def _limit_memory(limit_mb: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit_mb * 2**20
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
