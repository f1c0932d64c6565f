"""A pytest plugin that records, for every test, wall and CPU seconds of setup, call and teardown.

The file `.pytest_cache/times.json` maps a node id to `{phase: [wall_s, own_cpu_s, child_cpu_s]}`. A session over the whole suite rewrites it; a
session over some files replaces the entries of those files. `python -m tests.slowest` prints it.
"""

import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / ".pytest_cache" / "times.json"
SECONDS = ROOT / "tests" / "seconds.json"
"""Committed: decides which files start first."""
PHASES = ("setup", "call", "teardown")
TICKS_S = 1 / os.sysconf("SC_CLK_TCK")
KEY = "seconds"


def own_cpu_s() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def child_cpu_s() -> float:
    """CPU seconds so far of processes that this one started, directly or not: those that ended and were reaped, and those alive."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime + _alive_cpu_s()


def _alive_cpu_s() -> float:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # no child is alive: nothing to look for
        return 0.0
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - a hundred tests a second pass here
        if not name.isdecimal():
            continue
        try:
            fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(name))
        ticks[int(name)] = sum(map(int, fields[11:15]))  # utime, stime, and both of the children that were reaped
    found, total = [os.getpid()], 0
    while found:
        below = children.get(found.pop(), [])
        total += sum(ticks[pid] for pid in below)
        found += below
    return total * TICKS_S


class Recorder:
    """Measures in the process that runs the tests; collects and writes in the one that started them."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.tests: dict[str, dict[str, list[float]]] = {}

    def _measured(self, item: pytest.Item, phase: str) -> Iterator[None]:
        before = time.perf_counter(), own_cpu_s(), child_cpu_s()
        try:
            return (yield)
        finally:
            after = time.perf_counter(), own_cpu_s(), child_cpu_s()
            spent = [round(max(0.0, b - a), 3) for a, b in zip(before, after, strict=True)]
            item.user_properties.append((KEY, [phase, *spent]))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._measured(item, "setup"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._measured(item, "call"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._measured(item, "teardown"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            spent: list[Any] = [value for key, value in report.user_properties if key == KEY]
            self.tests[report.nodeid] = {phase: seconds for phase, *seconds in spent}

    def pytest_sessionfinish(self) -> None:
        if hasattr(self.config, "workerinput") or not self.tests:
            return
        files = {file_of(nodeid) for nodeid in self.tests}
        is_whole = self.config.args_source is pytest.Config.ArgsSource.TESTPATHS
        kept = {} if is_whole else {name: test for name, test in load().items() if file_of(name) not in files}
        RECORDED.parent.mkdir(exist_ok=True)
        aside = RECORDED.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(kept | self.tests, indent=0) + "\n")
        aside.replace(RECORDED)


def file_of(nodeid: str) -> str:
    """The file that a node id starts with."""
    return nodeid.partition("::")[0]


def load() -> dict[str, dict[str, list[float]]]:
    """What earlier sessions recorded."""
    try:
        return json.loads(RECORDED.read_text())
    except FileNotFoundError:
        return {}


def recorded_seconds() -> dict[str, float]:
    """Wall seconds of every test file, as committed."""
    try:
        return json.loads(SECONDS.read_text())
    except FileNotFoundError:
        return {}


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config), "times-recorder")
