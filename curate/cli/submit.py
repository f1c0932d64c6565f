"""`rushes submit`: runs a pipeline as a Ray job."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.common import PipelineArgument, RunOption, SetOption, SourcesOption, console
from curate.cluster import submit
from curate.config import config


def command(
    pipeline: PipelineArgument = Path("pipeline.yaml"),
    sources: SourcesOption = None,
    run: RunOption = None,
    settings: SetOption = None,
    address: Annotated[
        str | None, typer.Option(help="The job server, such as http://head:8265; RAY_API_SERVER_ADDRESS by default.")
    ] = None,
    follow: Annotated[bool, typer.Option(help="Print the job's log until it ends.")] = True,
) -> None:
    """Submits a pipeline to a Ray cluster. Relative paths start where `ray start --head` was typed; on a cluster give absolute paths or URLs."""
    config.load(pipeline, settings or [], {"sources": sources} if sources else {})
    arguments = (
        [f"--sources={source}" for source in sources or []]
        + ([f"--run={run}"] if run else [])
        + [f"--set={s}" for s in settings or []]
    )
    screen = console()
    submit.submit(
        pipeline,
        arguments,
        address,
        follow,
        say=lambda line: screen.print(line, highlight=False, markup=False, soft_wrap=True),
    )
