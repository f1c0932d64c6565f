"""Compaction: many small parts of a table become few large ones, so that opening it takes few reads. The rows do not change.

A merged part is written completely before the parts that it replaces are deleted. A kill in between leaves duplicate keys, which readers read
once and the next compaction removes. Clips are merged in the order of their parts, every other table in the order of the clips: a unit of work
then reads few row groups of each table. Memory is bounded by one merged part.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.tables import store
from curate.tables.table import LIGHT_ROWS, Table, encoding, first_of_each, light_of

TARGET_BYTES = 256 * 2**20
"""Target size of a merged part: some 1,700 clips with thumbnails of 360 lines. Ours: what a worker can hold in memory beside its work."""
TARGET_ROWS = 2**20
"""Maximum number of rows of a merged part. Ours."""
GROUP_BYTES = 8 * 2**20
"""Target size of a row group without pictures, in memory: what a reader of one row must read. Ours."""


@dataclass
class Compacted:
    """The result for one table: its parts before and after, their bytes, and the number of duplicate rows removed."""

    table: str
    before: int = 0
    after: int = 0
    before_bytes: int = 0
    after_bytes: int = 0
    repeated: int = 0

    @property
    def changed(self) -> bool:
        """Whether anything was merged or removed."""
        return self.before != self.after or bool(self.repeated)


def compact(tables: Mapping[str, Table], report: Callable[[Compacted], None] = lambda _: None) -> list[Compacted]:
    """Merges the parts of every table of a run. The caller holds the run's lease (curate.pipeline.execute.compact).

    Args:
        tables: All tables of the run by name; the rows of those that come after `clips` follow its order.
        report: Called with each table's result as soon as it is merged.
    """
    done: list[Compacted] = []
    order: pa.ChunkedArray | None = None
    for name, table in tables.items():
        done.append(compact_table(name, table, order if table.key == ("clip_id",) else None))
        if name == "clips":
            order = table.read_unordered([]).column("clip_id")
        report(done[-1])
    return done


def compact_table(
    name: str,
    table: Table,
    order: pa.ChunkedArray | None = None,
    target_bytes: int = TARGET_BYTES,
    target_rows: int = TARGET_ROWS,
) -> Compacted:
    """Merges the parts of one table. Parts of half the target or more are left as they are.

    Args:
        name: Name of the table.
        table: The table; no other process writes to it.
        order: Keys of another table whose order the rows follow, as far as whole parts allow; None: the order of part names.
        target_bytes: Approximate size of a merged part.
        target_rows: Maximum number of rows of a merged part.
    """
    done = Compacted(name)
    sizes = _sizes(table)
    done.before, done.before_bytes = len(sizes), sum(sizes.values())
    while True:
        # Repeated, since one merged file is far smaller than its parts together.
        changed = _once(table, sizes, order, target_bytes, target_rows, done)
        sizes = _sizes(table)
        if not changed:
            break
    done.after, done.after_bytes = len(sizes), sum(sizes.values())
    return done


def _once(
    table: Table,
    sizes: dict[str, int],
    order: pa.ChunkedArray | None,
    target_bytes: int,
    target_rows: int,
    done: Compacted,
) -> bool:
    names, rows, keys = table.listed_keys()
    n_rows = dict(zip(names, rows, strict=True))
    is_full = {n: sizes.get(n, 0) >= target_bytes / 2 or n_rows[n] >= target_rows / 2 for n in names}
    start = dict(zip(names, np.concatenate([[0], np.cumsum(rows)[:-1]]).astype(int) if names else [], strict=True))
    place = _places(names, start, keys, order)
    # The full part keeps a duplicate key: the remains of a killed compaction are removed.
    ordered = sorted(names, key=lambda n: (not is_full[n], place[n], n))
    fresh = _fresh(ordered, start, n_rows, keys)
    changed = False
    for group in _groups([n for n in ordered if not is_full[n]], sizes, n_rows, fresh, target_bytes, target_rows):
        left = [n for n in group if fresh[n].any()]
        repeated = sum(int((~fresh[n]).sum()) for n in group)
        if len(group) == 1 and not repeated:
            continue
        if left:
            merged = _merge(table, left, fresh, keys, start)
            group = [n for n in group if n != merged]
        for n in group:
            table.remove_part(n)
        done.repeated += repeated
        changed = True
    return changed


def _sizes(table: Table) -> dict[str, int]:
    """Bytes of each part. A light file without its part was left by a kill and is removed."""
    found = store.sizes(table.root, ".parquet")
    for name in found:
        if name.startswith("light-") and name.replace("light-", "part-", 1) not in found:
            store.remove(store.join(table.root, name))
    return {name: size for name, size in found.items() if name.startswith("part-")}


def _places(
    names: Sequence[str], start: dict[str, int], keys: pa.ChunkedArray, order: pa.ChunkedArray | None
) -> dict[str, int]:
    """The position of each part's first row in the given order; without an order, 0 for all."""
    some = [name for name in names if start[name] < len(keys)]
    if order is None or not some:
        return dict.fromkeys(names, 0)
    at = pc.index_in(keys.take(pa.array([start[name] for name in some])), value_set=order)
    return dict.fromkeys(names, 0) | dict(zip(some, at.fill_null(len(order)).to_pylist(), strict=True))


