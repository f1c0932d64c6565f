"""`rushes errors`: everything that failed, with the reason."""

from curate.cli.common import JsonOption, RunArgument, console, grid, open_run, print_json


def command(run: RunArgument, as_json: JsonOption = False) -> None:
    """List every file, span and clip that failed, and why. `rushes run --retry-errors` tries them again."""
    opened = open_run(run)
    from curate.progress.status import failures

    failed = list(failures(opened))
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
