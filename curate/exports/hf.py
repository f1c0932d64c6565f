"""Hugging Face `datasets`: `data/train-00000-of-00001.parquet` and so on with a `Video` column, for `datasets.load_dataset(folder)`."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.exports.items import DTYPES, Item, scalars
from curate.run.data import ROW_GROUP_ROWS


def write(items: Iterable[Item], out: Path, index: Mapping[str, Any], file_bytes: int = 500 * 10**6) -> None:
    """Writes Parquet files of about `file_bytes`: a `Video`, the caption as `text`, and every scalar column."""
    folder = out / "data"
    folder.mkdir()
    writer: pq.ParquetWriter | None = None
    n_files = n_bytes = 0
    for batch in _batches(items, ROW_GROUP_ROWS):
        rows = [
            {"video": {"bytes": i.mp4, "path": f"{i.clip_id}.mp4"}, "text": i.caption, **scalars(i.row, index)}
            for i in batch
        ]
        if writer is None or n_bytes > file_bytes:
            if writer is not None:
                writer.close()
            schema = _schema([name for name in rows[0] if name in index["columns"]], index)
            writer = pq.ParquetWriter(folder / f"{n_files:05d}.parquet", schema, compression="zstd")
            n_files, n_bytes = n_files + 1, 0
        writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))
        n_bytes += sum(len(i.mp4) for i in batch)
    if writer is not None:
        writer.close()
    for n in range(n_files):  # a file's final name contains the number of files, which is known only now
        (folder / f"{n:05d}.parquet").rename(folder / f"train-{n:05d}-of-{n_files:05d}.parquet")


def _schema(names: Sequence[str], index: Mapping[str, Any]) -> pa.Schema:
    """The Arrow schema of the video, its text and these columns; its metadata holds the features of `datasets`."""
    kinds = {name: index["columns"][name] for name in names}
    video = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema({"video": video, "text": pa.string(), **{n: pa.type_for_alias(k) for n, k in kinds.items()}})
    features = {"video": {"_type": "Video"}, "text": {"dtype": "string", "_type": "Value"}}
    features |= {name: {"dtype": DTYPES[kind], "_type": "Value"} for name, kind in kinds.items()}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _batches(items: Iterable[Item], n: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == n:
            yield batch
            batch = []
    if batch:
        yield batch
