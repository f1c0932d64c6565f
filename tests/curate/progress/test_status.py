"""`rushes status` counts of finished runs and of runs in progress."""

import shutil
from pathlib import Path

import pytest

from curate.dataset.run import Run
from curate.progress.status import counts


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_has_no_undecided_clips(finished: Path) -> None:
    status = counts(Run.open(finished))
    assert status["clips"]["undecided"] == 0
    assert "undecided" not in status["seconds"]


def test_clips_without_a_value_yet_are_undecided_and_not_dropped(copy: Path) -> None:
    before = counts(Run.open(copy))["clips"]
    run = Run.open(copy, ("keep={brightness: {above: 0}}",))
    done = counts(run)["clips"]
    for part in run.tables()["brightness"].parts():
        run.tables()["brightness"].remove_part(part)
    clips = counts(run)["clips"]
    good = before["total"] - before["failed"]
    assert (clips["kept"], clips["dropped"], clips["undecided"]) == (0, 0, good)
    assert done["kept"] + done["dropped"] == good
    seconds = counts(run)["seconds"]
    assert seconds["dropped"] == pytest.approx(0.0)
    assert seconds["undecided"] > 0


def test_a_percentile_decides_nothing_before_every_value_exists(copy: Path) -> None:
    run = Run.open(copy, ("keep={brightness: {above: p50}}",))
    table = run.tables()["brightness"]
    (clip_id, *_) = run.clip_ids()
    table.drop_rows({(clip_id,)})
    clips = counts(run)["clips"]
    assert (clips["kept"], clips["dropped"]) == (0, 0)
