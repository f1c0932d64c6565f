"""A table is a directory of Parquet parts and a claim. Presence means done; resume is a set difference.

    measures/motion/
        _table.json                 the claim: which stage, options, weights and upstream tables made these rows
        part-3f0c....parquet        written atomically; named after the keys of its rows
        light-3f0c....parquet       beside parts with pictures: the same rows without pictures, in large row groups, for fast reads

Two workers that do the same unit of work write the same part name, and a key in two parts (a driver was killed while its worker continued) is
read once: no row is duplicated. A row whose `error` is not null has null columns; `drop_rows` makes it pending again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.tables import store

CLAIM = "_table.json"
LIGHT_ROWS = 2**17
"""Rows of a row group without pictures. Ours: reads cost per row group; groups of 16 rows are two hundred times slower."""
READERS = 8
"""Parts that are read concurrently. Ours."""
BLOCK = 1024
"""Parts that are concatenated at once: operations on a table of a million chunks take longer than reading it. Ours."""
READ_AGAIN = 3
"""Attempts to list the parts when one is deleted while they are read. Ours."""
Row = Mapping[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """One table of a run: `root` is its directory, `key` the columns that identify a row."""

    root: str
    schema: pa.Schema
    key: tuple[str, ...] = ("clip_id",)
    row_group_rows: int = LIGHT_ROWS

    # -- writing

    def write(self, rows: Sequence[Row]) -> str:
        """Writes one part holding `rows` and returns its name. The name is a function of the keys and rows are stored in key order.

        Raises pa.ArrowInvalid or pa.ArrowTypeError when a row does not fit the declared schema.
        """
        ordered = sorted(rows, key=lambda row: tuple(str(row[k]) for k in self.key))
        table = pa.Table.from_pylist([dict(row) for row in ordered], schema=self.schema)
        name = _name_of([[row[k] for k in self.key] for row in ordered])
        self.put(name, table)
        return name

    def put(self, name: str, rows: pa.Table) -> None:
        """Writes a part with this name."""
        if media := self.media():
            store.put(store.join(self.root, light_of(name)), encode(rows.drop_columns(sorted(media)), LIGHT_ROWS))
        store.put(store.join(self.root, name), encode(rows, self.row_group_rows))

    def drop_rows(self, unwanted: set[Key]) -> int:
        """Removes the rows with these keys and returns their number; parts without any of them are not rewritten."""
        gone = 0
        for name in self.parts():
            keys = self._keys_of(self.read_part(name, list(self.key)))
            keep = [k not in unwanted for k in keys]
            if all(keep):
                continue
            gone += keep.count(False)
            if any(keep):
                left = [list(k) for k, stays in zip(keys, keep, strict=True) if stays]
                self.put(_name_of(left), self.read_part(name).select(self.schema.names).filter(pa.array(keep)))
            self.remove_part(name)
        return gone

    def remove_part(self, name: str) -> None:
        """Removes a part, then its light file, which is never read without it."""
        store.remove(store.join(self.root, name))
        if self.media():
            store.remove(store.join(self.root, light_of(name)))

    # -- reading

    def parts(self) -> list[str]:
        """Names of the finished parts."""
        return [name for name in store.names(self.root, ".parquet") if name.startswith("part-")]

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in key order, each key once. `columns` limits what is read from disk (the key always comes along)."""
        table = self.read_unordered(columns).sort_by([(k, "ascending") for k in self.key])
        if len(table) < 2:
            return table
        keys = [table.column(k) for k in self.key]
        repeated = reduce(pc.and_, [pc.equal(k.slice(1), k.slice(0, len(k) - 1)) for k in keys])
        if not pc.any(repeated).as_py():
            return table
        return table.filter(pa.chunked_array([pa.array([True]), *pc.invert(repeated).chunks]))

    def read_unordered(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in the order of the parts, which is faster. A key in two parts is returned twice."""
        return self._read_listed(columns)[1]

    def read_once(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in the order of the parts, each key once: as `read`, without the sort."""
        table = self.read_unordered(columns)
        first = first_of_each(_one_column(table, self.key))
        return table if first.all() else table.filter(pa.array(first))

    def read_keys(self) -> set[Key]:
        """The keys of all rows as a set, some hundred bytes each. For many keys `lacking` takes a tenth of the memory."""
        return set(self._keys_of(self.read_unordered([])))

    def lacking(self, wanted: pa.Array) -> pa.Array:
        """The keys in `wanted` without a row, in their order. The table's key must be one column."""
        there = _one_column(self.read_unordered([]), self.key)
        return wanted.filter(pc.invert(pc.is_in(wanted, value_set=there))) if len(there) else wanted

    def parts_with_keys(self, wanted: pa.Array | None = None) -> Iterator[tuple[str, list[Key]]]:
        """Each part with the keys of its rows, in part order, without keys of earlier parts.

        Args:
            wanted: Only these keys; the table's key must be one column.
        """
        names, table, rows = self._read_listed([])
        keys = _one_column(table, self.key)
        chosen = first_of_each(keys)
        if wanted is not None:
            chosen &= pc.is_in(keys, value_set=wanted).to_numpy()
        at = 0
        for name, n in zip(names, rows, strict=True):
            here = table.slice(at, n).filter(pa.array(chosen[at : at + n]))
            yield name, self._keys_of(here)
            at += n

    def listed_keys(self) -> tuple[list[str], list[int], pa.ChunkedArray]:
        """The names of the parts, the number of rows of each, and the keys of all rows in that order."""
        names, table, rows = self._read_listed([])
        return names, rows, _one_column(table, self.key)

    def parts_of(self, wanted: pa.Array) -> tuple[list[str], NDArray[np.int32]]:
        """The names of the parts and, for each key in `wanted`, the index of its part (-1: none). The table's key must be one column."""
        names, rows, keys = self.listed_keys()
        if not len(keys):
            return names, np.full(len(wanted), -1, np.int32)
        at = pc.index_in(wanted, value_set=keys)
        part_of_row = np.repeat(np.arange(len(names), dtype=np.int32), rows)
        found = np.where(at.is_valid().to_numpy(zero_copy_only=False), part_of_row[at.fill_null(0).to_numpy()], -1)
        return names, found.astype(np.int32)

    def _read_listed(self, columns: Sequence[str] | None) -> tuple[list[str], pa.Table, list[int]]:
        """The names of the parts, their rows in that order, and the number of rows of each."""
        for attempt in range(READ_AGAIN):
            names = self.parts()
            try:
                return names, *self._read_all(names, columns)
            except FileNotFoundError:  # `rushes compact` wrote its rows to another part before it deleted this one
                if attempt == READ_AGAIN - 1:
                    raise
        raise AssertionError("unreachable")

    def _read_all(self, names: Sequence[str], columns: Sequence[str] | None) -> tuple[pa.Table, list[int]]:
        """The rows of these parts in order, and the number of rows of each."""
        wanted = None if columns is None else [*self.key, *(c for c in columns if c not in self.key)]
        schema = self.schema if wanted is None else pa.schema([self.schema.field(c) for c in wanted])
        blocks, rows = [schema.empty_table()], []
        read = lambda name: self.read_part(name, wanted).select(schema.names).cast(schema)  # noqa: E731
        with ThreadPoolExecutor(READERS) as pool:  # object storage has a high latency and serves many requests at once
            for first in range(0, len(names), BLOCK):
                some = list(pool.map(read, names[first : first + BLOCK]))
                rows += [len(part) for part in some]
                block = pa.concat_tables(some)
                blocks.append(block if self.media() & set(schema.names) else block.combine_chunks())
        return pa.concat_tables(blocks), rows

    def open_part(self, name: str) -> pq.ParquetFile:
        """One part, to be read in batches."""
        return pq.ParquetFile(store.open_arrow(store.join(self.root, name)))

    def media(self) -> set[str]:
        """The columns with pictures or video."""
        return {field.name for field in self.schema if _is_media(field.type)}

    def read_part(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """The rows of one part in their order; from the light file where no picture column is asked for."""
        media = self.media()
        if media and columns is not None and media.isdisjoint(columns):
            try:
                return self._read_file(light_of(name), columns)
            except FileNotFoundError:
                pass  # a run of an older version
        return self._read_file(name, columns)

    def _read_file(self, name: str, columns: list[str] | None) -> pa.Table:
        with store.open_arrow(store.join(self.root, name)) as file, pq.ParquetFile(file, pre_buffer=True) as part:
            rows = part.read(columns=columns, use_threads=False)
        return rows if columns is None else rows.select(columns)

    def _keys_of(self, table: pa.Table) -> list[Key]:
        return list(zip(*(table.column(k).to_pylist() for k in self.key), strict=True))

    # -- the claim

    def claim(self) -> dict[str, Any] | None:
        """The claim: what made this table. None when the table does not exist."""
        found: dict[str, Any] | None = store.get_json(store.join(self.root, CLAIM))
        return found

    def begin(self, claim: Mapping[str, Any]) -> None:
        """Writes the claim, and deletes temporary files of killed writers."""
        store.sweep(self.root)
        if self.claim() != dict(claim):
            store.put_json(store.join(self.root, CLAIM), dict(claim))

    def drop(self) -> None:
        """Deletes the whole table."""
        store.remove(self.root)


def groups_of(file: pq.ParquetFile, rows: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The row groups that hold these rows of a file (numbers from 0), in order, each with the rows' places in it."""
    ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)], dtype=np.int64)
    group_of = np.searchsorted(ends, rows, side="right")
    starts = np.concatenate([np.zeros(1, np.int64), ends])
    return {int(group): rows[group_of == group] - starts[group] for group in np.unique(group_of)}


