"""How far a run is: bars when a terminal looks on, plain lines otherwise (as in a submitted job)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

EVERY_S = 10.0
"""At most one plain line per step in this many seconds, besides its first and last."""


class StepProgress:
    """One table being filled."""

    def __init__(self, owner: "Progress", name: str, total: int, done: int) -> None:
        self.owner, self.name, self.total = owner, name, total
        self.done, self.errors, self.began, self.at_start = done, 0, time.monotonic(), done
        self.last_line = time.monotonic()
        self.task: TaskID | None = None

    def advance(self, rows: int, errors: int) -> None:
        """Some rows more are done."""
        self.done += rows
        self.errors += errors
        if self.owner.bars is not None and self.task is not None:
            self.owner.bars.update(self.task, completed=self.done, errors=self._errors())
        elif time.monotonic() - self.last_line > EVERY_S:
            self.last_line = time.monotonic()
            self.owner.console.print(
                f"{self.name}: {self.done} of {self.total} ({self.rate():.1f}/s){self._errors()}", highlight=False
            )

    def rate(self) -> float:
        """Rows per second of this step so far."""
        return (self.done - self.at_start) / max(time.monotonic() - self.began, 1e-3)

    def _errors(self) -> str:
        return f", {self.errors} failed" if self.errors else ""

    def close(self) -> None:
        """Tells how it ended, when there was anything to do."""
        if self.done > self.at_start:
            line = f"{self.name}: {self.done - self.at_start} done{self._errors()}, {self.rate():.1f}/s"
            self.owner.console.print(line, highlight=False)


class Progress:
    """Tells on `console` how far the steps of a run are."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.bars: Bars | None = None
        self.did_something = False

    @contextmanager
    def step(self, name: str, total: int, done: int) -> Iterator[StepProgress]:
        """Follows one step of `total` rows of which `done` were there before."""
        step = StepProgress(self, name, total, done)
        if total > done:
            self.did_something = True
        try:
            if self.console.is_terminal and total > done:
                columns = (
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[errors]}"),
                )
                with Bars(
                    *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console, transient=True
                ) as self.bars:
                    step.task = self.bars.add_task(name, total=total, completed=done, errors="")
                    yield step
            else:
                yield step
        finally:
            self.bars = None
            step.close()
