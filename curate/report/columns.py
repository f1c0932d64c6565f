"""The columns of the clips as the report's page reads them.

| kind | what | in a piece of bytes |
|---|---|---|
| number | any number | float32 where that loses nothing, else float64; NaN is null |
| flag | true or false | uint8; 255 is null |
| word | text of few different values, `words` | uint16, which of them; 65535 is null |
| clip | ids of other clips | int32, which row; -1 is null |
| text | everything else but vectors | as JSON, in chunks of rows |

So a comparison in the page gives what the same comparison gives in `curate/run/select.py`, to the last bit.
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
"""A column with more different texts than this is text, not words. Ours."""
TEXT_ROWS = 256
"""Rows of a chunk of text. Ours: opening a clip fetches one."""
LIST_ITEMS = 64
"""Of a longer list, only these are shown. Ours."""


@dataclass
class Packed:
    """What a page is told of columns, and the pieces with their contents."""

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
        told = {"name": name, "kind": kind, "nulls": column.null_count, **more}
        if data is None:
            texts[name] = column
        else:
            told["piece"] = f"column-{len(packed.columns):03d}"
            packed.pieces[told["piece"]] = data
        packed.columns.append(told)
    for n, first in enumerate(range(0, len(clips), TEXT_ROWS)):
        some = {name: _plain_all(column.slice(first, TEXT_ROWS)) for name, column in texts.items()}
        told_rows = [
            {name: values[i] for name, values in some.items() if values[i] is not None}
            for i in range(min(TEXT_ROWS, len(clips) - first))
        ]
        packed.pieces[f"text-{n:05d}"] = as_json(told_rows)
    return packed


def as_json(value: Any) -> bytes:
    """Compact JSON; what JSON does not know is written as text. Half a surrogate pair, which UTF-8 cannot hold, is replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    return text.encode("utf-8", "replace")


def piece(name: str, data: bytes) -> bytes:
    """A piece as a script. A page that is opened from a disk may load scripts and pictures, and may not fetch anything else."""
    return f'deliver("{name}","{base64.b64encode(zlib.compress(data, 6)).decode()}");\n'.encode()


def _packed(column: pa.Array, clip_ids: pa.ChunkedArray) -> tuple[str | None, bytes | None, dict[str, Any]]:
    """(kind, bytes or None for text, what else is told); no kind for what is not shown."""
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
    """A value as JSON has it: a long list cut short, NaN as null, bytes left out."""
    if isinstance(value, list):
        return [_plain(item) for item in value[:LIST_ITEMS]]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return None if isinstance(value, bytes) else value


def sorted_rows(clips: pa.Table) -> pa.Table:
    """In the order in which they lie in their sources, so that neighbours in time are neighbours in the table."""
    return clips.sort_by([("uri", "ascending"), ("start_s", "ascending"), ("clip_id", "ascending")])


def describe(columns: list[dict[str, Any]], of_stages: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Adds to each column what its stage says: `stage`, `about`, `measure`."""
    for column in columns:
        yield {**column, **of_stages.get(column["name"], {"stage": "", "about": "", "measure": False})}
