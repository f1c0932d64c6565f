"""`rushes submit`: runs a pipeline as a Ray job."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.common import (
    PipelineArgument,
    RunOption,
    SetOption,
    SourcesOption,
    Stopped,
    check_pipeline_file,
    console,
)

if TYPE_CHECKING:
    from curate.cluster.submit import Job


def command(
    pipeline: PipelineArgument = Path("pipeline.yaml"),
    sources: SourcesOption = None,
    run: RunOption = None,
    settings: SetOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The job server, such as http://head:8265. Default: RAY_API_SERVER_ADDRESS, or this machine.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option(help="Print the job's log until the job ends.")] = True,
) -> None:
    """Submit a pipeline to a Ray cluster as a job and print its log. The same command again reattaches to a running job.

    Relative paths start at the directory where `ray start --head` was typed; on a cluster give absolute paths or URLs.
    Ctrl-C detaches: the job continues, and the command to stop it is printed.
    """
    check_pipeline_file(pipeline)
    from curate.cluster import submit
    from curate.config import pipeline_file

    loaded = pipeline_file.load(pipeline, settings or [], {"sources": sources} if sources else {})
    arguments = (
        [f"--sources={source}" for source in sources or []]
        + ([f"--run={run}"] if run else [])
        + [f"--set={s}" for s in settings or []]
    )
    job = submit.submit(pipeline, arguments, run or loaded.config.run, address)
    if job.is_new:
        say(f"submitted {job.id}; its log:  {job.command('logs')}")
    else:
        say(f"reattached to {job.id}, which an earlier command submitted")
    if not follow:
        say(_commands(job))
        return
    try:
        submit.follow(job, say)
    except Stopped as stopped:
        say(f"detached; job {job.id} is still running\n{_commands(job)}\nreattach:  the same command again")
        raise typer.Exit(stopped.exit_code) from None


def say(line: str) -> None:
    """Prints a line as it is."""
    console().print(line, highlight=False, markup=False, soft_wrap=True)


def _commands(job: "Job") -> str:
    return f"follow:    {job.command('logs --follow')}\nstop:      {job.command('stop')}"
