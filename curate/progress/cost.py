"""The cost of each step: worker seconds, tokens, and money where prices are given.

    RUN/spent.json      {"clips": {"units": 12, "busy_s": 340.2, ...}, "motion, text_area": {..., "stages": {"motion": 20.1, ...}}}

One entry per step, named as in the progress lines, summed over every session of the run. Work that is repeated adds to it, and work whose rows
`--recompute` or `--retry-errors` delete stays in it. Prices have no currency of their own.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from curate.cluster.work import Finished, Receipt
from curate.errors import RunError, UsageError
from curate.tables import store

SPENT = "spent.json"
OVERHEAD = "reading and writing"
"""The time of a shared pass outside its stages: reading thumbnails, writing rows."""


@dataclass(frozen=True)
class Prices:
    """The price of an hour of one GPU, and of a million prompt and output tokens."""

    gpu_hour: float = 0.0
    prompt_million: float = 0.0
    output_million: float = 0.0

    @classmethod
    def parse(cls, gpu_hour: float | None, million_tokens: str | None) -> "Prices":
        """Reads `0.15/0.60` as the price of a million prompt tokens and of a million output tokens. Raises UsageError."""
        try:
            read, written = (float(price) for price in (million_tokens or "0/0").split("/"))
        except ValueError:
            read = written = -1.0
        if min(read, written, gpu_hour or 0.0) < 0:
            raise UsageError(
                "prices are numbers of 0 or more: --gpu-hour 2.50, --million-tokens 0.15/0.60 (prompt/output)"
            )
        return cls(gpu_hour or 0.0, read, written)

    def of(self, gpu_s: float, prompt_tokens: float, output_tokens: float) -> float:
        """Money for GPU seconds and tokens."""
        tokens = prompt_tokens * self.prompt_million + output_tokens * self.output_million
        return gpu_s / 3600 * self.gpu_hour + tokens / 1e6


@dataclass
class Spent:
    """The sum of the receipts of a step.

    Attributes:
        units: Finished units of work.
        wall_s: Seconds from the start of the step to its end, summed over sessions.
        rows: Rows written; windows, in the scan.
        errors: Rows that failed.
        busy_s: Busy seconds of all workers, including waits for a server, without setup.
        setup_s: Setup seconds of the slowest worker, summed over sessions.
        prompt_tokens: Tokens that models read.
        output_tokens: Tokens that models wrote.
        stages: Busy seconds of each stage of a shared pass.
        gpus: GPUs of one worker.
        workers: Workers of the pool in the last session that had work; 0: unknown.
    """

    units: int = 0
    wall_s: float = 0.0
    rows: int = 0
    errors: int = 0
    busy_s: float = 0.0
    setup_s: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    gpus: float = 0.0
    workers: int = 0

    def add(self, finished: Finished[Receipt]) -> None:
        """Adds one finished unit."""
        receipt = finished.receipt
        self.units += 1
        self.rows += receipt.done
        self.errors += receipt.errors
        self.busy_s += finished.busy_s
        self.setup_s = max(self.setup_s, finished.setup_s)
        for name, part in receipt.stages.items():
            self.stages[name] = self.stages.get(name, 0.0) + part.busy_s
            self.prompt_tokens += part.prompt_tokens
            self.output_tokens += part.output_tokens

    @property
    def tokens(self) -> int:
        """Prompt and output tokens."""
        return self.prompt_tokens + self.output_tokens

    @property
    def shares(self) -> dict[str, float]:
        """Share of the busy seconds of each stage of a shared pass, [0, 1], largest first; empty when the pass has fewer than two stages."""
        if len(self.stages) < 2 or not self.busy_s:
            return {}
        rest = max(0.0, self.busy_s - sum(self.stages.values()))
        parts = {**self.stages, OVERHEAD: rest}
        return {name: s / max(self.busy_s, 1e-9) for name, s in sorted(parts.items(), key=lambda item: -item[1])}

    def plus(self, later: "Spent") -> "Spent":
        """The sum of this and a later session's."""
        if not later.units and not later.wall_s:
            return self
        both = {f.name: getattr(self, f.name) + getattr(later, f.name) for f in fields(self) if f.name not in _NO_SUM}
        stages = {name: self.stages.get(name, 0.0) + later.stages.get(name, 0.0) for name in self.stages | later.stages}
        return Spent(**both, stages=stages, gpus=later.gpus, workers=later.workers or self.workers)


_NO_SUM = ("stages", "gpus", "workers")


def slowest(spent: Mapping[str, Spent]) -> tuple[str, float, float] | None:
    """The stage with most busy seconds: its name, seconds, and share of all busy seconds, [0, 1]; None: nothing was done."""
    parts: dict[str, float] = {}
    for name, step in spent.items():
        own = {part: share * step.busy_s for part, share in step.shares.items()} or {name: step.busy_s}
        for part, busy_s in own.items():
            parts[part] = parts.get(part, 0.0) + busy_s
    total = sum(parts.values())
    if not total:
        return None
    name = max(parts, key=lambda part: parts[part])
    return name, parts[name], parts[name] / total


def read(root: str) -> dict[str, Spent]:
    """The cost of each step of the run in `root`, by name; empty when nothing is recorded. Raises RunError for a malformed file."""
    where = store.join(root, SPENT)
    try:
        saved = store.get_json(where) or {}
    except RunError as error:
        raise RunError(f"{where} is not valid JSON; delete it, and costs are counted from now on") from error
    known = {f.name for f in fields(Spent)}
    return {name: Spent(**{key: v for key, v in step.items() if key in known}) for name, step in saved.items()}


def write(root: str, spent: Mapping[str, Spent]) -> None:
    """Writes `RUN/spent.json` atomically."""
    store.put_json(store.join(root, SPENT), {name: asdict(step) for name, step in spent.items()})
