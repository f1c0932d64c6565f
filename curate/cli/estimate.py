"""The output of `rushes run --estimate`."""

from typing import TYPE_CHECKING

from rich.console import Console

from curate.cli.common import grid

if TYPE_CHECKING:
    from curate.pipeline.estimate import Estimate


def show(found: "Estimate", out: Console) -> None:
    """Prints one line per step, then the sum."""
    from curate.progress.model import duration

    table = grid(
        "step",
        "rows",
        "rows/s a worker",
        "workers",
        "tokens",
        "tokens/s a worker",
        "time",
        "cost",
        right=(1, 2, 3, 4, 5, 6, 7),
    )
    for line in found.lines:
        tokens = line.prompt_tokens + line.output_tokens
        table.add_row(
            f"  {line.name}" if line.part_of else line.name,
            f"{line.rows}",
            f"{line.rows_per_s:.3g}",
            f"{line.workers}",
            f"{tokens:.3g}" if tokens else "",
            f"{line.tokens_per_s:.0f}" if tokens else "",
            duration(line.wall_s),
            f"{line.money:.2f}" if line.money else "",
        )
    out.print(table)
    cost = f", {found.money:.2f}" if found.money else ""
    out.print(
        f"{found.sources} sources of {duration(found.footage_s)} in all: about {duration(found.wall_s)}{cost} "
        f"(measured on {duration(found.sampled_s)} of them, on this machine or cluster)",
        highlight=False,
        soft_wrap=True,
    )
