"""A long source scanned in windows: ids and values do not depend on the number of workers or the order of sources."""

import json
from pathlib import Path

import pandas as pd
import pytest

from curate.dataset.run import Run
from tests.curate.scan.test_scan import FPS, shots
from tests.project import Rushes
from tests.videos import loop, write_video

PIPELINE = """\
run: run
sources: {sources}
scan: {{min_clip_s: 1.0, max_clip_s: 5.0, window_s: 60, workers: {workers}}}
"""
TURNS = 19  # of four shots, 395 frames, in 300 s


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`film.mp4` of four shots, and `long.mp4`: the same repeated for five minutes."""
    folder = tmp_path_factory.mktemp("long")
    film = write_video(folder / "film.mp4", shots(75, 100, 130, 90), FPS, gop=50, b_frames=2)
    loop(film, folder / "long.mp4", 300)
    return folder


def run(footage: Path, folder: Path, rushes: Rushes, names: list[str], workers: int) -> pd.DataFrame:
    folder.mkdir()
    manifest = folder / "manifest.csv"
    manifest.write_text("uri\n" + "".join(f"{footage / name}\n" for name in names))
    (folder / "pipeline.yaml").write_text(PIPELINE.format(sources=json.dumps(str(manifest)), workers=workers))
    done = rushes("run", cwd=folder, process=workers > 1)
    assert done.code == 0, done.err
    opened = Run.open(folder / "run")
    opened.ledger().check()
    table = opened.clips_table.read().to_pandas()
    return table.sort_values(["source_id", "window", "start_s", "clip_id"], ignore_index=True)


@pytest.fixture(scope="module")
def with_one(footage: Path, tmp_path_factory: pytest.TempPathFactory, rushes: Rushes) -> pd.DataFrame:
    return run(footage, tmp_path_factory.mktemp("runs") / "one", rushes, ["film.mp4", "long.mp4"], workers=1)


@pytest.mark.slow  # two workers start a Ray
def test_workers_and_order_do_not_change_the_rows(
    footage: Path, with_one: pd.DataFrame, tmp_path: Path, rushes: Rushes
) -> None:
    one, two = with_one.copy(), run(footage, tmp_path / "two", rushes, ["long.mp4", "film.mp4"], workers=2)
    assert one["window"].nunique() == 5
    thumbs = [frame.pop("thumbs").map(lambda t: None if t is None else [bytes(j) for j in t]) for frame in (one, two)]
    times = [frame.pop("thumb_times_s").map(lambda t: None if t is None else list(t)) for frame in (one, two)]
    pd.testing.assert_frame_equal(one, two)
    assert thumbs[0].equals(thumbs[1])
    assert times[0].equals(times[1])


def test_windows_find_every_cut_of_the_whole(with_one: pd.DataFrame) -> None:
    rows = with_one[with_one["source_id"] == with_one.groupby("source_id")["window"].max().idxmax()]
    cuts = {round(t * FPS) for t in rows.loc[rows["start_kind"] == "hard", "start_s"]}
    edges = {round(t * FPS) for t in rows.loc[rows["start_kind"] == "window", "start_s"]}
    made = {395 * turn + at for turn in range(TURNS) for at in (0, 75, 175, 305)} - {0}
    assert len(edges) == 4
    assert made - cuts <= edges, "a cut on a window's first frame is the window's edge"
    assert cuts <= made
    assert rows["n_frames"].sum() == 395 * TURNS
