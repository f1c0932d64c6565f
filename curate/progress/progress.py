"""How far a run is, told while it goes on: a board in a terminal, plain lines otherwise (as in a submitted job).

Progress also keeps what each step has cost, puts it down in `RUN/spent.json`, and hands it to Ray's metrics.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live

from curate.errors import RunError
from curate.progress import cost
from curate.progress.board import Board, Line, bottleneck, duration
from curate.progress.cost import Prices, Spent
from curate.progress.metrics import Exporter

EVERY_S = 10.0
"""At most one plain line per step in this many seconds, besides its last."""
SAVED_EVERY_S = 30.0
"""`spent.json` is put down this often while a step runs: what a kill can take out of the account. Ours."""
PER_SECOND = 2
"""How often a board is drawn."""


class StepProgress:
    """One step: a table being filled, or several in one pass."""

    def __init__(self, owner: "Progress", name: str, total: int, done: int, gpus: float, n_units: int) -> None:
        self.owner, self.name, self.total, self.at_start = owner, name, total, done
        self.spent = Spent(gpus=gpus)
        self.names = name.split(", ")
        self.lines = [owner.board.line(one) for one in self.names]
        self.n_units = n_units
        self.exporter: Exporter | None = None
        self.began = self.last_line = self.last_saved = time.monotonic()
        for line in self.lines:
            line.total, line.done, line.state = total, done, "starting" if self.has_work else "done"
        if self.has_work:
            told = name if len(self.names) == 1 else f"{len(self.names)} tables in one pass"
            owner.board.note = f"{told}: workers start, nothing is done yet"

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do."""
        return self.total > self.at_start

    def waits(self, why: str) -> None:
        """The step cannot begin yet."""
        self.owner.board.note = why
        if self.owner.live is None:
            self.owner.console.print(f"{self.name}: {why}", highlight=False)

    def staffed(self, workers: int) -> None:
        """The pool has this many workers; the first units are on their way."""
        self.spent.workers = workers
        if self.owner.root is not None:
            names, prices = tuple(self.names), self.owner.prices
            self.exporter = Exporter(self.owner.root, names, self.n_units, workers, self.spent.gpus, prices)
            self.exporter.begin()

    def advance(self, receipt: Mapping[str, Any]) -> None:
        """One unit more is done."""
        self.owner.heard()
        self.spent.add(receipt)
        if self.exporter is not None:
            self.exporter.advance(receipt)
        now = time.monotonic()
        for line in self.lines:
            heard = receipt.get("stages", {}).get(line.name, receipt)
            if line.state == "starting":
                line.state = "running"
                line.pace.add(line.done, now - receipt.get("busy_s", 0.0))  # rates leave the setting up out
            line.done += heard.get("done", heard["rows"])
            line.errors += heard["errors"]
            line.pace.add(line.done, now)
        told = f"; {self._rates()}" if self.spent.tokens or self._money() else ""
        self.owner.board.note = bottleneck(self.names, self.spent) + told
        if now - self.last_saved > SAVED_EVERY_S:
            self.last_saved = now
            self.spent.wall_s = now - self.began
            self.owner.save()
        if self.owner.live is None and now - self.last_line > EVERY_S:
            self.last_line = now
            done = self.at_start + self.spent.rows
            left_s = self.lines[0].left_s
            left = f", {duration(left_s)} left" if left_s is not None and done < self.total else ""
            told = f"{self.name}: {done} of {self.total} ({self._rates()}{left}){self._errors()}"
            self.owner.console.print(told, highlight=False)

    def _rates(self) -> str:
        """Rows and tokens per second so far, and the money they cost."""
        wall_s = max(time.monotonic() - self.began, 1e-3)
        spent = self.spent
        told = f"{spent.rows / wall_s:.1f}/s"
        if spent.tokens:
            told += f", {spent.prompt_tokens / wall_s:.0f} + {spent.output_tokens / wall_s:.0f} tokens/s"
        return told + (f", {money:.2f} spent" if (money := self._money()) else "")

    def _money(self) -> float:
        spent = self.spent
        return self.owner.prices.of(spent.busy_s * spent.gpus, spent.prompt_tokens, spent.output_tokens)

    def _errors(self) -> str:
        return f", {self.spent.errors} failed" if self.spent.errors else ""

    def close(self, ended_well: bool) -> None:
        """Tells how it ended, when there was anything to do."""
        if self.has_work:
            self.spent.wall_s = time.monotonic() - self.began
        if self.exporter is not None:
            self.exporter.end()
        for line in self.lines:
            line.state = "done" if ended_well else "stopped"
            line.average = self.spent.rows / max(self.spent.wall_s, 1e-3)
        self.owner.board.note = ""
        if self.spent.rows and self.owner.live is None:
            slowest = next((f", {name} {share:.0%} of the time" for name, share in self.spent.shares.items()), "")
            told = f"{self.name}: {self.spent.rows} done{self._errors()}, {self._rates()}{slowest}"
            self.owner.console.print(told, highlight=False)


