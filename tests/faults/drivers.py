"""`rushes run` as a process that may be killed: begun from one that has imported everything, so that a scenario costs its work alone.

Unlike tests/zygote.py the caller gets the pid at once and the exit code later; a driver is in a process group of its own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
HOOKS = Path(__file__).resolve().parent / "hooks"


def environment(faults: Path) -> dict[str, str]:
    """Of every Python that takes part: this checkout, the injected faults, and no Ray but the one that is named later."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
    return clean | {
        "PYTHONPATH": os.pathsep.join([str(HOOKS), str(ROOT)]),
        "RUSHES_FAULTS": str(faults),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
    }


@dataclass
class Driver:
    """One `rushes run`, at work or over."""

    pid: int
    folder: Path
    began: float

    @property
    def code(self) -> int | None:
        """The exit code (negative: the signal that ended it), None while it runs."""
        with suppress(FileNotFoundError, ValueError):
            return int((self.folder / "code").read_text())
        return None

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text(errors="replace")

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text(errors="replace")

    def wait(self, limit_s: float) -> int | None:
        """The exit code; None when it took longer and was killed."""
        deadline = time.monotonic() + limit_s
        while (code := self.code) is None:
            if time.monotonic() > deadline:
                kill_family(self.pid)
                return None
            time.sleep(0.02)
        return code


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it began, itself last."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    return []


def signal_family(pid: int, number: signal.Signals) -> None:
    for member in family(pid):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            member.send_signal(number)


def kill_family(pid: int) -> None:
    """As the power does: all at once, the parent included."""
    signal_family(pid, signal.SIGKILL)


class Drivers:
    """The process that the drivers are forked from."""

    def __init__(self, faults: Path) -> None:
        self.env = environment(faults)
        code = "from tests.faults.drivers import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, arguments: list[str], cwd: Path, folder: Path, env: dict[str, str] | None = None) -> Driver:
        """Begins a command; its output and, at the end, its exit code are stored in `folder`."""
        folder.mkdir(parents=True)
        asked = {"arguments": arguments, "cwd": str(cwd), "env": self.env | (env or {}), "folder": str(folder)}
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return Driver(int(self.process.stdout.readline()), folder, time.monotonic())

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def serve() -> None:
    """Forks a waiter for every line of standard input, which forks the driver and writes its exit code down."""
    import importlib
    import threading

    for name in ("curate.cli.summary", "curate.pipeline.execute", "curate.report.write", "lance_namespace", "ray"):
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork with threads may hang"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a waiter
    answers = os.fdopen(os.dup(1), "w")
    while line := sys.stdin.readline():
        asked = json.loads(line)
        if os.fork():
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if driver := os.fork():
            answers.write(f"{driver}\n")
            answers.flush()
            _, status = os.waitpid(driver, 0)
            aside = Path(asked["folder"]) / "code.aside"
            aside.write_text(str(os.waitstatus_to_exitcode(status)))
            aside.rename(aside.with_name("code"))
            os._exit(0)
        answers.close()
        _become(asked)
        return


def _become(asked: dict) -> None:
    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
        path = name if number == 0 else str(Path(asked["folder"]) / name)
        opened = os.open(path, flags | (os.O_CREAT | os.O_APPEND if number else 0), 0o644)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["-c", *asked["arguments"]]
    sys.path[0] = ""
    import sitecustomize

    sitecustomize.begin_driver()
    from curate import cli

    cli.main()
