"""`rushes run`: from raw footage to shards and a report."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.common import (
    PipelineArgument,
    RunOption,
    SetOption,
    SourcesOption,
    check_pipeline_file,
    console,
    load,
    warn,
)


def command(
    pipeline: PipelineArgument = Path("pipeline.yaml"),
    sources: SourcesOption = None,
    run: RunOption = None,
    settings: SetOption = None,
    recompute: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE", help="Delete this table and everything computed from it first; repeatable."),
    ] = None,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try failed files and clips again.")] = False,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Run a sample only, and print the estimated time and cost of the whole run."),
    ] = False,
    sample_s: Annotated[
        float, typer.Option("--sample-s", min=1, help="With --estimate: seconds of footage in the sample.")
    ] = 180.0,
    gpu_hour: Annotated[float | None, typer.Option("--gpu-hour", min=0, help="Price of one GPU hour.")] = None,
    million_tokens: Annotated[
        str | None,
        typer.Option("--million-tokens", metavar="IN/OUT", help="Prices of a million input and output tokens."),
    ] = None,
) -> None:
    """Run a pipeline, or resume it: what is already done is not computed again."""
    check_pipeline_file(pipeline)
    from curate.cli import summary
    from curate.cli.estimate import show as show_estimate
    from curate.cli.funnel import show
    from curate.cli.train import check_finetune, finetune_run
    from curate.cluster import runner
    from curate.pipeline import estimate as estimation
    from curate.pipeline import execute as walk
    from curate.progress.cost import Prices
    from curate.progress.progress import Progress
    from curate.progress.status import counts as counts_of
    from curate.report import write as report

    out = console()
    prices = Prices.parse(gpu_hour, million_tokens)
    _, opened = load(pipeline, sources, run, settings)
    check_finetune(opened)
    progress = Progress(out, prices)
    if estimate:
        try:
            show_estimate(estimation.estimate(opened, sample_s, prices, progress), out)
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
        warn("warning: no clip was kept; the funnel shows which rules dropped them:")
        show(opened, out)
    if finetune_run(opened):
        report.write(opened)
