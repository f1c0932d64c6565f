"""The progress of a run in this process: receipts update the model (model.py), the costs (`RUN/spent.json`) and Ray's metrics.

A terminal shows the model as a table drawn in place, a log as plain lines.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live

from curate.cluster import runner
from curate.cluster.pool import Resources
from curate.cluster.work import Finished, Receipt
from curate.errors import RunError
from curate.progress import cost, lines
from curate.progress.cost import Prices, Spent
from curate.progress.lines import LinePrinter
from curate.progress.live import Drawn, is_terminal
from curate.progress.metrics import Exporter
from curate.progress.model import Board, Line, bottleneck

SAVED_EVERY_S = 30.0
"""`spent.json` is written this often while a step runs: what a kill can remove from the account, in seconds. Ours."""
PER_SECOND = 2
"""Redraws per second."""


class StepProgress:
    """One step: a table that is being filled, or several in one pass."""

    def __init__(self, owner: "Progress", name: str, total: int, done: int, gpus: float, n_units: int) -> None:
        self.owner, self.name, self.total, self.at_start = owner, name, total, done
        self.spent = Spent(gpus=gpus)
        self.names = name.split(", ")
        self.lines = [owner.board.line(one) for one in self.names]
        self.n_units = n_units
        self.exporter: Exporter | None = None
        self.began = self.saved = time.monotonic()
        self._ended = threading.Event()
        for line in self.lines:
            line.total, line.done, line.state = total, done, "starting" if self.has_work else "done"
        if self.has_work:
            tables = name if len(self.names) == 1 else f"{len(self.names)} tables in one pass"
            self.waits(f"{tables}: starting workers ({total - done} of {total} {self.lines[0].unit} are pending)")

    @property
    def has_work(self) -> bool:
        """Whether anything is pending."""
        return self.total > self.at_start

    def waits(self, reason: str) -> None:
        """Reports why the step does not advance yet."""
        self.owner.board.note = reason
        if self.owner.live is None:
            self.owner.printer.sentence("note", reason)

    def staffed(self, workers: int) -> None:
        """Records the number of workers; the first units are in progress."""
        self.spent.workers = workers
        if self.owner.root is not None:
            names, prices = tuple(self.names), self.owner.prices
            self.exporter = Exporter(self.owner.root, names, self.n_units, workers, self.spent.gpus, prices)
            self.exporter.begin()

    def advance(self, finished: Finished[Receipt]) -> None:
        """Adds one finished unit."""
        self.owner.on_receipt()
        self.spent.add(finished)
        if self.exporter is not None:
            self.exporter.advance(finished)
        now = time.monotonic()
        for line in self.lines:
            receipt = finished.receipt.of(line.name)
            if line.state == "starting":
                line.state = "running"
                line.throughput.add(line.done, now - finished.busy_s)  # rates exclude the setup of workers
            line.done += receipt.rows if finished.receipt.counted is None else finished.receipt.counted
            line.errors += receipt.errors
            line.throughput.add(line.done, now)
        rates = self._tokens_and_money()
        self.owner.board.note = "; ".join(filter(None, (bottleneck(self.names, self.spent), rates)))
        if now - self.saved > SAVED_EVERY_S:
            self.saved = now
            self.spent.wall_s = now - self.began
            self.owner.save()
        if self.owner.live is None and self.lines[0].done < self.total:
            self.owner.printer.table(self.lines, rates, throttle=True)

    def _tokens_and_money(self) -> str:
        """Tokens per second so far and the money spent, where there are any."""
        spent, wall_s = self.spent, max(time.monotonic() - self.began, 1e-3)
        tokens = (
            f"{spent.prompt_tokens / wall_s:.0f} + {spent.output_tokens / wall_s:.0f} tokens/s" if spent.tokens else ""
        )
        money = self.owner.prices.of(spent.busy_s * spent.gpus, spent.prompt_tokens, spent.output_tokens)
        return ", ".join(filter(None, (tokens, f"{money:.2f} spent" if money else "")))

    def start_heartbeat(self) -> None:
        """In a log, prints a line every EVERY_S seconds even while no unit finishes: models may load, or a unit may take minutes."""
        if self.has_work and self.owner.live is None:
            threading.Thread(target=self._beat, name="progress", daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(1.0):
            if self.owner.printer.silent_s(self.lines) > lines.EVERY_S:
                self.owner.printer.beat(self.lines, time.monotonic() - self.began)

    def close(self, ended_well: bool) -> None:
        """Reports the end of the step, when there was anything to do."""
        self._ended.set()
        if self.has_work:
            self.spent.wall_s = time.monotonic() - self.began
        if self.exporter is not None:
            self.exporter.end()
        for line in self.lines:
            line.state = "done" if ended_well else "stopped"
            line.average = self.spent.rows / max(self.spent.wall_s, 1e-3)
        self.owner.board.note = ""
        if self.has_work and self.owner.live is None:
            slowest = next((f"{name} {share:.0%} of busy time" for name, share in self.spent.shares.items()), "")
            self.owner.printer.table(self.lines, ", ".join(filter(None, (self._tokens_and_money(), slowest))))


class Progress:
    """The progress of a run, shown on `console`, and what each step has cost.

    Attributes:
        spent: The cost of each step of this session, by name.
        did_something: Whether any step had anything to do.
        on_receipt: Called at every receipt; an exception that it raises ends the run.
    """

    def __init__(self, console: Console | None = None, prices: Prices | None = None) -> None:
        self.console = console or Console()
        self.printer = LinePrinter(self.console)
        self.prices = prices or Prices()
        self.spent: dict[str, Spent] = {}
        self.before: dict[str, Spent] = {}
        self.root: str | None = None
        self.board = Board()
        self.live: Live | None = None
        self.did_something = False
        self.on_receipt: Callable[[], None] = lambda: None

    @contextmanager
    def over(self, tables: Sequence[str], root: str | None = None) -> Iterator[None]:
        """Follows a walk over these tables, all listed from the start. With the run's `root`, costs are added to its spent.json."""
        self.board = Board([Line(name) for name in tables])
        if root is not None:
            self.root, self.before = root, cost.read(root)
        with self._drawn():
            yield

    @contextmanager
    def _drawn(self) -> Iterator[None]:
        if self.live is not None or not is_terminal(self.console):
            yield
            return
        with Live(
            console=self.console, get_renderable=lambda: Drawn(self.board), refresh_per_second=PER_SECOND
        ) as self.live:
            try:
                yield
            finally:
                self.live.refresh()
                self.live = None

    def seen(self, name: str, total: int, done: int) -> None:
        """Sets the counts of a table that has nothing to do, or not yet: `done` of `total` rows exist."""
        line = self.board.line(name)
        line.total, line.done = total, done
        line.state = "done" if done >= total else "waiting"

    def doing(self, what: str) -> None:
        """Reports work that fills no table."""
        self.board.note = what
        if what and self.live is None:
            self.printer.sentence("note", what)

    @contextmanager
    def step(self, name: str, total: int, done: int, gpus: float = 0.0, n_units: int = 0) -> Iterator[StepProgress]:
        """Follows one step.

        Args:
            name: The table, or the tables of a shared pass, joined by `, `.
            total: Rows when it is full.
            done: Rows that existed before.
            gpus: GPUs of one worker.
            n_units: Pending units of work.
        """
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

    def run(
        self,
        name: str,
        job: Any,
        units: Sequence[Any],
        resources: Resources,
        total: int,
        done: int,
        errors: Mapping[str, int] | None = None,
    ) -> Iterator[Finished[Receipt]]:
        """Does units of work in a pool of workers and follows them as one step; yields each finished unit.

        Args:
            name: As for `step`.
            job: What a worker does (curate/cluster/work.py); its receipts are `Receipt`.
            units: The pending units.
            resources: What one worker takes, and how many there may be.
            total: As for `step`.
            done: As for `step`.
            errors: Failed rows of each table that existed before.
        """
        with self.step(name, total, done, resources.gpus, len(units)) as step:
            step.start_heartbeat()
            if units:
                step.staffed(runner.workers_for(resources, len(units), step.waits))
            for line in step.lines:
                line.errors = (errors or {}).get(line.name, line.errors)
            for finished in runner.run_units(job, units, resources):
                step.advance(finished)
                yield finished

    def save(self) -> None:
        """Writes `spent.json`: the costs of earlier sessions plus this one's."""
        if self.root is None:
            return
        both = dict(self.before)
        for name, spent in self.spent.items():
            if spent.units or spent.wall_s:
                both[name] = both.get(name, Spent()).plus(spent)
        cost.write(self.root, both)