class Progress:
    """Tells on `console` how far the steps of a run are, and keeps what each has cost.

    Attributes:
        spent: what the steps of this session have cost, by name.
        did_something: whether any step had anything to do.
        heard: called at every receipt; what it raises ends the run.
    """

    def __init__(self, console: Console | None = None, prices: Prices | None = None) -> None:
        self.console = console or Console()
        self.prices = prices or Prices()
        self.spent: dict[str, Spent] = {}
        self.before: dict[str, Spent] = {}
        self.root: str | None = None
        self.board = Board()
        self.live: Live | None = None
        self.did_something = False
        self.heard: Callable[[], None] = lambda: None

    @contextmanager
    def over(self, tables: Sequence[str], root: str | None = None) -> Iterator[None]:
        """Follows a walk over these tables, all of which are listed from the start. With the run's `root`, costs are added to its spent.json."""
        self.board = Board([Line(name) for name in tables])
        if root is not None:
            self.root, self.before = root, cost.read(root)
        with self._drawn():
            yield

    @contextmanager
    def _drawn(self) -> Iterator[None]:
        if self.live is not None or not self.console.is_terminal or self.console.is_dumb_terminal:
            yield
            return
        with Live(console=self.console, get_renderable=lambda: self.board, refresh_per_second=PER_SECOND) as self.live:
            try:
                yield
            finally:
                self.live.refresh()
                self.live = None

    def seen(self, name: str, total: int, done: int) -> None:
        """Of a table that has nothing to do, or not yet: `done` of `total` rows are there."""
        line = self.board.line(name)
        line.total, line.done = total, done
        line.state = "done" if done >= total else "waiting"

    def doing(self, what: str) -> None:
        """Says what is being done besides the tables."""
        self.board.note = what

    @contextmanager
    def step(self, name: str, total: int, done: int, gpus: float = 0.0, n_units: int = 0) -> Iterator[StepProgress]:
        """Follows one step of `total` rows, of which `done` were there before, in `n_units` units of work on workers with `gpus` GPUs each."""
        alone = self.live is None and not self.board.lines
        step = StepProgress(self, name, total, done, gpus, n_units)
        self.did_something |= step.has_work
        if name in self.spent:  # a second time in this session
            self.before[name] = self.before.get(name, Spent()).plus(self.spent[name])
        self.spent[name] = step.spent
        ended_well = False
        with self._drawn() if alone and step.has_work else contextlib.nullcontext():
            try:
                yield step
                ended_well = True
            finally:
                step.close(ended_well)
                if step.has_work:
                    with contextlib.nullcontext() if ended_well else contextlib.suppress(RunError):
                        self.save()
        if alone:
            self.board = Board()

    def save(self) -> None:
        """Puts `spent.json` down: what was spent before, and in this session."""
        if self.root is None:
            return
        both = dict(self.before)
        for name, spent in self.spent.items():
            if spent.units or spent.wall_s:
                both[name] = both.get(name, Spent()).plus(spent)
        cost.write(self.root, both)
