"""`rushes search`: the clips nearest to some words."""

from typing import Annotated

import typer

from curate import index
from curate.cli.common import JsonOption, RunArgument, console, grid, print_json
from curate.run import Run


def command(
    run: RunArgument,
    words: Annotated[str, typer.Argument(help="What to look for.")],
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many clips.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Prints the kept clips that fit the words best."""
    hits = index.search(Run.open(run), words, limit)
    if as_json:
        print_json(hits)
        return
    table = grid("score", "source", "from s", "to s", "caption", "shard", "row", right=(0, 2, 3, 6))
    for hit in hits:
        name = hit["uri"].rsplit("/", 1)[-1]
        where = (f"{hit['start_s']:.2f}", f"{hit['end_s']:.2f}")
        table.add_row(f"{hit['score']:.3f}", name, *where, hit.get("caption") or "", hit["shard"], str(hit["row"]))
    out = console()
    out.print(table)
    if hits:
        out.print(f"(ranked by {hits[0]['ranked_by']})", highlight=False)
    else:
        out.print("no clip fits these words")
