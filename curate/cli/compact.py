"""`rushes compact`: few large part files in place of many small ones."""

from curate.cli.common import JsonOption, RunArgument, console, print_json
from curate.dataset.run import Run
from curate.pipeline import execute as pipeline
from curate.progress.progress import Progress
from curate.tables import compact as work
from curate.tables.compact import Compacted


def command(run: RunArgument, as_json: JsonOption = False) -> None:
    """Merges the part files of every table into few large ones, so that a long run opens quickly; no value changes."""
    out = console()

    def show(done: Compacted) -> None:
        if done.changed and not as_json:
            size = f"{done.before_bytes / 2**20:.1f} MiB -> {done.after_bytes / 2**20:.1f} MiB"
            out.print(f"{done.table}: {done.before} parts -> {done.after}, {size}", highlight=False)

    done = pipeline.compact(Run.open(run), Progress(out), show)
    if as_json:
        print_json([vars(each) for each in done])
    else:
        out.print(work.told(done), highlight=False)
