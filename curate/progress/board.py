"""The board: one line per table of a run, for a terminal. `rushes run` and `rushes status --watch` draw the same one.

    running   clips          12 of 40 windows   3.1/s           9 s left
    running   text_area      120 of 400 clips   5.2/s  2 failed 54 s left
    waiting   labels

Rates are of the last minute, in the unit that the line counts.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from curate.progress.cost import Spent

WINDOW_S = 60.0
"""Rates are taken over this many seconds. Ours."""
BAR_FROM = 100
"""Columns of a terminal from which on there is room for bars."""
UNITS = {"sources": "files", "clips": "windows"}
"""What the lines count, where it is not clips."""
State = Literal["waiting", "starting", "running", "done", "stopped"]
STYLES: dict[State, str] = {"waiting": "dim", "starting": "cyan", "running": "cyan", "done": "green", "stopped": "red"}


class Pace:
    """Rows per second over the last minute, from the counts seen at some moments."""

    def __init__(self) -> None:
        self.seen: deque[tuple[float, int]] = deque()

    def add(self, done: int, now_s: float | None = None) -> None:
        """`done` rows are there at `now_s` (of the monotonic clock; left out, now)."""
        now_s = time.monotonic() if now_s is None else now_s
        if self.seen and done < self.seen[-1][1]:  # rows went away: what was seen before says nothing
            self.seen.clear()
        self.seen.append((now_s, done))
        while len(self.seen) > 2 and self.seen[1][0] < now_s - WINDOW_S:
            self.seen.popleft()

    def rate(self, now_s: float | None = None) -> float:
        """Rows per second; 0 when nothing is known."""
        now_s = time.monotonic() if now_s is None else now_s
        if not self.seen or now_s <= self.seen[0][0]:
            return 0.0
        return (self.seen[-1][1] - self.seen[0][1]) / (now_s - self.seen[0][0])


@dataclass
class Line:
    """One table: how many rows of how many are there (`total` None: not known yet), and how many of them failed."""

    name: str
    total: int | None = None
    done: int = 0
    errors: int = 0
    state: State = "waiting"
    pace: Pace = field(default_factory=Pace)
    average: float = 0.0
    """Rows per second of a step that has ended."""

    @property
    def unit(self) -> str:
        """What is counted."""
        return UNITS.get(self.name, "clips")

    @property
    def counted(self) -> str:
        """`12 of 40 windows`, or nothing when nothing is known."""
        if self.total is None:
            return f"{self.done} {self.unit}" if self.done else ""
        return f"{self.done} of {self.total} {self.unit}"

    @property
    def rate(self) -> float:
        """Rows per second, now or, of what has ended, on average."""
        return self.pace.rate() if self.state == "running" else self.average

    @property
    def left_s(self) -> float | None:
        """Seconds until the table is full at this rate; None when that cannot be told."""
        if self.state != "running" or self.total is None or not self.rate:
            return None
        return max(0, self.total - self.done) / self.rate

    def plain(self) -> str:
        """The line where there is no terminal."""
        rate = f"{self.rate:.1f}/s" if self.rate else ""
        left = f"{duration(self.left_s)} left" if self.left_s is not None and self.done < (self.total or 0) else ""
        told = ", ".join(part for part in (rate, left) if part)
        return f"{self.name}: {self.counted}{f' ({told})' if told else ''}{f', {self.errors} failed' if self.errors else ''}"


@dataclass
class Board:
    """All lines and a sentence beneath them; something that rich can print."""

    lines: list[Line] = field(default_factory=list)
    note: str = ""

    def line(self, name: str) -> Line:
        """The line of a table, added at the end when there is none."""
        for line in self.lines:
            if line.name == name:
                return line
        self.lines.append(Line(name))
        return self.lines[-1]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with_bar = options.max_width >= BAR_FROM
        grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name, width in (("", 8), ("table", 12), *([("", 20)] if with_bar else [])):
            grid.add_column(name, no_wrap=True, overflow="ellipsis", min_width=width)
        for name, width in (("done", 18), ("rate", 6), ("failed", 6), ("left", 7)):
            grid.add_column(name, justify="right", no_wrap=True, min_width=width)  # so that it does not jump to and fro
        for line in folded(self.lines, max(4, console.height - 4)):
            if isinstance(line, str):
                grid.add_row("", Text(line, "dim"))
                continue
            bar = [ProgressBar(total=line.total or 1, completed=line.done, width=20)] if with_bar else []
            grid.add_row(
                Text(line.state, STYLES[line.state]),
                line.name,
                *bar,
                line.counted,
                f"{line.rate:.1f}/s" if line.rate else "",
                Text(str(line.errors), "red") if line.errors else "",
                duration(line.left_s) if line.left_s is not None else "",
            )
        yield grid
        if self.note:
            yield Text(self.note, overflow="ellipsis", no_wrap=True)


def folded(lines: Sequence[Line], room: int) -> list[Line | str]:
    """The lines, at most `room` of them: where there are more, those that have ended are told in one, and those that wait in another."""
    shown: list[Line | str] = list(lines)
    for state, told in (("done", "{} tables are done"), ("waiting", "{} tables wait")):
        over = len(shown) - room
        of_state = [line for line in shown if isinstance(line, Line) and line.state == state]
        if over <= 0 or len(of_state) < 2:
            continue
        n = min(len(of_state), over + 1)
        gone = of_state[:n] if state == "done" else of_state[-n:]
        at = shown.index(gone[0])
        shown = [line for line in shown if line not in gone]
        shown.insert(at, told.format(n))
    return shown[:room]


def bottleneck(names: Sequence[str], spent: Spent | None) -> str:
    """Where time goes just now: the tables being filled, and of a pass that several share the stage that takes most of it."""
    if not names:
        return ""
    told = names[0] if len(names) == 1 else f"{len(names)} tables in one pass"
    shares = spent.shares if spent is not None else {}
    if not shares:
        return f"bottleneck: {told}"
    name, share = next(iter(shares.items()))
    return f"bottleneck: {name}, {share:.0%} of the time at work ({told})"


def parts_of(steps: Mapping[str, Spent], names: Sequence[str]) -> Spent | None:
    """The entry of `spent.json` for the pass that fills these tables, if there is one."""
    return next((spent for step, spent in steps.items() if set(step.split(", ")) == set(names)), None)


def duration(seconds: float) -> str:
    """Seconds as one reads them: 45 s, 12 min, 3.4 h, 2.1 days."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {name}" if seconds / unit < 10 else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.1f} days"
