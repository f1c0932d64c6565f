"""The Prometheus metrics of a run on Ray: rows, errors, busy seconds, tokens, queue and money, per run and stage.

The driver counts from the receipts of its workers, so the figures equal those of the tables, and a worker that dies loses none. Ray's agent on
the driver's node exports them (docs/monitoring.md); a run without Ray exports nothing. In Prometheus every name starts with `ray_`, and a
counter's name ends in `_total`.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from curate.cluster import runner
from curate.cluster.work import Finished, Receipt
from curate.progress.cost import OVERHEAD, Prices, Spent

BEAT_S = 5.0
"""Interval for gauges, in seconds: Ray drops one that was not set for 20 s (two report intervals), and a unit may take minutes. Ours."""


@dataclass(frozen=True)
class Metric:
    """A metric as declared to Ray."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    what: str
    tags: tuple[str, ...] = ("run", "stage")
    boundaries: tuple[float, ...] = ()

    @property
    def exported(self) -> tuple[str, ...]:
        """Its names in Prometheus."""
        ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
        return tuple(f"ray_{self.name}{end}" for end in ends[self.kind])


ROWS = Metric("rushes_rows", "counter", "files, windows or clips", "Rows done, counted as in the progress lines")
ERRORS = Metric("rushes_errors", "counter", "rows", "Rows that failed")
BUSY = Metric("rushes_busy_seconds", "counter", "s", "Busy seconds of workers, without setup")
TOKENS = Metric("rushes_tokens", "counter", "tokens", "Prompt and output tokens", ("run", "stage", "kind"))
MONEY = Metric("rushes_money", "counter", "currency of the prices", "Money spent, where prices are given")
QUEUE = Metric("rushes_queue", "gauge", "units", "Pending units of work")
WORKERS = Metric("rushes_workers", "gauge", "workers", "Workers of the pool")
UNIT = Metric(
    *("rushes_unit_seconds", "histogram", "s", "Busy seconds of one unit of work", ("run", "stage")),
    boundaries=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
)
METRICS = (ROWS, ERRORS, BUSY, TOKENS, MONEY, QUEUE, WORKERS, UNIT)


class Exporter:
    """Reports the metrics of one step to Ray while this process is connected to it.

    Args:
        run: The run's directory or URL.
        names: The tables that the step fills, each a stage of the metrics.
        n_units: Pending units of work.
        workers: Workers of the pool.
        gpus: GPUs of one worker.
        prices: Prices of GPU hours and tokens.
        meter: Returns the instrument of a metric (with `inc`, `set`, `observe`), or None without Ray.
    """

    def __init__(
        self,
        run: str,
        names: tuple[str, ...],
        n_units: int = 0,
        workers: int = 0,
        gpus: float = 0.0,
        prices: Prices | None = None,
        meter: Callable[[Metric], Any] = runner.meter,
    ) -> None:
        self.run, self.names, self.left, self.workers = run, names, n_units, workers
        self.gpus, self.prices, self.meter = gpus, prices or Prices(), meter
        self._ended = threading.Event()

    def begin(self) -> None:
        """Sets the gauges now and every BEAT_S seconds until `end`."""
        self._set_gauges()
        threading.Thread(target=self._beat, name="metrics", daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._set_gauges()

    def _set_gauges(self) -> None:
        for name in self.names:
            self._report(QUEUE, self.left, name)
            self._report(WORKERS, self.workers, name)

    def advance(self, finished: Finished[Receipt]) -> None:
        """Adds one finished unit."""
        self.left -= 1
        self._set_gauges()
        spent = Spent()
        spent.add(finished)
        for name in self.names:
            part = finished.receipt.of(name)
            self._report(ROWS, part.rows if finished.receipt.counted is None else finished.receipt.counted, name)
            self._report(ERRORS, part.errors, name)
            self._report(BUSY, part.busy_s if len(self.names) > 1 else finished.busy_s, name)
            self._report(TOKENS, part.prompt_tokens, name, kind="prompt")
            self._report(TOKENS, part.output_tokens, name, kind="output")
        if len(self.names) > 1:
            self._report(BUSY, spent.busy_s - sum(spent.stages.values()), OVERHEAD)
        together = ", ".join(self.names)
        self._report(UNIT, spent.busy_s, together)
        self._report(
            MONEY, self.prices.of(spent.busy_s * self.gpus, spent.prompt_tokens, spent.output_tokens), together
        )

    def end(self) -> None:
        """Sets the gauges to no workers and the units that are left."""
        self._ended.set()
        self.workers = 0
        self._set_gauges()

    def _report(self, metric: Metric, value: float, stage: str, **tags: str) -> None:
        if (metric.kind == "counter" and value <= 0) or (instrument := self.meter(metric)) is None:
            return
        method = {"counter": "inc", "gauge": "set", "histogram": "observe"}[metric.kind]
        getattr(instrument, method)(value, {"run": tag(self.run), "stage": tag(stage), **tags})


def tag(text: str) -> str:
    """A tag value that Ray accepts: characters outside ASCII are percent-encoded."""
    return text if text.isascii() else quote(text, safe=" ,/:\\")
