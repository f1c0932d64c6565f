"""Verifies shards: each file against its sha256, each count against index.json, each mp4 against its row."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.clips.check import end_frames
from curate.config import buckets
from curate.errors import RunError, UsageError, plain_name
from curate.run.data import ROW_GROUP_ROWS
from curate.run.shard_index import check_format
from curate.stages.stage import one_sentence
from curate.tables import store
from curate.video.open import VideoError


@dataclass(frozen=True)
class Fault:
    """A fault of a shard file, which must be written again, or of the index (`shard` is None)."""

    shard: str | None
    what: str


def verify(root: str, decode: bool = False) -> Iterator[Fault]:
    """All faults of a shards directory.

    Args:
        root: The directory with index.json.
        decode: Whether to decode the first and last frame of every clip too. (They were compared with the source when they were written, and the
            sha256 shows that the bytes are unchanged.)

    Raises:
        UsageError: index.json is missing or from another version of rushes.
        RunError: rushes did not write index.json.
    """
    try:
        yield from _faults(root, decode)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise RunError(f"index.json in {root} was not written by rushes: {one_sentence(error)}") from error


def _faults(root: str, decode: bool) -> Iterator[Fault]:
    index = store.get_json(store.join(root, "index.json"))
    if index is None:
        raise UsageError(f"{root} has no index.json: it holds no finished shards")
    check_format(index, root)
    seen: dict[str, str] = {}
    counts = {"clips": 0, "bytes": 0}
    for shard in index["shards"]:
        path = store.join(root, plain_name(shard["file"]))
        counts["clips"] += shard["clips"]
        counts["bytes"] += shard["bytes"]
        try:
            data = store.get(path)
        except FileNotFoundError:
            yield Fault(shard["file"], "is missing")
            continue
        if (found := hashlib.sha256(data).hexdigest()) != shard["sha256"]:
            yield Fault(
                shard["file"],
                f"has changed since it was written (sha256 is {found[:12]}, index.json has {shard['sha256'][:12]})",
            )
            continue
        yield from _of_shard(shard, data, index["columns"], seen, decode)
    for key, value in counts.items():
        if index[key] != value:
            yield Fault(None, f"index.json says {index[key]} {key}, and its shards add up to {value}")
    if index["buckets"] != _as_json(buckets.totals(shard["buckets"] for shard in index["shards"])):
        yield Fault(None, "index.json counts other clips in its buckets than its shards do")
    listed = {shard["file"] for shard in index["shards"]}
    for name in sorted(set(store.names(root, ".parquet")) - listed):
        yield Fault(None, f"{name} is not in index.json: an unfinished run or another program wrote it")


def _of_shard(
    shard: Mapping[str, Any], data: bytes, columns: Mapping[str, str], seen: dict[str, str], decode: bool
) -> Iterator[Fault]:
    name = shard["file"]
    file = pq.ParquetFile(pa.BufferReader(data))
    there = {field.name: _kind(str(field.type)) for field in file.schema_arrow}
    columns = {column: _kind(kind) for column, kind in columns.items()}
    if there != columns:
        different = sorted({*there.items()} ^ {*columns.items()})
        yield Fault(name, f"has other columns than index.json says: {', '.join(dict(different))}")
        return
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    if sum(groups) != shard["clips"]:
        yield Fault(name, f"holds {sum(groups)} clips, and index.json says {shard['clips']}")
    if max(groups, default=0) > ROW_GROUP_ROWS:
        yield Fault(name, f"has row groups of up to {max(groups)} rows; a random read wants {ROW_GROUP_ROWS} at most")
    counts: dict[str, int] = {}
    for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS):
        for row in batch.to_pylist():
            clip_id = row["clip_id"]
            if clip_id in seen:
                yield Fault(name, f"clip {clip_id} is in {seen[clip_id]} as well")
            seen[clip_id] = name
            counts[row["bucket"] or ""] = counts.get(row["bucket"] or "", 0) + 1
            if len(row["mp4"] or b"") != row["mp4_bytes"]:
                yield Fault(
                    name, f"clip {clip_id} has {len(row['mp4'] or b'')} bytes, and its row says {row['mp4_bytes']}"
                )
            elif decode and (why := _of_clip(row)):
                yield Fault(name, f"clip {clip_id}: {why}")
    if counts != shard["buckets"]:
        yield Fault(name, "holds other numbers of clips in its buckets than index.json says")


def _kind(name: str) -> str:
    """The type name with Parquet's `element` for the values of a list, which Arrow calls `item`."""
    return name.replace("<item:", "<element:")


def _of_clip(row: Mapping[str, Any]) -> str:
    try:
        end_frames(row["mp4"], row["n_frames"])
    except VideoError as error:
        return str(error)
    return ""


def _as_json(value: Any) -> Any:
    """The value after a round trip through JSON: a tuple becomes a list."""
    if isinstance(value, dict):
        return {key: _as_json(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
