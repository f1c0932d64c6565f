"""`rushes status`: how far a run is and what came of it."""

from curate.cli.common import JsonOption, RunArgument, console, grid, print_json
from curate.run import Run
from curate.status import counts


def command(run: RunArgument, as_json: JsonOption = False) -> None:
    """Shows the counts of a run: sources, clips, seconds, shards, and the rows of each table."""
    status = counts(Run.open(run))
    if as_json:
        print_json(status)
        return
    out = console()
    table = grid("", "", right=(1,))
    for group in ("sources", "clips", "seconds", "shards"):
        for key, value in (status[group] or {}).items():
            if isinstance(value, int | float):
                table.add_row(
                    f"{group} {key.replace('_', ' ')}", f"{value:.1f}" if isinstance(value, float) else str(value)
                )
    for name, table_counts in status["tables"].items():
        table.add_row(f"table {name}", f"{table_counts['rows']} rows, {table_counts['errors']} errors")
    out.print(table)
    if not status["finished"]:
        out.print("not finished: `rushes run` goes on with it", highlight=False)