def _fresh(
    ordered: Sequence[str], start: dict[str, int], n_rows: dict[str, int], keys: pa.ChunkedArray
) -> dict[str, NDArray[np.bool_]]:
    """For each part, a mask of its rows that are in no earlier part of this order."""
    if first_of_each(keys).all():
        return {name: np.ones(n_rows[name], bool) for name in ordered}
    row = np.concatenate([np.arange(start[name], start[name] + n_rows[name]) for name in ordered])
    first = first_of_each(keys.take(pa.array(row)))
    ends = np.cumsum([n_rows[name] for name in ordered])
    return dict(zip(ordered, np.split(first, ends[:-1]), strict=True))


def _groups(
    names: Sequence[str],
    sizes: dict[str, int],
    n_rows: dict[str, int],
    fresh: dict[str, NDArray[np.bool_]],
    target_bytes: int,
    target_rows: int,
) -> Iterator[list[str]]:
    """Groups of neighbouring parts, each as large as the target allows."""
    group: list[str] = []
    size = rows = 0
    for name in names:
        here, count = (sizes.get(name, 0), n_rows[name]) if fresh[name].any() else (0, 0)
        if group and (size + here > target_bytes or rows + count > target_rows):
            yield group
            group, size, rows = [], 0, 0
        group.append(name)
        size, rows = size + here, rows + count
    if group:
        yield group


def _merge(
    table: Table,
    names: Sequence[str],
    fresh: dict[str, NDArray[np.bool_]],
    keys: pa.ChunkedArray,
    start: dict[str, int],
) -> str:
    """Writes one part with the fresh rows of these parts and returns its name, a function of their keys."""
    hasher = hashlib.sha256()
    for name in names:
        here = keys.slice(start[name], len(fresh[name])).filter(pa.array(fresh[name]))
        hasher.update(repr(here.to_pylist()).encode())
    made = f"part-{hasher.hexdigest()[:20]}.parquet"
    media = table.media()
    if media:
        light = pa.schema([field for field in table.schema if field.name not in media])
        _write(table, light_of(made), names, fresh, light, LIGHT_ROWS)
    _write(table, made, names, fresh, table.schema, table.row_group_rows if media else None)
    return made


def _write(
    table: Table,
    made: str,
    names: Sequence[str],
    fresh: dict[str, NDArray[np.bool_]],
    schema: pa.Schema,
    group_rows: int | None,
) -> None:
    """Writes a file of row groups of `group_rows` rows; None: of about GROUP_BYTES."""
    buffer = BytesIO()
    carried: list[pa.Table] = []
    n_rows = n_bytes = 0
    with pq.ParquetWriter(buffer, schema, **encoding(schema)) as writer:
        for name in names:
            part = table.read_part(name, schema.names).select(schema.names).cast(schema)
            part = part if fresh[name].all() else part.filter(pa.array(fresh[name]))
            carried.append(part)
            n_rows, n_bytes = n_rows + len(part), n_bytes + part.nbytes
            each = group_rows or min(LIGHT_ROWS, max(256, GROUP_BYTES * n_rows // max(1, n_bytes)))
            if n_rows >= each:
                rows = pa.concat_tables(carried)
                whole = n_rows // each * each
                writer.write_table(rows.slice(0, whole).combine_chunks(), row_group_size=each)
                carried = [rows.slice(whole).combine_chunks()]
                n_rows, n_bytes = len(carried[0]), carried[0].nbytes
        if n_rows:
            writer.write_table(pa.concat_tables(carried).combine_chunks())
    store.put(store.join(table.root, made), buffer.getvalue())


def summary(done: Sequence[Compacted]) -> str:
    """The result, in one sentence."""
    changed = [each for each in done if each.changed]
    if not changed:
        return f"nothing to do: the {len(done)} tables have {sum(each.after for each in done)} parts"
    before, after = sum(each.before for each in done), sum(each.after for each in done)
    repeated = sum(each.repeated for each in done)
    sentence = f"{before} parts of {len(changed)} of {len(done)} tables are {after} now"
    return sentence + (f"; {repeated} duplicate rows removed" if repeated else "")
