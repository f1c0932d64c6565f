"""The columns of the clips in the form that the report's page reads.

| kind | values | in a piece of bytes |
|---|---|---|
| number | any number | float32 if that is exact, else float64; NaN is null |
| flag | true or false | uint8; 255 is null |
| word | text with few different values, `words` | uint16, an index into `words`; 65535 is null |
| clip | ids of other clips | int32, a row number; -1 is null |
| text | everything else except vectors | JSON, in chunks of rows |

Values are exact, so a comparison in the page gives the same result as in `curate/run/select.py`.
"""

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WORDS = 1000
"""A column with more different texts than this has kind text, not word. Our choice."""
TEXT_ROWS = 256
"""Rows in a chunk of text. Our choice: opening a clip fetches one chunk."""
LIST_ITEMS = 64
"""The maximum number of items shown of a list. Our choice."""


@dataclass
class Packed:
    """The descriptions of the columns, and the pieces with their values."""

    columns: list[dict[str, Any]] = field(default_factory=list)
    pieces: dict[str, bytes] = field(default_factory=dict)


def pack(clips: pa.Table) -> Packed:
    """Packs the columns of the wide view, one row per clip. `clip_id` is text."""
    packed, texts = Packed(), {}
    for name in clips.column_names:
        column = clips.column(name).combine_chunks()
        kind, data, more = ("text", None, {}) if name == "clip_id" else _packed(column, clips.column("clip_id"))
        if kind is None:
            continue
        described = {"name": name, "kind": kind, "nulls": column.null_count, **more}
        if data is None:
            texts[name] = column
        else:
            described["piece"] = f"column-{len(packed.columns):03d}"
            packed.pieces[described["piece"]] = data
        packed.columns.append(described)
    for n, first in enumerate(range(0, len(clips), TEXT_ROWS)):
        chunk = {name: _plain_all(column.slice(first, TEXT_ROWS)) for name, column in texts.items()}
        rows = [
            {name: values[i] for name, values in chunk.items() if values[i] is not None}
            for i in range(min(TEXT_ROWS, len(clips) - first))
        ]
        packed.pieces[f"text-{n:05d}"] = as_json(rows)
    return packed


def as_json(value: Any) -> bytes:
    """Compact JSON. A value without a JSON type becomes text. A lone surrogate, which UTF-8 cannot encode, is replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    return text.encode("utf-8", "replace")


def piece(name: str, data: bytes) -> bytes:
    """A piece as a script: a page opened from a disk may load only scripts and pictures."""
    return f'deliver("{name}","{base64.b64encode(zlib.compress(data, 6)).decode()}");\n'.encode()


def _packed(column: pa.Array, clip_ids: pa.ChunkedArray) -> tuple[str | None, bytes | None, dict[str, Any]]:
    """(kind, bytes or None for text, further keys of the description). The kind is None for a column that is not shown."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return "flag", pc.fill_null(column.cast(pa.uint8()), 255).to_numpy(zero_copy_only=False).tobytes(), {}
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number", *_numbers(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        at = pc.index_in(column, clip_ids)
        if at.null_count == column.null_count < len(column):
            return "clip", pc.fill_null(at, -1).to_numpy(zero_copy_only=False).astype("<i4").tobytes(), {}
        coded = column.dictionary_encode()
        if len(coded.dictionary) <= WORDS:
            codes = pc.fill_null(coded.indices.cast(pa.int64()), 65535).to_numpy(zero_copy_only=False)
            return "word", codes.astype("<u2").tobytes(), {"words": coded.dictionary.to_pylist()}
        return "text", None, {}
    if pa.types.is_fixed_size_list(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return None, None, {}
    return "text", None, {}


def _numbers(column: pa.Array) -> tuple[bytes, dict[str, Any]]:
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        short = values.astype("<f4")
    if np.array_equal(short.astype(np.float64), values, equal_nan=True):
        return short.tobytes(), {"type": "f32"}
    return values.astype("<f8").tobytes(), {"type": "f64"}


def _plain_all(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values if pa.types.is_string(column.type) else [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """A value for JSON: long lists are cut, NaN and infinity become null, bytes are omitted."""
    if isinstance(value, list):
        return [_plain(item) for item in value[:LIST_ITEMS]]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return None if isinstance(value, bytes) else value


def sorted_rows(clips: pa.Table) -> pa.Table:
    """The clips sorted by source and start, so that neighbours in time are neighbours in the table."""
    return clips.sort_by([("uri", "ascending"), ("start_s", "ascending"), ("clip_id", "ascending")])


def describe(columns: list[dict[str, Any]], of_stages: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Adds `stage`, `about` and `measure` to each column."""
    for column in columns:
        yield {**column, **of_stages.get(column["name"], {"stage": "", "about": "", "measure": False})}
