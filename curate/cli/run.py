"""`rushes run`: raw footage in, shards and a report out."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli import summary
from curate.cli.common import PipelineArgument, RunOption, SetOption, SourcesOption, console, load, warn
from curate.cli.estimate import show as show_estimate
from curate.cli.funnel import show
from curate.cli.train import check_finetune, finetune_run
from curate.cluster import runner
from curate.pipeline import estimate as guess
from curate.pipeline import execute as walk
from curate.progress.cost import Prices
from curate.progress.progress import Progress
from curate.progress.status import counts as counts_of
from curate.report import write as report


def command(
    pipeline: PipelineArgument = Path("pipeline.yaml"),
    sources: SourcesOption = None,
    run: RunOption = None,
    settings: SetOption = None,
    recompute: Annotated[
        list[str] | None, typer.Option(help="Drops this table and all that is made from it first; repeatable.")
    ] = None,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Tries again what failed before.")] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Runs a sample alone and prints what the whole run will take.")
    ] = False,
    sample_s: Annotated[
        float, typer.Option("--sample-s", min=1, help="With --estimate: seconds of footage to try.")
    ] = 180.0,
    gpu_hour: Annotated[float | None, typer.Option("--gpu-hour", help="Price of an hour of one GPU.")] = None,
    million_tokens: Annotated[
        str | None,
        typer.Option("--million-tokens", metavar="IN/OUT", help="Prices of a million tokens read and written."),
    ] = None,
) -> None:
    """Runs a pipeline, or goes on with it: what is done already is not done again."""
    out = console()
    prices = Prices.parse(gpu_hour, million_tokens)
    _, opened = load(pipeline, sources, run, settings)
    check_finetune(opened)
    progress = Progress(out, prices)
    if estimate:
        try:
            show_estimate(guess.estimate(opened, sample_s, prices, progress), out)
        finally:
            runner.stop()
        return
    try:
        walk.execute(opened, progress, recompute or [], retry_errors)
    finally:
        runner.stop()
    status = counts_of(opened)
    summary.show(opened, status, progress, out)
    if not status["clips"]["kept"]:
        warn("warning: nothing was kept; the funnel shows where it went:")
        show(opened, out)
    if finetune_run(opened):
        report.write(opened)
