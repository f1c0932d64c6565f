"""Clips on their way out: reads them from the shards, and the parts that several formats share."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import plain_name
from curate.tables import store
from curate.tables.where import parse

DTYPES = {
    "string": "string",
    "bool": "bool",
    "int32": "int32",
    "int64": "int64",
    "float": "float32",
    "double": "float64",
}
"""Scalar column types: Arrow's name to the name in `datasets`."""
CaptionOf = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Item:
    """One clip to export. `row` holds all its columns except the mp4."""

    clip_id: str
    mp4: bytes
    caption: str
    row: Mapping[str, Any]


def read(
    root: str, index: Mapping[str, Any], caption_of: CaptionOf, where: str | None = None, bucket: str | None = None
) -> Iterator[Item]:
    """The clips in the order of the shards. Rows that `where` or `bucket` excludes are skipped before their mp4 is read."""
    for shard in index["shards"]:
        with store.open_arrow(store.join(root, plain_name(shard["file"]))) as handle:
            file = pq.ParquetFile(handle)
            columns = [name for name in file.schema_arrow.names if name != "mp4"]
            condition = parse(where, {field.name: field.type for field in file.schema_arrow}) if where else None
            for group in range(file.num_row_groups):
                positions = pa.array(range(file.metadata.row_group(group).num_rows))
                rows = file.read_row_group(group, columns=columns).append_column("_at", positions)
                if condition is not None:
                    rows = rows.filter(condition.expression)
                if bucket is not None:
                    rows = rows.filter(pc.equal(rows.column("bucket"), bucket))
                if not len(rows):
                    continue
                mp4s = file.read_row_group(group, columns=["mp4"]).column("mp4")
                for row in rows.to_pylist():
                    mp4 = mp4s[row.pop("_at")].as_py()
                    yield Item(plain_name(row["clip_id"]), mp4, " ".join(caption_of(row).split()), row)


def write_videos(items: Iterable[Item], out: Path) -> Iterator[Item]:
    """Writes each mp4 to `videos/` and then yields its item."""
    (out / "videos").mkdir()
    for item in items:
        (out / "videos" / f"{item.clip_id}.mp4").write_bytes(item.mp4)
        yield item


def scalars(row: Mapping[str, Any], index: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of DTYPES: no lists, structs or bytes."""
    return {name: row[name] for name, kind in index["columns"].items() if kind in DTYPES and name in row}


def json_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row for JSON: without bytes, with null for NaN and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
        if not isinstance(value, bytes)
    }
