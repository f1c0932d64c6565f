"""CSV: `videos/ID.mp4` and `clips.csv` with `path`, `caption` and every scalar column."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from curate.exports.items import Item, scalars, write_videos

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Text that starts with one of these is a formula to a spreadsheet (OWASP, "CSV Injection")."""


def write(items: Iterable[Item], out: Path, index: Mapping[str, Any]) -> None:
    """Writes the table. Text that a spreadsheet would run as a formula gets an apostrophe in front, see `inert`."""
    writer = None
    with (out / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        for item in write_videos(items, out):
            row = {"path": f"videos/{item.clip_id}.mp4", **scalars(item.row, index), "caption": item.caption}
            row = {name: inert(value) for name, value in row.items()}
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)


def inert(value: Any) -> Any:
    """Puts an apostrophe in front of text that starts like a formula: captions and file names are untrusted. Other values are unchanged."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
