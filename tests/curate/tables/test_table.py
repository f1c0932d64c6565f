"""Tables: parts that are whole or absent, one row per key, claims that tell what differs."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import RunError
from curate.tables import store
from curate.tables.table import Table, column_path, difference, encode

SCHEMA = pa.schema([("clip_id", pa.string()), ("motion", pa.float32()), ("error", pa.string())])


def row(clip_id: str, motion: float | None = 1.0, error: str | None = None) -> dict[str, object]:
    return {"clip_id": clip_id, "motion": motion, "error": error}


@pytest.fixture(params=["disk", "memory"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    root = str(tmp_path / "t") if request.param == "disk" else f"memory://{tmp_path.name}/t"
    return Table(root, SCHEMA)


def test_rows_come_back_in_key_order(table: Table) -> None:
    table.write([row("c"), row("a")])
    table.write([row("b", 2.0)])
    assert table.read().column("clip_id").to_pylist() == ["a", "b", "c"]
    assert table.read(["motion"]).column_names == ["clip_id", "motion"]
    assert table.read_keys() == {("a",), ("b",), ("c",)}


def test_an_empty_table_has_its_columns(table: Table) -> None:
    assert table.read().schema == SCHEMA
    assert table.parts() == []
    assert table.claim() is None


def test_the_same_work_done_twice_is_there_once(table: Table) -> None:
    assert table.write([row("a"), row("b")]) == table.write([row("b"), row("a")])
    table.write([row("b"), row("c")])  # another grouping, by a worker that outlived its driver
    assert table.read().column("clip_id").to_pylist() == ["a", "b", "c"]
    assert sorted(key for _, keys in table.parts_with_keys() for key in keys) == [("a",), ("b",), ("c",)]


def test_dropped_rows_are_pending_again_and_the_others_stay(table: Table) -> None:
    table.write([row("a"), row("b", None, "bad")])
    table.write([row("c", None, "bad")])
    assert table.drop_rows({("b",), ("c",)}) == 2
    assert table.read().column("clip_id").to_pylist() == ["a"]


def test_a_row_that_does_not_fit_the_schema_is_refused(table: Table) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        table.write([{"clip_id": "a", "motion": "fast", "error": None}])
    assert table.parts() == []


def test_what_a_killed_writer_left_aside_is_not_a_part_and_is_swept(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "t"), SCHEMA)
    table.write([row("a")])
    aside = tmp_path / "t" / ".part-1.parquet.0.tmp"
    aside.write_bytes(b"half a file")
    assert len(table.parts()) == 1
    table.begin({"made_by": "x"})
    assert not aside.exists()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        RunError, match=r"x could not be written: No space left on device; mend that and run the same command to resume"
    ):
        store.put(str(tmp_path / "x"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_claims_tell_what_differs() -> None:
    old = {"options": {"fps": 2.0, "same": 1}, "version": 1}
    new = {"options": {"fps": 4.0, "same": 1}, "version": 1}
    assert list(difference(old, new)) == ["options.fps: 2.0 -> 4.0"]
    assert list(difference(old, old)) == []


def test_media_columns_are_stored_as_they_are() -> None:
    schema = pa.schema(
        [
            ("clip_id", pa.string()),
            ("thumbs", pa.list_(pa.binary())),
            ("mp4", pa.large_binary()),
            ("t", pa.list_(pa.float64())),
        ]
    )
    rows = [{"clip_id": str(i), "thumbs": [b"x" * 50], "mp4": b"y" * 1000, "t": [0.5]} for i in range(40)]
    file = pq.ParquetFile(pa.BufferReader(encode(pa.Table.from_pylist(rows, schema=schema), 16)))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [16, 16, 8]
    columns = {
        file.metadata.row_group(0).column(i).path_in_schema: file.metadata.row_group(0).column(i) for i in range(4)
    }
    assert set(columns) == {column_path(field) for field in schema}
    assert {path: column.compression for path, column in columns.items()} == {
        "clip_id": "ZSTD",
        "thumbs.list.element": "UNCOMPRESSED",
        "mp4": "UNCOMPRESSED",
        "t.list.element": "ZSTD",
    }
    assert not columns["mp4"].is_stats_set