def groups_with(file: pq.ParquetFile, wanted: Iterable[str], key: str = "clip_id") -> dict[int, NDArray[np.int64]]:
    """The row groups of a file that hold any of these keys, each with the places of the keys in it; reads the key column only."""
    keys = file.read(columns=[key]).column(key)
    found = pc.is_in(keys, value_set=pa.array(list(wanted), pa.string()))
    return groups_of(file, np.flatnonzero(found.to_numpy()).astype(np.int64))


def light_of(name: str) -> str:
    """The name of the file with a part's rows without pictures."""
    return name.replace("part-", "light-", 1)


def first_of_each(keys: pa.ChunkedArray) -> NDArray[np.bool_]:
    """A mask of first occurrences. Takes tens of bytes per value, where a set takes hundreds."""
    encoded = keys.dictionary_encode()  # codes increase in order of first occurrence
    codes = np.concatenate([np.zeros(0, np.int32), *(chunk.indices.to_numpy() for chunk in encoded.chunks)])
    before = np.concatenate([np.full(1, -1, np.int32), np.maximum.accumulate(codes)[:-1]])[: len(codes)]
    return np.asarray(codes > before)


def _one_column(table: pa.Table, key: Sequence[str]) -> pa.ChunkedArray:
    """The key of each row as one value; several columns are joined."""
    if len(key) == 1:
        return table.column(key[0])
    return pc.binary_join_element_wise(*(table.column(k).cast(pa.string()) for k in key), "\0")


