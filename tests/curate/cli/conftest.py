"""The command line in this process: no fork, no import of what is imported already."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from curate.cli import main
from tests.project import Done

Cli = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `rushes ARGUMENTS` in this process and returns its exit code and output. For commands that start no Ray and need no signal."""

    def call(*arguments: object, cwd: Path | None = None) -> Done:
        out, err = io.StringIO(), io.StringIO()
        path, environment, directory = list(sys.path), dict(os.environ), Path.cwd()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        monkeypatch.setattr(sys, "argv", ["rushes", *map(str, arguments)])
        code = 0
        try:
            if cwd is not None:
                os.chdir(cwd)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        finally:
            os.chdir(directory)
            sys.path[:] = path
            os.environ.clear()
            os.environ.update(environment)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Done(code, out.getvalue(), err.getvalue())

    return call
