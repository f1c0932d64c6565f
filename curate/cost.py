"""What a step has cost so far, and what it will have cost: worker seconds, tokens, and money where prices are given.

Prices are in whatever currency they were typed in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.errors import UsageError


@dataclass(frozen=True)
class Prices:
    """Of an hour of one GPU, and of a million tokens read and written."""

    gpu_hour: float = 0.0
    prompt_million: float = 0.0
    output_million: float = 0.0

    @classmethod
    def parse(cls, gpu_hour: float | None, million_tokens: str | None) -> "Prices":
        """Reads `0.15/0.60` as the price of a million tokens read and of a million written. Raises UsageError."""
        try:
            read, written = (float(price) for price in (million_tokens or "0/0").split("/"))
        except ValueError:
            read = written = -1.0
        if min(read, written, gpu_hour or 0.0) < 0:
            raise UsageError(
                "prices are numbers of 0 or more: --gpu-hour 2.50, --million-tokens 0.15/0.60 (read/written)"
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
        units: Units of work done.
        wall_s: Seconds from the step's beginning to its end.
        rows: Rows written; windows, in the scan.
        errors: Those of them that failed.
        busy_s: Seconds that workers were at work, waiting for a server included, setting up not.
        setup_s: Seconds of the slowest worker's setting up.
        prompt_tokens: Tokens that models read.
        output_tokens: Tokens that models wrote.
        stages: Busy seconds of each stage of a pass that several share.
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

    def add(self, receipt: Mapping[str, Any]) -> None:
        """Adds what one unit came to."""
        self.units += 1
        self.rows += receipt.get("done", receipt["rows"])
        self.errors += receipt["errors"]
        self.busy_s += receipt.get("busy_s", 0.0)
        self.setup_s = max(self.setup_s, receipt.get("setup_s", 0.0))
        for name, heard in receipt.get("stages", {}).items():
            self.stages[name] = self.stages.get(name, 0.0) + heard["busy_s"]
            self.prompt_tokens += heard["prompt_tokens"]
            self.output_tokens += heard["output_tokens"]

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.output_tokens
