"""`rushes search`: the clips nearest to a text, a clip or a picture."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.common import JsonOption, RunArgument, console, grid, open_run, print_json
from curate.errors import UsageError


def command(
    run: RunArgument,
    words: Annotated[str | None, typer.Argument(help="The text to search for, in quotes.")] = None,
    clip: Annotated[
        str | None, typer.Option("--clip", metavar="CLIP_ID", help="Find clips that look like this clip.")
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="FILE", help="Find clips that look like this picture.")
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="What to compare: auto, caption, picture, or words (full-text search).")
    ] = "auto",
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="CONDITION",
            help="Only clips that match: \"motion > 1 and camera = 'pan_left'\".",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="Maximum number of clips.")] = 10,
    version: Annotated[
        int | None, typer.Option("--version", help="Version of the shards. Default: the newest.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="OUT.png", help="Write a PNG with frames of the clips.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the kept clips that match best: a text, a clip, a picture, or only a condition."""
    if by not in ("auto", "caption", "picture", "words"):
        raise UsageError(f"--by is auto, caption, picture or words, not '{by}'")
    if words is None and clip is None and image is None and where is None:
        raise UsageError(
            f'nothing to search for: give a text, --clip, --image or --where, such as  rushes search {run} "a red car"'
        )
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UsageError(f"--sheet {sheet}: the file name must end in .png")
    opened = open_run(run)
    from curate.dataset import contact
    from curate.search import index

    hits = index.search(
        opened, words, clip=clip, image=image, by=by, where=where, limit=limit, version=version  # type: ignore[arg-type]
    )  # fmt: skip
    out = console()
    if sheet is not None:
        titles = [
            f"{i + 1}. {hit['score'] or 0:.3f}  {hit.get('caption') or hit['clip_id']}" for i, hit in enumerate(hits)
        ]
        pictures = dict(opened.thumbnails({hit["clip_id"] for hit in hits}))
        sheet.write_bytes(contact.clip_sheet([(t, pictures[h["clip_id"]]) for t, h in zip(titles, hits, strict=True)]))
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
        if words is not None and (sentence := index.poor_fit(opened, hits)):
            out.print(sentence, highlight=False)
    else:
        out.print("no clip matches")
