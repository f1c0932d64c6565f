"""The sandbox: a child that crashes, hangs or eats memory costs its call, and the next call works."""

import os
from pathlib import Path

import pytest

from curate.sandbox import Sandbox, SandboxError
from tests.curate import naughty


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
    ("function", "wall_s", "told"),
    [
        pytest.param(
            naughty.segfault,
            30,
            r"killed by signal 11; it last said: about to read a bad address \(attempt 2 of 2\)",
            id="segfault",
        ),
        pytest.param(naughty.hang, 1, r"took longer than 1 s and was stopped \(attempt 2 of 2\)", id="hang"),
        pytest.param(naughty.eat_memory, 60, r"used more than 512 MB of memory and was stopped", id="memory"),
    ],
)
def test_a_child_that_dies_costs_its_call_alone(sandbox: Sandbox, function: object, wall_s: float, told: str) -> None:
    with pytest.raises(SandboxError, match=told) as error:
        sandbox.call(function, wall_s=wall_s)  # type: ignore[arg-type]
    assert not error.value.raised
    assert sandbox.call(naughty.double, 4, wall_s=30) == 8


def test_what_the_function_says_itself_is_not_tried_again(sandbox: Sandbox) -> None:
    before = sandbox.call(naughty.process_id, wall_s=30)
    with pytest.raises(SandboxError, match=r"^this is not a video$") as error:
        sandbox.call(naughty.refuse, wall_s=30)
    assert error.value.raised
    assert sandbox.call(naughty.process_id, wall_s=30) == before


def test_a_crash_that_passes_is_forgiven(sandbox: Sandbox, tmp_path: Path) -> None:
    assert sandbox.call(naughty.segfault_once, str(tmp_path / "marker"), wall_s=30) == "survived"
