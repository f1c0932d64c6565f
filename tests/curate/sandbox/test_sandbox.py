"""The sandbox: a child that crashes, hangs or eats memory fails only its call; the next call works."""

import os
import time

import psutil
import pytest

from curate.sandbox.sandbox import Sandbox, SandboxError
from tests import naughty


@pytest.fixture
def sandbox() -> "object":
    with Sandbox(memory_mb=512) as box:
        yield box


def test_a_call_returns_and_the_child_is_reused(sandbox: Sandbox) -> None:
    assert sandbox.call(naughty.double, 21, wall_s=30) == 42
    first = sandbox.call(naughty.process_id, wall_s=30)
    assert first == sandbox.call(naughty.process_id, wall_s=30)
    assert first != os.getpid()


@pytest.mark.parametrize(
    ("function", "wall_s", "message"),
    [
        pytest.param(
            naughty.segfault,
            30,
            r"killed by signal 11; its last log line: about to read a bad address \(attempt 2 of 2\)",
            id="segfault",
        ),
        pytest.param(naughty.hang, 1, r"took longer than 1 s and was stopped \(attempt 2 of 2\)", id="hang"),
        pytest.param(naughty.eat_memory, 60, r"used more than 512 MB of memory and was stopped", id="memory"),
        pytest.param(
            naughty.eat_memory_at_once, 60, r"used more than 512 MB of memory and was stopped", id="memory at once"
        ),
    ],
)
def test_a_child_that_dies_fails_only_its_call(sandbox: Sandbox, function: object, wall_s: float, message: str) -> None:
    with pytest.raises(SandboxError, match=message) as error:
        sandbox.call(function, wall_s=wall_s)  # type: ignore[arg-type]
    assert not error.value.raised
    assert sandbox.call(naughty.double, 4, wall_s=30) == 8


def test_an_exception_of_the_function_is_not_retried(sandbox: Sandbox) -> None:
    before = sandbox.call(naughty.process_id, wall_s=30)
    with pytest.raises(SandboxError, match=r"^this is not a video$") as error:
        sandbox.call(naughty.refuse, wall_s=30)
    assert error.value.raised
    assert sandbox.call(naughty.process_id, wall_s=30) == before


def test_a_crash_is_retried_once(sandbox: Sandbox) -> None:
    process = sandbox.call(naughty.process_id, wall_s=30)
    assert sandbox.call(naughty.segfault_in, process, wall_s=30) == "survived"


def test_the_child_limits_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the parent cannot check the memory in time (a machine under load), the system refuses to allocate it."""
    monkeypatch.setattr("curate.sandbox.sandbox._resident_mb", lambda process: 0.0)
    with Sandbox(memory_mb=256, attempts=1) as box:
        with pytest.raises(SandboxError, match=r"used more than 256 MB of memory and was stopped"):
            box.call(naughty.eat_memory_at_once, wall_s=60)
        assert box.call(naughty.double, 4, wall_s=30) == 8


@pytest.mark.parametrize("then", ["segfault", "hang", "return"])
def test_processes_that_the_child_started_are_killed_with_it(then: str) -> None:
    with Sandbox(memory_mb=512, attempts=1) as box:
        if then == "return":
            number = box.call(naughty.leave_a_child_behind, then, wall_s=30)
            assert naughty.alive(number)
        else:
            assert box.call(naughty.double, 4, wall_s=60) == 8  # starts the child, so that its start is not timed
            began = time.monotonic()
            with pytest.raises(SandboxError, match=r"killed by signal 11|longer than 2 s") as error:
                box.call(naughty.leave_a_child_behind, then, wall_s=2)
            assert time.monotonic() - began < 10, "the grandchild holds the pipe open, which must not be waited for"
            number = int(str(error.value).split("its last log line: ")[1].split()[0])
    deadline = time.monotonic() + 5
    while naughty.alive(number):
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.02)


def test_a_late_answer_is_not_read_as_the_next_one(sandbox: Sandbox) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(process: psutil.Process) -> float:
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.sandbox.sandbox._resident_mb", interrupt)
        with pytest.raises(Interrupted):
            sandbox.call(naughty.double_slowly, 1, wall_s=30)  # long enough for a check of the memory
    assert sandbox.call(naughty.double, 21, wall_s=30) == 42


def test_a_child_that_died_between_calls_is_replaced(sandbox: Sandbox) -> None:
    first = sandbox.call(naughty.process_id, wall_s=30)
    psutil.Process(first).kill()
    assert sandbox.call(naughty.process_id, wall_s=30) != first


def test_large_answers_are_returned(sandbox: Sandbox) -> None:
    assert len(sandbox.call(naughty.large, 100_000_000, wall_s=30)) == 100_000_000


def test_an_unsupported_answer_raises_and_is_not_retried(sandbox: Sandbox) -> None:
    before = sandbox.call(naughty.process_id, wall_s=30)
    with pytest.raises(SandboxError, match=r"the sandbox cannot return a builtins.function") as error:
        sandbox.call(naughty.unpicklable, wall_s=30)
    assert error.value.raised
    assert sandbox.call(naughty.process_id, wall_s=30) == before


def test_the_last_log_line_is_added_without_addresses(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match=r"^not a video; its last log line: \[mov\] moov atom not found$") as error:
        sandbox.call(naughty.complain, wall_s=30)
    assert error.value.raised
    with pytest.raises(SandboxError, match=r"^this is not a video$"):
        sandbox.call(naughty.refuse, wall_s=30)


def test_the_log_of_a_decoder_is_limited(sandbox: Sandbox) -> None:
    assert sandbox.call(naughty.chatter, 60, wall_s=60) < 40 * 2**20
    assert sandbox._tail() == "; its last log line: [h264] the final line"


def test_a_child_ends_with_its_parent() -> None:
    import subprocess
    import sys

    code = (
        "import os\n"
        "from curate.sandbox.sandbox import Sandbox\n"
        "from tests import naughty\n"
        "box = Sandbox(512)\n"
        "print(box.call(naughty.process_id, wall_s=30), flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    child = int(done.stdout)
    deadline = time.monotonic() + 10
    while naughty.alive(child):
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)
