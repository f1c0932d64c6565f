"""Commands in processes of their own, without the seconds that each would spend on imports.

A process that has imported the command line and has started no thread forks for each command. The child runs `main()` with the given arguments,
directory and environment, as `python -c "from curate.cli import main; main()"` does.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

COMMON = (
    "curate.cli.summary",
    "curate.pipeline.execute",
    "curate.report.write",
    "curate.exports.export",
    "lance_namespace",
)
"""Imported before anything is forked. (lance_namespace is most of what lancedb imports; lancedb itself starts a thread.)"""
TRAINING = (*COMMON, "train_hooks.plan", "train_hooks.session", "train_hooks.sample")


class Zygote:
    """The process that forks, and the pipe to it."""

    def __init__(self, imported: Sequence[str], root: Path, env: dict[str, str]) -> None:
        code = f"from tests.zygote import serve; serve({tuple(imported)!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=root, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, arguments: list[str], cwd: Path | None, env: dict[str, str], out: Path, err: Path, timeout_s: int
    ) -> int:
        """Runs a command whose output goes into these files, and returns its exit code; SIGALRM ends one that takes too long."""
        request = {
            "arguments": arguments,
            "cwd": str(cwd or Path.cwd()),
            "env": env,
            "out": str(out),
            "err": str(err),
            "timeout_s": timeout_s,
        }
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def serve(imported: Sequence[str]) -> None:
    """Forks for every line of standard input and answers with an exit code, until it ends."""
    for name in imported:
        importlib.import_module(name)
    import curate.cli

    answers = os.fdopen(os.dup(1), "w")
    while line := sys.stdin.readline():
        request = json.loads(line)
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
            answers.flush()
        else:
            become(request, answers)
            curate.cli.main()
            return


def become(request: dict[str, Any], answers: TextIO) -> None:
    """Gives this fork the requested arguments, directory, environment and output files."""
    os.close(answers.fileno())
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    signal.alarm(request["timeout_s"])
    sys.argv = ["-c", *request["arguments"]]
    sys.path[0] = ""
