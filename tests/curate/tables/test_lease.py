"""Holding a run directory where there are no locks: who is refused, who takes over, who stops."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest

from curate.errors import RunError, UsageError
from curate.tables import lease, store
from curate.tables.lease import LEASE, Lease, held


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    monkeypatch.setattr(lease, "STALE_S", 1.0)
    monkeypatch.setattr(lease, "SETTLE_S", 0.05)


@pytest.fixture
def root() -> Iterator[str]:
    where = f"memory://{uuid.uuid4().hex}"
    yield where
    store.remove(where)


def elsewhere(root: str, **other: object) -> dict[str, object]:
    """Puts down the lease of a process of another machine."""
    found = {**lease._this_process(), "id": "theirs", "beat": 1, "host": "elsewhere", **other}
    store.put_json(store.join(root, LEASE), found)
    return found


def test_the_second_is_refused_while_the_first_is_at_work_and_not_later(root: str) -> None:
    with held(root):
        with pytest.raises(UsageError, match="another rushes run is at work in memory://"), held(root):
            pass
        assert store.exists(store.join(root, LEASE))
    assert not store.exists(store.join(root, LEASE))
    with held(root):
        pass


def test_the_lease_of_a_process_that_was_killed_here_is_taken_over_at_once(root: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    elsewhere(root, host=lease._this_process()["host"], pid=child.pid, began=psutil.Process(child.pid).create_time())
    child.kill()
    child.wait()
    began = time.monotonic()
    with held(root):
        assert time.monotonic() - began < 0.9


def test_a_pid_that_was_given_to_another_process_is_not_its_holder(root: str) -> None:
    elsewhere(root, host=lease._this_process()["host"], pid=os.getpid(), began=1.0)
    began = time.monotonic()
    with held(root):
        assert time.monotonic() - began < 0.9


def test_the_lease_of_another_machine_is_taken_over_when_it_no_longer_changes(root: str) -> None:
    elsewhere(root)
    began = time.monotonic()
    with held(root):
        assert time.monotonic() - began >= 1.0


def test_a_holder_that_was_taken_over_stops_and_leaves_the_others_lease_alone(root: str) -> None:
    with held(root) as hold:
        assert isinstance(hold, Lease)
        hold.check()
        theirs = elsewhere(root)
        deadline = time.monotonic() + 10
        while not hold.lost and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(RunError, match="another rushes run has taken memory://"):
            hold.check()
    assert store.get_json(store.join(root, LEASE)) == theirs


def test_of_two_that_begin_at_the_same_moment_one_goes_on(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Lease(root), Lease(root)
    true = store.get_json
    # The first has looked and found none; before it writes, the second has looked, too, and writes after it.
    monkeypatch.setattr(lease.time, "sleep", lambda _: store.put_json(first.where, second.own))
    with pytest.raises(UsageError, match="another rushes run is at work"):
        first.take()
    assert true(first.where)["id"] == second.own["id"]


def test_a_read_only_directory_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    def refuse(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunError, match=r"is not writable: Read-only file system"), held(str(tmp_path)):
        pass
