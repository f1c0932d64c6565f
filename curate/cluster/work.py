"""What passes between the driver and its workers: a job, its units of work, and their receipts. Nothing here imports Ray.

Units and receipts are small frozen dataclasses. Workers read and write tables themselves, so neither pixels nor rows pass through the driver.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

Unit = TypeVar("Unit", contravariant=True)
Result = TypeVar("Result", covariant=True)


class Job(Protocol[Unit, Result]):
    """What a worker does. A job is picklable; it may also have `close()`, which ends what `setup` started."""

    def setup(self) -> None:
        """Called once per worker, before the first unit."""

    def work(self, unit: Unit) -> Result:
        """Does one unit and returns its receipt. A unit either leaves its whole part behind or nothing."""


@dataclass(frozen=True)
class Finished(Generic[Result]):
    """One finished unit: the job's receipt, and the seconds that the worker took for setup (first unit only) and for the unit."""

    receipt: Result
    setup_s: float = 0.0
    busy_s: float = 0.0


@dataclass(frozen=True)
class StageReceipt:
    """What one stage did in a unit: rows written, rows that failed, busy seconds, tokens of its model."""

    rows: int
    errors: int
    busy_s: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Receipt:
    """What one unit did to the tables of a run.

    Attributes:
        rows: Rows written.
        errors: Rows that failed.
        counted: What the progress counts, where it is not rows (windows, in the scan).
        stages: The receipt of each stage, where several stages share a pass.
    """

    rows: int
    errors: int
    counted: int | None = None
    stages: Mapping[str, StageReceipt] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """What the progress counts."""
        return self.rows if self.counted is None else self.counted

    def of(self, table: str) -> StageReceipt:
        """The part of one table; of a table that the unit fills alone, the whole."""
        return self.stages.get(table, StageReceipt(self.rows, self.errors))


def errors_in(rows: Sequence[Mapping[str, Any]]) -> int:
    """The number of rows with an `error`."""
    return sum(row["error"] is not None for row in rows)
