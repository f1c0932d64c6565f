"""`rushes export`: the shards in the formats of other loaders."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.common import check_shards, console
from curate.errors import UsageError

if TYPE_CHECKING:
    from curate.exports.export import CaptionOf

FORMATS = ("webdataset", "hf", "diffusers-folder", "zeroscope-json", "finetrainers", "diffusion-pipe", "csv")
"""The formats of curate.exports, repeated here so that `--help` does not import it; a test compares the two."""


def command(
    source: Annotated[
        str, typer.Argument(metavar="RUN|SHARDS", help="A run (its newest shards), or a folder of shards.")
    ],
    to: Annotated[str, typer.Option("--to", help=f"The format: {', '.join(FORMATS)}.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; it must be empty or not exist.")],
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="CONDITION",
            help="Only clips that match: \"motion > 1 and camera = 'pan_left'\".",
        ),
    ] = None,
    bucket: Annotated[
        str | None, typer.Option("--bucket", help="Export only clips of this bucket, such as 16x9-480p-81f.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed for the choice among the captions of a clip.")] = 0,
) -> None:
    """Write the clips in the format of another loader.

    Each clip gets one caption, drawn by the mix of `shards: caption:`, with the facts of `suffix:`.
    """
    check_shards(source)
    from curate.dataset.run import Run
    from curate.exports.export import export
    from curate.run.data import PIPELINE
    from curate.tables import store

    opened = store.exists(store.join(store.normalise(source), PIPELINE))
    root = Run.open(source).shards_root() if opened else store.normalise(source)
    index = store.get_json(store.join(root, "index.json"))
    if index is None:
        raise UsageError(f"{root} has no index.json, so it holds no finished shards; `rushes run` writes them")
    n = export(root, to, out, caption_of=_drawn(index, seed), where=where, bucket=bucket)
    console().print(f"{n} clips as {to} in {out}", highlight=False, soft_wrap=True)


def _drawn(index: Mapping[str, Any], seed: int) -> "CaptionOf":
    """A function that picks the caption which training would draw first, by a hash of the seed and the clip's id."""
    from train_hooks.captions import CaptionPolicy, pick

    policy = CaptionPolicy.of(index)

    def caption_of(row: Mapping[str, Any]) -> str:
        lacking = [name for name in policy.columns if name not in row]
        digest = hashlib.sha256(f"{seed}:{row['clip_id']}".encode()).digest()
        return pick(policy.choices({**row, **dict.fromkeys(lacking)}), int.from_bytes(digest[:8], "big") / 2**64)

    return caption_of
