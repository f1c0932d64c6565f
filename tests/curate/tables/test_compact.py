"""Compaction of parts: no row changes, also after a kill at any step and for concurrent readers."""

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.dataset.run import Run
from curate.errors import UsageError
from curate.pipeline import execute as pipeline
from curate.pipeline import plan as planning
from curate.pipeline.stage_jobs import CLIP_FIELDS, Reading, StageJob, groups_with
from curate.progress.progress import Progress
from curate.tables import compact, store
from curate.tables.table import Table
from tests.project import Rushes

SCHEMA = pa.schema([("clip_id", pa.string()), ("value", pa.float32()), ("error", pa.string())])
PICTURES = pa.schema([("clip_id", pa.string()), ("thumbs", pa.list_(pa.binary())), ("error", pa.string())])


@pytest.fixture
def copy(finished: Path, project: Path) -> Iterator[Path]:
    """A copy of the finished run that a test may change."""
    target = project / "runs" / f"copy-{time.monotonic_ns()}"
    shutil.copytree(finished, target)
    for table in Run.open(target).tables().values():
        scatter(table)
    yield target
    shutil.rmtree(target)


def scatter(table: Table) -> None:
    """Splits the rows into parts of two."""
    for name in table.parts():
        rows = table.read_part(name)
        table.remove_part(name)
        for first in range(0, len(rows), 2):
            table.write(rows.slice(first, 2).to_pylist())


def filled(root: str, schema: pa.Schema = SCHEMA, parts: int = 30, each: int = 5) -> Table:
    """A table of many small parts with consecutive ids in each."""
    table = Table(root, schema, row_group_rows=16 if "thumbs" in schema.names else 2**17)
    for p in range(parts):
        rows = [{**dict.fromkeys(schema.names), "clip_id": f"{p:03d}-{i}"} for i in range(each)]
        for i, row in enumerate(rows):
            row.update({"value": p + i / 10} if "value" in row else {"thumbs": [bytes([p, i]) * 20]})
        table.write(rows)
    return table


@pytest.mark.parametrize("schema", [SCHEMA, PICTURES], ids=["numbers", "pictures"])
@pytest.mark.parametrize("root", ["disk", "memory://compact"])
def test_compaction_keeps_all_rows(tmp_path: Path, schema: pa.Schema, root: str) -> None:
    where = str(tmp_path / "t") if root == "disk" else f"{root}/{tmp_path.name}"
    table = filled(where, schema)
    before = table.read()
    done = compact.compact_table("t", table, target_rows=50)
    assert (done.before, done.after, done.repeated) == (30, 3, 0)
    assert table.read().equals(before)
    assert table.read(["error"]).equals(before.select(["clip_id", "error"]))
    assert len(store.names(where, ".parquet")) == (6 if schema is PICTURES else 3)
    assert not compact.compact_table("t", table, target_rows=50).changed
    if schema is PICTURES:
        with table.open_part(table.parts()[0]) as file:
            groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert groups == [16, 16, 16, 2]


def test_compacted_rows_are_in_the_order_of_the_clips(tmp_path: Path) -> None:
    table = filled(str(tmp_path / "t"))
    ids = [f"{p:03d}-{i}" for p in reversed(range(30)) for i in range(5)]
    compact.compact_table("t", table, pa.chunked_array([ids]))
    assert [key for _, keys in table.parts_with_keys() for (key,) in keys] == ids


