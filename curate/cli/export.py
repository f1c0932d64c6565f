"""`rushes export`: the shards in the formats that other people's loaders read."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from curate.cli.common import console
from curate.dataset.run import Run
from curate.errors import UsageError
from curate.exports.export import FORMATS, CaptionOf, export
from curate.run.data import PIPELINE
from curate.tables import store


def command(
    source: Annotated[
        str, typer.Argument(metavar="RUN|SHARDS", help="A run (its newest shards), or a folder of shards.")
    ],
    to: Annotated[str, typer.Option("--to", help=f"The format: {', '.join(FORMATS)}.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write, empty or not there yet.")],
    where: Annotated[
        str | None, typer.Option("--where", help="Which clips: \"motion > 1 and camera = 'pan_left'\".")
    ] = None,
    bucket: Annotated[str | None, typer.Option("--bucket", help="Clips of this bucket alone: 16x9-480p-81f.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws among a clip's captions.")] = 0,
) -> None:
    """Writes the clips for another loader. Captions are drawn by the mix of `shards: caption:`, once per clip, with its `suffix:` facts."""
    opened = store.exists(store.join(store.normalise(source), PIPELINE))
    root = Run.open(source).shards_root() if opened else store.normalise(source)
    index = store.get_json(store.join(root, "index.json"))
    if index is None:
        raise UsageError(f"{root} has no index.json: it holds no finished shards")
    n = export(root, to, out, caption_of=_drawn(index, seed), where=where, bucket=bucket)
    console().print(f"{n} clips as {to} in {out}", highlight=False, soft_wrap=True)


def _drawn(index: Mapping[str, Any], seed: int) -> CaptionOf:
    """The caption that training would draw first, by a hash of the seed and the clip's id."""
    from train_hooks.captions import CaptionPolicy, pick

    policy = CaptionPolicy.of(index)

    def caption_of(row: Mapping[str, Any]) -> str:
        lacking = [name for name in policy.columns if name not in row]
        digest = hashlib.sha256(f"{seed}:{row['clip_id']}".encode()).digest()
        return pick(policy.choices({**row, **dict.fromkeys(lacking)}), int.from_bytes(digest[:8], "big") / 2**64)

    return caption_of
