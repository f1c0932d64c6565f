"""`rushes search`: the clips nearest to some words, to a clip or to a picture."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.common import JsonOption, RunArgument, console, grid, print_json
from curate.dataset import contact
from curate.dataset.run import Run
from curate.errors import UsageError
from curate.search import index


def command(
    run: RunArgument,
    words: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    clip: Annotated[str | None, typer.Option("--clip", help="The id of a clip: what looks like it.")] = None,
    image: Annotated[str | None, typer.Option("--image", help="A picture's file: what looks like it.")] = None,
    by: Annotated[
        str, typer.Option("--by", help="What is compared: auto, caption, picture, or words (full text).")
    ] = "auto",
    where: Annotated[
        str | None, typer.Option("--where", help="Which clips: \"motion > 1 and camera = 'pan_left'\".")
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many clips.")] = 10,
    version: Annotated[int | None, typer.Option("--version", help="Of the shards; left out, the newest.")] = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Writes a PNG with pictures of the clips.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Prints the kept clips that fit best: to words, to a clip, to a picture, or just to a condition."""
    if by not in ("auto", "caption", "picture", "words"):
        raise UsageError(f"--by is auto, caption, picture or words, not '{by}'")
    if words is None and clip is None and image is None and where is None:
        raise UsageError("what is to be found? Give words, --clip, --image or --where")
    opened = Run.open(run)
    hits = index.search(
        opened, words, clip=clip, image=image, by=by, where=where, limit=limit, version=version  # type: ignore[arg-type]
    )  # fmt: skip
    out = console()
    if sheet is not None:
        told = [
            f"{i + 1}. {hit['score'] or 0:.3f}  {hit.get('caption') or hit['clip_id']}" for i, hit in enumerate(hits)
        ]
        pictures = dict(opened.thumbnails({hit["clip_id"] for hit in hits}))
        sheet.write_bytes(contact.clip_sheet([(t, pictures[h["clip_id"]]) for t, h in zip(told, hits, strict=True)]))
    if as_json:
        print_json(hits)
        return
    table = grid("score", "clip", "source", "from s", "to s", "caption", "shard", "row", right=(0, 3, 4, 7))
    for hit in hits:
        name = hit["uri"].rsplit("/", 1)[-1]
        score = "" if hit["score"] is None else f"{hit['score']:.3f}"
        place = (f"{hit['start_s']:.2f}", f"{hit['end_s']:.2f}")
        table.add_row(score, hit["clip_id"], name, *place, hit.get("caption") or "", hit["shard"], str(hit["row"]))
    out.print(table)
    if hits:
        out.print(f"(ranked by {hits[0]['ranked_by']})", highlight=False)
    else:
        out.print("no clip fits")
