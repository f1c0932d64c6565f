"""A `videofolder` for diffusers: `train/ID.mp4` and `train/metadata.jsonl` (`file_name`, `text`, every scalar column)."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from curate.exports.items import Item, json_values, scalars


def write(items: Iterable[Item], out: Path, index: Mapping[str, Any]) -> None:
    """Writes one folder with the videos and a line of JSON for each."""
    folder = out / "train"
    folder.mkdir()
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for item in items:
            (folder / f"{item.clip_id}.mp4").write_bytes(item.mp4)
            columns = json_values(scalars(item.row, index))
            entry = {"file_name": f"{item.clip_id}.mp4", "text": item.caption, **columns}
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
