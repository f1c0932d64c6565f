"""Exports: writes the clips of a shards folder in the formats of other loaders, one module for each format.

| format | files |
|---|---|
| webdataset | `000000.tar` and so on: `ID.mp4`, `ID.txt` (caption), `ID.json` (every other column) |
| hf | `data/train-00000-of-00001.parquet` and so on, 500 MB each, with a `Video` column: `datasets.load_dataset(folder)` |
| diffusers-folder | `train/ID.mp4`, `train/metadata.jsonl` (`file_name`, `text`): `load_dataset("videofolder")`, diffusers' scripts |
| zeroscope-json | `videos/ID.mp4`, `dataset.json`: a prompt for each frame index, as ExponentialML's Text-To-Video-Finetuning reads |
| finetrainers | `videos/ID.mp4`, `videos.txt`, `prompts.txt`, a line for each clip, and `training.json` |
| diffusion-pipe | `videos/ID.mp4`, `videos/ID.txt`, and `dataset.toml` with the sizes and numbers of frames of the buckets |
| csv | `videos/ID.mp4` and `clips.csv`: `path`, `caption`, every scalar column; text like a formula gets an apostrophe in front |

Each export also has an `export.json`: the format, the number of clips, the shards and the condition.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from curate.errors import UsageError, nearest
from curate.exports import (
    csv_table,
    diffusers_folder,
    diffusion_pipe,
    finetrainers,
    hf,
    items,
    webdataset,
    zeroscope_json,
)
from curate.exports.items import CaptionOf, Item
from curate.run.shard_index import check_format
from curate.tables import store

__all__ = ["FORMATS", "CaptionOf", "Item", "export"]

FORMATS: dict[str, Callable[[Iterable[Item], Path, Mapping[str, Any]], None]] = {
    "webdataset": webdataset.write,
    "hf": hf.write,
    "diffusers-folder": diffusers_folder.write,
    "zeroscope-json": zeroscope_json.write,
    "finetrainers": finetrainers.write,
    "diffusion-pipe": diffusion_pipe.write,
    "csv": csv_table.write,
}


def export(
    root: str,
    to: str,
    out: Path,
    *,
    caption_of: CaptionOf = lambda row: row.get("caption") or "",
    where: str | None = None,
    bucket: str | None = None,
) -> int:
    """Writes clips of a shards folder in another format and returns how many were written.

    Args:
        root: The shards, a directory with index.json.
        to: A key of FORMATS.
        out: The folder to write. It must be empty or not exist.
        caption_of: Returns the caption of a row.
        where: A condition on the clips (curate/tables/where.py).
        bucket: Only clips of this bucket, such as `16x9-480p-81f`.

    Raises:
        UsageError: The format, the condition or the bucket is unknown, `out` is not empty, `root` has no finished shards, or no clip matches.
    """
    if to not in FORMATS:
        raise UsageError(f"there is no export format '{to}'{nearest(to, FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder; give an empty or a new folder")
    index = store.get_json(store.join(root, "index.json"))
    if index is None:
        raise UsageError(f"{root} has no index.json, so it holds no finished shards; give a run or a folder of shards")
    check_format(index, root)
    if bucket is not None and bucket not in index["buckets"]:
        raise UsageError(
            f"no clip is in a bucket '{bucket}'{nearest(bucket, [name for name in index['buckets'] if name])}"
        )
    out.mkdir(parents=True, exist_ok=True)
    written = _Counted(items.read(root, index, caption_of, where, bucket))
    FORMATS[to](written, out, index)
    if not written.n:
        raise UsageError(f"no clip of {root} matches, so there is nothing to export; check --where and --bucket")
    record = {
        "format": to,
        "clips": written.n,
        "shards": {"path": root, "version": index["version"], "plan": index["plan"]},
        "where": where,
        "bucket": bucket,
    }
    (out / "export.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return written.n


class _Counted:
    """Counts the items that a format consumes."""

    def __init__(self, source: Iterator[Item]) -> None:
        self.source, self.n = source, 0

    def __iter__(self) -> Iterator[Item]:
        for item in self.source:
            self.n += 1
            yield item
