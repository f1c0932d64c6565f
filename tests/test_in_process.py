"""A command called in process behaves as in a process of its own, and leaves the calling process unchanged."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.in_process import in_process
from tests.project import Rushes, environment


def state() -> tuple[object, ...]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    return Path.cwd(), dict(os.environ), sys.argv, list(sys.path), handlers, sys.stdin, sys.stdout, sys.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["status", "nowhere"], ["nosuch"], ["run", "--nosuch"], ["cuts"]])
def test_output_and_exit_code_equal_those_of_a_process(arguments: list[str], tmp_path: Path, rushes: Rushes) -> None:
    there, here = (rushes(*arguments, cwd=tmp_path, process=process) for process in (True, False))
    assert (here.code, here.out, here.err) == (there.code, there.out, there.err)


def test_the_process_is_as_before(tmp_path: Path, finished: Path, rushes: Rushes) -> None:
    before = state()
    assert rushes("status", finished, cwd=tmp_path).code == 0
    assert state() == before


def test_an_unexpected_exception_is_a_traceback_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise AssertionError("broken")

    monkeypatch.setattr("curate.cli.main", broken)
    out, err = tmp_path / "out", tmp_path / "err"
    assert in_process(["status"], tmp_path, environment(), out, err, 10) == 1
    assert err.read_text().endswith("AssertionError: broken\n")


def test_a_command_that_takes_too_long_is_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.cli.main", lambda: signal.pause())
    with pytest.raises(TimeoutError):
        in_process(["status"], tmp_path, environment(), tmp_path / "out", tmp_path / "err", 1)