@pytest.mark.parametrize("schema", [SCHEMA, PICTURES], ids=["numbers", "pictures"])
def test_kill_at_any_step_loses_or_duplicates_no_row(
    tmp_path: Path, schema: pa.Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = filled(str(tmp_path / "whole"), schema, parts=9)
    before = whole.read()
    put, remove = store.put, store.remove
    left = 0

    def counted(function: Any) -> Any:
        def call(*arguments: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            function(*arguments)

        return call

    monkeypatch.setattr(store, "put", counted(put))
    monkeypatch.setattr(store, "remove", counted(remove))
    moments = 0
    while True:
        root = tmp_path / f"killed-{moments}"
        shutil.copytree(whole.root, root)
        table = Table(str(root), schema, row_group_rows=16)
        left = moments
        try:
            compact.compact_table("t", table, target_rows=20)
        except KeyboardInterrupt:
            moments += 1
        else:
            break
        assert table.read().equals(before)
        assert table.read_once().sort_by("clip_id").equals(before)
        assert sorted(k for _, keys in table.parts_with_keys() for (k,) in keys) == before["clip_id"].to_pylist()
        left = 10**9
        compact.compact_table("t", table, target_rows=20)
        assert table.read_unordered().sort_by("clip_id").equals(before)
        assert {name[6:] for name in store.names(table.root, ".parquet") if name.startswith("light-")} <= {
            name[5:] for name in table.parts()
        }
    assert moments > 9


def test_concurrent_reader_lists_the_parts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = filled(str(tmp_path / "t"), parts=9)
    before, read = table.read(), Table.read_part
    compacted = []

    def late(self: Table, name: str, columns: list[str] | None = None) -> pa.Table:
        if not compacted:
            compacted.append(name)
            compact.compact_table("t", Table(table.root, SCHEMA))
        return read(self, name, columns)

    monkeypatch.setattr(Table, "read_part", late)
    assert Table(table.root, SCHEMA).read().equals(before)


def test_run_is_unchanged_by_compaction(copy: Path, project: Path, rushes: Rushes) -> None:
    run = Run.open(copy)
    tables = {name: table.read() for name, table in run.tables().items()}
    funnel, ledger, wide = run.funnel(), run.ledger(), run.wide()
    plan = (copy / "shards" / "plan.json").read_bytes()
    assert min(len(table.parts()) for table in run.tables().values()) > 1
    done = rushes("compact", copy)
    assert done.code == 0, done.err
    assert "tables are" in done.out.splitlines()[-1]
    run = Run.open(copy)
    assert {name: len(table.parts()) for name, table in run.tables().items()} == dict.fromkeys(tables, 1)
    assert all(table.read().equals(tables[name]) for name, table in run.tables().items())
    assert run.funnel().equals(funnel)
    assert (run.ledger(), run.wide().equals(wide)) == (ledger, True)
    assert "nothing to do" in rushes("compact", copy).out
    again = rushes("run", "--run", copy, cwd=project)
    assert (again.code, "nothing to do" in again.out) == (0, True), again.out + again.err
    assert (copy / "shards" / "plan.json").read_bytes() == plan
    more = rushes("run", "--run", copy, "--recompute", "motion", cwd=project)
    assert more.code == 0, more.err
    assert Run.open(copy).tables()["motion"].read().equals(tables["motion"])


def test_active_run_cannot_be_compacted(copy: Path) -> None:
    run = Run.open(copy)
    with pipeline._alone(run, Progress()), pytest.raises(UsageError, match="another rushes run is at work"):
        pipeline.compact(Run.open(copy), Progress(), lambda _: None)


def test_unit_reads_only_the_row_groups_of_its_clips(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    ids = [f"{i:04d}" for i in range(400)]
    pq.write_table(pa.table({"clip_id": ids, "v": list(range(400))}), path, row_group_size=16)
    chosen = random.Random(0).sample(ids, 6)
    with pq.ParquetFile(path) as file:
        groups = groups_with(file, chosen)
        assert groups == sorted({int(i) // 16 for i in chosen})
        assert set(chosen) <= set(file.read_row_groups(groups).column("clip_id").to_pylist())


def test_large_part_is_split_into_units(copy: Path) -> None:
    run = Run.open(copy)
    compact.compact(run.tables())
    ids = pa.array(run.clip_ids())
    motion = run.tables()["motion"]
    units = planning.stage_units(run.clips_table, {"motion": motion}, ids, 2)
    several = [unit for unit in units if unit.parts]
    assert sorted(i for unit in several for some in unit.parts.values() for i in some) == sorted(ids.to_pylist())
    assert all(unit.reads == {"motion": motion.parts()} for unit in units)
    job = StageJob(run.clips_table, [], {"motion": Reading(motion, {"motion": "motion"})})
    rows = list(job._rows({run.clips_table.parts()[0]: ids.to_pylist()[:1]}))
    assert ids[0].as_py() in {row["clip_id"] for row in rows}
    assert set(CLIP_FIELDS) <= set(rows[0])