def encode(table: pa.Table, row_group_rows: int) -> bytes:
    """Parquet bytes of `table`: zstd, but media (binary columns and lists of them) uncompressed, without dictionary or statistics."""
    buffer = BytesIO()
    pq.write_table(table, buffer, row_group_size=row_group_rows, **encoding(table.schema))
    return buffer.getvalue()


def encoding(schema: pa.Schema) -> dict[str, Any]:
    """The encoding of each column, as arguments of pyarrow's writers."""
    plain = {column_path(field) for field in schema if _is_media(field.type)}
    paths = [column_path(field) for field in schema]
    light = [path for path in paths if path not in plain]
    return {
        "compression": {path: "none" if path in plain else "zstd" for path in paths},
        "use_dictionary": light,
        "write_statistics": light,
    }


def column_path(field: pa.Field) -> str:
    """The path of a column in Parquet: lists have their values one level down."""
    listed = pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)
    return f"{field.name}.list.element" if listed else str(field.name)


def _is_media(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _is_media(kind.value_type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _name_of(keys: Sequence[Sequence[Any]]) -> str:
    return f"part-{hashlib.sha256(repr(keys).encode()).hexdigest()[:20]}.parquet"


def digest(value: Any) -> str:
    """A stable digest of a JSON-like value: the first 16 hexadecimal digits of its sha256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The differences between two claims, one `key: old -> new` each."""
    for key in sorted(set(old) | set(new)):
        a, b, name = old.get(key), new.get(key), f"{path}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from difference(a, b, f"{name}.")
        elif a != b:
            yield f"{name}: {a!r} -> {b!r}"
