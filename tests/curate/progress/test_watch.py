"""A run followed from outside: counts from the files, each part opened once, nothing written."""

import io
import re
import shutil
from pathlib import Path

import pytest
import typer
from rich.console import Console

from curate.cli import status
from curate.cli.common import Stopped
from curate.cli.status import follow
from curate.dataset.run import Run
from curate.errors import UsageError
from curate.progress.lines import text
from curate.progress.model import Line
from curate.progress.watch import TableCounts, Watch
from curate.tables import store
from tests.project import Rushes


def shown(watch: Watch) -> dict[str, Line]:
    return {line.name: line for line in watch.board.lines}


def copy(finished: Path, target: Path, *names: str) -> None:
    for name in names:
        if (finished / name).is_dir():
            shutil.copytree(finished / name, target / name)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(finished / name, target / name)


def test_a_run_is_followed_from_nothing_to_the_end(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    count = TableCounts._count

    def counted(self: TableCounts, name: str) -> object:
        opened.append(f"{self.table.root}/{name}")
        return count(self, name)

    monkeypatch.setattr(TableCounts, "_count", counted)
    target = tmp_path / "run"
    watch = Watch(str(target))
    watch.look()
    assert watch.waits_for == f"there is no run in {target} yet; waiting for one"
    target.mkdir()
    watch.look()
    assert watch.waits_for, "a directory alone is no run"

    copy(finished, target, "pipeline.json")
    watch.look()
    assert watch.waits_for is None
    assert [(line.name, line.state) for line in watch.board.lines] == [
        (name, "waiting") for name in ("sources", "clips", "brightness", "motion", "says", "shards")
    ]
    assert shown(watch)["sources"].counted == "0 of 7 files"
    copy(finished, target, "sources")
    watch.look()
    assert text([shown(watch)["sources"]]) == "sources: done, 7 of 7 files, 4 failed"
    assert shown(watch)["clips"].counted == "0 of 3 windows"
    assert watch.board.note == "bottleneck: clips"

    copy(finished, target, "clips")
    n = len(Run.open(finished).clip_ids())
    rows = Run.open(finished).tables()["brightness"].read().to_pylist()
    table = Run.open(target).tables()["brightness"]
    for i, row in enumerate(rows):
        table.write([{**row, "error": "brightness: no" if i == 2 else None}])
        watch.look()
        line = shown(watch)["brightness"]
        assert (line.done, line.total, line.errors) == (i + 1, n, int(i >= 2))
        assert line.state == ("running" if i + 1 < n else "done")
    assert shown(watch)["says"].total is None, "what will be captioned is known when everything is measured"
    copy(finished, target, "measures/motion")
    watch.look()
    kept = len(Run.open(finished).selection(("measure",)).clip_ids)
    assert shown(watch)["says"].total == kept - 1, "the clip that failed goes"

    shutil.rmtree(target / "measures" / "brightness")
    copy(finished, target, "measures/brightness", "captions", "shards", "spent.json")
    watch._counts["brightness"].listed_s = -1e9  # it was full: as if half a minute had gone by
    watch.look()
    assert shown(watch)["shards"].counted == f"{kept} of {kept} clips"
    assert not watch.finished, "the report is made last"
    copy(finished, target, "report")
    before = sorted((path, path.stat().st_mtime_ns) for path in target.rglob("*"))
    watch.look()
    assert watch.finished
    assert {line.state for line in watch.board.lines} == {"done"}
    assert len(opened) == len(set(opened)), "a part is opened once"
    watch.look()
    assert sorted((path, path.stat().st_mtime_ns) for path in target.rglob("*")) == before


def test_a_shared_pass_names_the_stage_that_takes_longest(finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "run"
    copy(finished, target, "pipeline.json", "sources", "clips")
    watch = Watch(str(target))
    watch.look()
    run = Run.open(finished)
    for name in ("brightness", "motion"):
        Run.open(target).tables()[name].write(run.tables()[name].read().to_pylist()[:2])
    store.put_json(
        str(target / "spent.json"),
        {"brightness, motion": {"units": 1, "busy_s": 10.0, "stages": {"brightness": 1.0, "motion": 8.0}}},
    )
    watch.look()
    assert watch.board.note == "bottleneck: motion, 80% of busy time (2 tables in one pass)"
    line = shown(watch)["motion"]
    assert line.rate > 0
    assert line.left_s is not None
    assert re.fullmatch(r"motion: 2 of 6 clips \([\d.]+/s, [\d.]+ \w+ left\)", text([line]))


def test_a_look_has_a_budget(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.progress.watch.BUDGET_S", -1.0)
    watch = Watch(str(finished))
    watch.look()
    assert re.fullmatch(r"still counting: \d+ parts to open", watch.board.note)
    assert not watch.finished
    monkeypatch.setattr("curate.progress.watch.BUDGET_S", 60.0)
    watch.look()
    assert watch.finished


def test_rows_of_a_part_are_known_by_its_name(finished: Path) -> None:
    """Tables of one pass have parts of the same names; at a first look at many the rows are there before the errors."""
    tables = Run.open(finished).tables()
    rows_of: dict[str, int] = {}
    first, second = (TableCounts(tables[name], rows_of) for name in ("brightness", "motion"))
    second.list_parts()
    assert second.is_behind
    assert second.sum("rows") == 0
    first.list_parts()
    first.count(float("inf"))
    assert second.pending
    assert not second.is_behind
    assert second.sum("rows") == first.sum("rows") == len(tables["motion"].read_keys())


def test_a_dropped_table_is_counted_again(finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "run"
    shutil.copytree(finished, target)
    watch = Watch(str(target))
    watch.look()
    assert watch.finished
    shutil.rmtree(target / "measures" / "motion")
    watch._counts["motion"].listed_s = -1e9  # as if half a minute had gone by
    watch.look()
    assert not watch.finished
    assert (shown(watch)["motion"].done, shown(watch)["motion"].state) == (0, "waiting")


def test_status_watch_ends_with_the_run(finished: Path, rushes: Rushes) -> None:
    done = rushes("status", finished, "--watch", "--every", "0.1")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "sources: done, 7 of 7 files, 4 failed"
    assert "clips: done, 3 of 3 windows" in lines
    assert lines[-1].startswith("finished; details:  rushes status ")
    with pytest.raises(UsageError, match="--json"):
        status.command(str(finished), as_json=True, watch=True)


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_ends_only_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    def stop(seconds: float) -> None:
        raise Stopped(2)

    monkeypatch.setattr("curate.cli.status.time.sleep", stop)
    monkeypatch.setenv("TERM", "xterm")
    out = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    with pytest.raises(typer.Exit) as ended:
        follow(Watch(str(tmp_path / "none")), 2.0, out)
    assert ended.value.exit_code == 130
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    assert "waiting for one" in printed
    assert "stopped watching" in printed
    assert not list(tmp_path.iterdir())
