"""The command line called as a function, with the output, exit code, directory and environment that it would have as a process.

Everything that a process would take with it when it ends is put back: working directory, environment, arguments, signal handlers, import path,
warning filters and modules imported from a user's folder. Python's own imports stay, which is what makes it quick.
"""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = (str(ROOT), sys.prefix, sys.base_prefix)
"""Modules in other places belong to a user's folder."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


def in_process(arguments: list[str], cwd: Path, env: dict[str, str], out: Path, err: Path, timeout_s: int) -> int:
    """Runs a command whose output goes to these files, and returns its exit code. Raises TimeoutError."""
    from curate.cli import main

    with _as_a_process(arguments, cwd, env), _output(out, err):
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(timeout_s)
        try:
            main()
        except SystemExit as ended:
            if isinstance(ended.code, str):
                print(ended.code, file=sys.stderr)
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except TimeoutError:
            raise
        except Exception:
            traceback.print_exc()
            return 1
        finally:
            signal.alarm(0)
    return 0


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("the command took longer than its limit")


@contextmanager
def _as_a_process(arguments: list[str], cwd: Path, env: dict[str, str]) -> Iterator[None]:
    before = Path.cwd(), dict(os.environ), sys.argv, list(sys.path), set(sys.modules)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-c", *arguments]
    sys.path[0:0] = [""]
    try:
        with warnings.catch_warnings():
            # pytest makes errors of warnings; a process prints some and ignores most.
            warnings.resetwarnings()
            for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        os.chdir(before[0])
        os.environ.clear()
        os.environ.update(before[1])
        sys.argv = before[2]
        sys.path[:] = before[3]
        for name in set(sys.modules) - before[4]:
            place = getattr(sys.modules[name], "__file__", None)
            if place and not place.startswith(INSTALLED):
                del sys.modules[name]
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _output(out: Path, err: Path) -> Iterator[None]:
    """Sends standard output and standard error to files: Python's streams and, for child processes, the file descriptors."""
    sys.stdout.flush()
    sys.stderr.flush()
    streams, saved = (sys.stdin, sys.stdout, sys.stderr), [os.dup(number) for number in (0, 1, 2)]
    with (
        Path(os.devnull).open() as stdin,
        out.open("w", encoding="utf-8") as stdout,
        err.open("w", encoding="utf-8") as stderr,
    ):
        try:
            for number, file in enumerate((stdin, stdout, stderr)):
                os.dup2(file.fileno(), number)
            sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr
            yield
        finally:
            stdout.flush()
            stderr.flush()
            sys.stdin, sys.stdout, sys.stderr = streams
            for number, copy in enumerate(saved):
                os.dup2(copy, number)
                os.close(copy)
