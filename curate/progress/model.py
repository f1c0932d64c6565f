"""The model of progress: one line per table of a run, with counts, rate, errors and state.

`rushes run` updates it from receipts (progress.py), `rushes status --watch` from the files of the run (watch.py). Two renderers show it:
a table drawn in place in a terminal (live.py) and plain lines in a log (lines.py).
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from curate.progress.cost import Spent

WINDOW_S = 60.0
"""Rates are taken over this many seconds. Ours."""
UNITS = {"sources": "files", "clips": "windows"}
"""What a line counts, where it is not clips."""
State = Literal["waiting", "starting", "running", "done", "stopped"]


class Throughput:
    """Rows per second over the last minute, from counts at several moments."""

    def __init__(self) -> None:
        self.counts: deque[tuple[float, int]] = deque()

    def add(self, done: int, now_s: float | None = None) -> None:
        """Records that `done` rows exist at `now_s` (of the monotonic clock; None: now)."""
        now_s = time.monotonic() if now_s is None else now_s
        if self.counts and done < self.counts[-1][1]:  # rows were deleted: earlier counts are void
            self.counts.clear()
        self.counts.append((now_s, done))
        while len(self.counts) > 2 and self.counts[1][0] < now_s - WINDOW_S:
            self.counts.popleft()

    def rate(self, now_s: float | None = None) -> float:
        """Rows per second; 0 when unknown."""
        now_s = time.monotonic() if now_s is None else now_s
        if not self.counts or now_s <= self.counts[0][0]:
            return 0.0
        return (self.counts[-1][1] - self.counts[0][1]) / (now_s - self.counts[0][0])


@dataclass
class Line:
    """One table of a run.

    Attributes:
        name: The table.
        total: Rows of the full table; None: not known yet.
        done: Rows that exist, of all sessions.
        errors: Those of them that failed.
        state: What happens to the table now.
        throughput: Rows per second while the step runs.
        average: Rows per second of a step that has ended, in this session.
    """

    name: str
    total: int | None = None
    done: int = 0
    errors: int = 0
    state: State = "waiting"
    throughput: Throughput = field(default_factory=Throughput)
    average: float = 0.0

    @property
    def unit(self) -> str:
        """What is counted: files, windows or clips."""
        return UNITS.get(self.name, "clips")

    @property
    def counted(self) -> str:
        """`12 of 40 windows`; empty when nothing is known."""
        if self.total is None:
            return f"{self.done} {self.unit}" if self.done else ""
        return f"{self.done} of {self.total} {self.unit}"

    @property
    def rate(self) -> float:
        """Rows per second: now, or on average once the step has ended."""
        return self.throughput.rate() if self.state == "running" else self.average

    @property
    def left_s(self) -> float | None:
        """Seconds until the table is full at this rate; None when unknown."""
        if self.state != "running" or self.total is None or not self.rate:
            return None
        return max(0, self.total - self.done) / self.rate


@dataclass
class Board:
    """All lines, and a sentence about the whole run."""

    lines: list[Line] = field(default_factory=list)
    note: str = ""

    def line(self, name: str) -> Line:
        """The line of a table, appended when it is missing."""
        for line in self.lines:
            if line.name == name:
                return line
        self.lines.append(Line(name))
        return self.lines[-1]


def bottleneck(names: Sequence[str], spent: Spent | None) -> str:
    """Where time is spent now: the tables being filled and, where stages share a pass, the stage that takes most of it."""
    if not names:
        return ""
    tables = names[0] if len(names) == 1 else f"{len(names)} tables in one pass"
    shares = spent.shares if spent is not None else {}
    if not shares:
        return f"bottleneck: {tables}"
    name, share = next(iter(shares.items()))
    return f"bottleneck: {name}, {share:.0%} of busy time ({tables})"


def parts_of(steps: Mapping[str, Spent], names: Sequence[str]) -> Spent | None:
    """The entry of `spent.json` for the pass that fills these tables, if there is one."""
    return next((spent for step, spent in steps.items() if set(step.split(", ")) == set(names)), None)


def duration(seconds: float) -> str:
    """Seconds for people: 45 s, 12 min, 3.4 h, 2.1 days."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {name}" if seconds / unit < 10 else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.1f} days"
