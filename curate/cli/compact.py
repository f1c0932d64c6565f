"""`rushes compact`: merges the many small part files of a long run."""

from typing import TYPE_CHECKING

from curate.cli.common import JsonOption, RunArgument, console, open_run, print_json

if TYPE_CHECKING:
    from curate.tables.compact import Compacted


def command(run: RunArgument, as_json: JsonOption = False) -> None:
    """Merge the part files of every table into few large ones, so that a long run opens quickly. No value changes."""
    opened = open_run(run)
    from curate.pipeline import execute as pipeline
    from curate.progress.progress import Progress
    from curate.tables import compact

    out = console()

    def show(done: "Compacted") -> None:
        if done.changed and not as_json:
            size = f"{done.before_bytes / 2**20:.1f} MiB -> {done.after_bytes / 2**20:.1f} MiB"
            out.print(f"{done.table}: {done.before} parts -> {done.after}, {size}", highlight=False)

    done = pipeline.compact(opened, Progress(out), show)
    if as_json:
        print_json([vars(each) for each in done])
    else:
        out.print(compact.summary(done), highlight=False)
