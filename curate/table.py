"""A table is a directory of Parquet parts and a claim. Presence means done; resume is a set difference.

    measures/motion/
        _table.json                 the claim: which stage, options, weights and upstream tables made these rows
        part-3f0c....parquet        written whole or not at all; named after the keys of its rows
        light-3f0c....parquet       of parts with pictures: the same rows without them, in large row groups, to be read quickly

Two workers that do the same piece of work write the same part name, and a key that stands in two parts (a driver was killed while its worker
lived on) is read once: nothing twice. A row whose `error` is not null has null columns; `drop_rows` makes it pending again.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import store

CLAIM = "_table.json"
LIGHT_ROWS = 2**17
"""Rows of a row group without pictures. Ours: reading a column costs per row group, and a group of 16 rows is read two hundred times slower."""
READERS = 8
"""Parts that are read at the same time. Ours."""
Row = Mapping[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """One table of a run: `root` is its directory, `key` the columns that name a row."""

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
        digest = hashlib.sha256(repr([[row[k] for k in self.key] for row in ordered]).encode()).hexdigest()
        name = f"part-{digest[:20]}.parquet"
        self.put(name, table)
        return name

    def put(self, name: str, rows: pa.Table) -> None:
        """Writes a part of that name."""
        if media := self._media():
            store.put(store.join(self.root, _light(name)), encode(rows.drop_columns(sorted(media)), LIGHT_ROWS))
        store.put(store.join(self.root, name), encode(rows, self.row_group_rows))

    def drop_rows(self, unwanted: set[Key]) -> int:
        """Removes the rows with these keys; parts without any of them are not touched. Returns how many went."""
        gone = 0
        for name in self.parts():
            part = self.read_part(name)
            keep = [k not in unwanted for k in self._keys_of(part)]
            if all(keep):
                continue
            gone += keep.count(False)
            kept = part.filter(pa.array(keep))
            if kept.num_rows:
                self.write(kept.to_pylist())
            store.remove(store.join(self.root, name))
            if self._media():
                store.remove(store.join(self.root, _light(name)))
        return gone

    # -- reading

    def parts(self) -> list[str]:
        """Names of the finished parts."""
        return [name for name in store.names(self.root, ".parquet") if name.startswith("part-")]

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in key order, each key once. `columns` limits what is read from disk (the key always comes along)."""
        table = self.read_unordered(columns).sort_by([(k, "ascending") for k in self.key])
        if len(table) < 2:
            return table
        keys = [table.column(k).combine_chunks() for k in self.key]
        repeated = reduce(pc.and_, [pc.equal(k.slice(1), k.slice(0, len(k) - 1)) for k in keys])
        if not pc.any(repeated).as_py():
            return table
        return table.filter(pa.concat_arrays([pa.array([True]), pc.invert(repeated)]))

    def read_unordered(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as they lie in the parts, which is quicker. A key that stands in two parts comes twice."""
        wanted = None if columns is None else [*self.key, *(c for c in columns if c not in self.key)]
        schema = self.schema if wanted is None else pa.schema([self.schema.field(c) for c in wanted])
        names = self.parts()
        if not names:
            return schema.empty_table()
        with ThreadPoolExecutor(READERS) as pool:  # object storage answers late, and many at once
            return pa.concat_tables(
                pool.map(lambda name: self.read_part(name, wanted).select(schema.names).cast(schema), names)
            )

    def read_keys(self) -> set[Key]:
        """The keys of all rows."""
        return set(self._keys_of(self.read([])))

    def parts_with_keys(self) -> Iterator[tuple[str, list[Key]]]:
        """Each part with the keys of its rows, in part order; a key that stood in an earlier part is left out."""
        seen: set[Key] = set()
        for name in self.parts():
            fresh = [k for k in self._keys_of(self.read_part(name, list(self.key))) if k not in seen]
            seen.update(fresh)
            yield name, fresh

    def open_part(self, name: str) -> pq.ParquetFile:
        """One part, for reading batch by batch."""
        return pq.ParquetFile(store.open_read(store.join(self.root, name)))

    def _media(self) -> set[str]:
        return {field.name for field in self.schema if _is_media(field.type)}

    def read_part(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """The rows of one part, as they lie in it; without pictures where none are asked for."""
        media = self._media()
        if media and columns is not None and media.isdisjoint(columns):
            try:
                with store.open_read(store.join(self.root, _light(name))) as file:
                    return pq.read_table(file, columns=columns)
            except FileNotFoundError:
                pass  # an older run
        with store.open_read(store.join(self.root, name)) as file:
            return pq.read_table(file, columns=columns)

    def _keys_of(self, table: pa.Table) -> list[Key]:
        return list(zip(*(table.column(k).to_pylist() for k in self.key), strict=True))

    # -- the claim

    def claim(self) -> dict[str, Any] | None:
        """What made this table, or None when nothing was begun."""
        found: dict[str, Any] | None = store.get_json(store.join(self.root, CLAIM))
        return found

    def begin(self, claim: Mapping[str, Any]) -> None:
        """Writes the claim, sweeping away what a killed writer left aside."""
        store.sweep(self.root)
        if self.claim() != dict(claim):
            store.put_json(store.join(self.root, CLAIM), dict(claim))

    def drop(self) -> None:
        """Deletes the whole table."""
        store.remove(self.root)


def _light(name: str) -> str:
    return name.replace("part-", "light-", 1)


def encode(table: pa.Table, row_group_rows: int) -> bytes:
    """Parquet bytes of `table`: zstd, but media (binary columns and lists of them) as they are, without dictionary or statistics."""
    plain = {column_path(field) for field in table.schema if _is_media(field.type)}
    paths = [column_path(field) for field in table.schema]
    light = [path for path in paths if path not in plain]
    buffer = BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=row_group_rows,
        compression={path: "none" if path in plain else "zstd" for path in paths},
        use_dictionary=light,
        write_statistics=light,
    )
    return buffer.getvalue()


def column_path(field: pa.Field) -> str:
    """The name under which Parquet knows a column: lists have their values one level down."""
    listed = pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)
    return f"{field.name}.list.element" if listed else str(field.name)


def _is_media(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _is_media(kind.value_type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def digest(value: Any) -> str:
    """A short stable digest of a JSON-like value: 16 hexadecimal digits of sha256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Names what differs between two claims, one `key: old -> new` each."""
    for key in sorted(set(old) | set(new)):
        a, b, name = old.get(key), new.get(key), f"{path}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from difference(a, b, f"{name}.")
        elif a != b:
            yield f"{name}: {a!r} -> {b!r}"
