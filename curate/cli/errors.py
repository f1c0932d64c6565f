"""`rushes errors`: everything that failed, with the reason."""

from curate.cli.common import JsonOption, RunArgument, console, grid, print_json
from curate.dataset.run import Run
from curate.progress.status import failures


def command(run: RunArgument, as_json: JsonOption = False) -> None:
    """Lists every file, span and clip that failed, and why; `rushes run --retry-errors` tries them again."""
    failed = list(failures(Run.open(run)))
    if as_json:
        print_json(failed)
        return
    out = console()
    if not failed:
        out.print("nothing failed")
        return
    table = grid("table", "source", "clip", "error")
    for row in failed:
        table.add_row(row["table"], row["uri"] or "", row["clip_id"] or "", row["error"])
    out.print(table)
