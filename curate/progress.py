"""How far a run is: bars when a terminal looks on, plain lines otherwise (as in a submitted job)."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from curate.cost import Prices, Spent

EVERY_S = 10.0
"""At most one plain line per step in this many seconds, besides its first and last."""


class StepProgress:
    """One table being filled."""

    def __init__(self, owner: "Progress", name: str, total: int, done: int, gpus: float) -> None:
        self.owner, self.name, self.total, self.at_start, self.gpus = owner, name, total, done, gpus
        self.spent = Spent()
        self.began = self.last_line = time.monotonic()
        self.task: TaskID | None = None

    def advance(self, receipt: Mapping[str, Any]) -> None:
        """One unit more is done."""
        self.spent.add(receipt)
        done = self.at_start + self.spent.rows
        if self.owner.bars is not None and self.task is not None:
            self.owner.bars.update(self.task, completed=done, told=self._rates() + self._errors())
        elif time.monotonic() - self.last_line > EVERY_S:
            self.last_line = time.monotonic()
            line = f"{self.name}: {done} of {self.total} ({self._rates()}){self._errors()}"
            self.owner.console.print(line, highlight=False)

    def _rates(self) -> str:
        """Rows and tokens per second so far, and the money they cost."""
        wall_s = max(time.monotonic() - self.began, 1e-3)
        spent = self.spent
        told = f"{spent.rows / wall_s:.1f}/s"
        if spent.tokens:
            told += f", {spent.prompt_tokens / wall_s:.0f} + {spent.output_tokens / wall_s:.0f} tokens/s"
        money = self.owner.prices.of(spent.busy_s * self.gpus, spent.prompt_tokens, spent.output_tokens)
        return told + (f", {money:.2f} spent" if money else "")

    def _errors(self) -> str:
        return f", {self.spent.errors} failed" if self.spent.errors else ""

    def close(self) -> None:
        """Tells how it ended, when there was anything to do."""
        self.spent.wall_s = time.monotonic() - self.began
        if self.spent.rows:
            line = f"{self.name}: {self.spent.rows} done{self._errors()}, {self._rates()}"
            self.owner.console.print(line, highlight=False)


class Progress:
    """Tells on `console` how far the steps of a run are, and keeps what each has cost."""

    def __init__(self, console: Console | None = None, prices: Prices | None = None) -> None:
        self.console = console or Console()
        self.prices = prices or Prices()
        self.spent: dict[str, Spent] = {}
        self.bars: Bars | None = None
        self.did_something = False

    @contextmanager
    def step(self, name: str, total: int, done: int, gpus: float = 0.0) -> Iterator[StepProgress]:
        """Follows one step of `total` rows of which `done` were there before."""
        step = StepProgress(self, name, total, done, gpus)
        if total > done:
            self.did_something = True
        try:
            if self.console.is_terminal and total > done:
                columns = (
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[told]}"),
                )
                with Bars(
                    *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console, transient=True
                ) as self.bars:
                    step.task = self.bars.add_task(name, total=total, completed=done, told="")
                    yield step
            else:
                yield step
        finally:
            self.bars = None
            self.spent[name] = step.spent
            step.close()
