"""What a run on Ray tells Prometheus: rows, errors, busy seconds, tokens, the queue and money, per run and stage.

The driver counts, from the receipts of its workers: so the figures are those of the tables, and a worker that dies or ends takes none along.
Ray's agent on the driver's node exports them (docs/monitoring.md); a run that is done without Ray exports nothing. In Prometheus every name
begins with `ray_`, and a counter's ends in `_total`.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from curate.cluster import runner
from curate.progress.cost import OVERHEAD, Prices, Spent

BEAT_S = 5.0
"""Gauges are told this often: Ray forgets one that was not told for two of its report intervals, 20 s, and a unit may take minutes. Ours."""


@dataclass(frozen=True)
class Metric:
    """One metric as it is declared to Ray."""

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
BUSY = Metric("rushes_busy_seconds", "counter", "s", "Seconds that workers were at work, setting up not counted")
TOKENS = Metric("rushes_tokens", "counter", "tokens", "Tokens read and written", ("run", "stage", "kind"))
MONEY = Metric("rushes_money", "counter", "currency of the prices", "Money spent, where prices are given")
QUEUE = Metric("rushes_queue", "gauge", "units", "Units of work that are not done yet")
WORKERS = Metric("rushes_workers", "gauge", "workers", "Workers of the pool")
UNIT = Metric(
    *("rushes_unit_seconds", "histogram", "s", "Seconds that a unit of work takes a worker", ("run", "stage")),
    boundaries=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
)
METRICS = (ROWS, ERRORS, BUSY, TOKENS, MONEY, QUEUE, WORKERS, UNIT)


class Exporter:
    """Hands the metrics of one step over to Ray, as long as this process is connected with it.

    Args:
        run: the run's directory or URL.
        names: the tables that the step fills, each a stage of the metrics.
        n_units: units of work that the step has to do.
        workers: workers of its pool.
        gpus: GPUs of one worker.
        prices: what is paid.
        meter: where a metric's instrument comes from: something with `inc`, `set` and `observe`, or None without Ray.
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
        """Says how much there is to do, and again and again until `end`."""
        self._tell_gauges()
        threading.Thread(target=self._go_on, name="metrics", daemon=True).start()

    def _go_on(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._tell_gauges()

    def _tell_gauges(self) -> None:
        for name in self.names:
            self._tell(QUEUE, self.left, name)
            self._tell(WORKERS, self.workers, name)

    def advance(self, receipt: Mapping[str, Any]) -> None:
        """One unit more is done."""
        self.left -= 1
        self._tell_gauges()
        spent = Spent()
        spent.add(receipt)
        for name in self.names:
            heard = receipt.get("stages", {}).get(name, receipt)
            self._tell(ROWS, heard.get("done", heard["rows"]), name)
            self._tell(ERRORS, heard["errors"], name)
            self._tell(BUSY, (heard if len(self.names) > 1 else receipt).get("busy_s", 0.0), name)
            for kind in ("prompt", "output"):
                self._tell(TOKENS, heard.get(f"{kind}_tokens", 0), name, kind=kind)
        if len(self.names) > 1:
            self._tell(BUSY, spent.busy_s - sum(spent.stages.values()), OVERHEAD)
        together = ", ".join(self.names)
        self._tell(UNIT, spent.busy_s, together)
        self._tell(MONEY, self.prices.of(spent.busy_s * self.gpus, spent.prompt_tokens, spent.output_tokens), together)

    def end(self) -> None:
        """Says that nobody works here any more, and what was left."""
        self._ended.set()
        self.workers = 0
        self._tell_gauges()

    def _tell(self, metric: Metric, value: float, stage: str, **tags: str) -> None:
        if (metric.kind == "counter" and value <= 0) or (instrument := self.meter(metric)) is None:
            return
        method = {"counter": "inc", "gauge": "set", "histogram": "observe"}[metric.kind]
        getattr(instrument, method)(value, {"run": tag(self.run), "stage": tag(stage), **tags})


def tag(text: str) -> str:
    """A tag as Ray takes it: what is not ASCII is written as in a URL."""
    return text if text.isascii() else quote(text, safe=" ,/:\\")
