"""The scan on videos whose cuts are known: spans tile the source, thumbnails belong to their span, windows change nothing."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from curate import scan
from curate.config import ScanConfig
from curate.stage import StageSpec
from curate.video import VideoError
from tests.curate.videos import write_video

CUTS = StageSpec("curate.cuts.PySceneDetect", "cuts")
FPS = 25


def shots(*lengths: int, width: int = 160, height: int = 96) -> Iterator[NDArray[np.uint8]]:
    """Shots of noise that drifts slowly, each of another colour."""
    for k, n in enumerate(lengths):
        rng = np.random.default_rng(k)
        picture = rng.integers(0, 90, (height, width, 3)).astype(np.uint8)
        picture = cv2.GaussianBlur(picture, (0, 0), 3) + np.array(
            [(60 * k) % 160, (110 * k) % 160, (30 * k) % 160], np.uint8
        )
        for i in range(n):
            yield np.roll(picture, i // 4, axis=1)


def run(path: Path, **options: Any) -> list[dict[str, Any]]:
    config = ScanConfig(**options)
    last = scan.n_windows(_length(path), config.window_s) - 1
    return [row for w in range(last + 1) for row in scan.scan_window(str(path), "source", w, last, config, CUTS)]


def _length(path: Path) -> float | None:
    from curate.video import probe

    return probe(str(path)).duration_s


def clips(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["skip"] is None and row["error"] is None]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s, 1 s, 12 s, 4 s at 25 fps, cut hard; keyframes every second."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_video(path, shots(75, 25, 300, 100), FPS, gop=25)


def test_cuts_lengths_and_kinds(film: Path) -> None:
    rows = run(film)
    told = [(round(r["start_s"], 2), round(r["end_s"], 2), r["start_kind"], r["end_kind"], r["skip"]) for r in rows]
    assert told == [
        (0.0, 3.0, "edge", "hard", None),
        (3.0, 4.0, "hard", "hard", "too_short"),
        (4.0, 10.0, "hard", "length", None),
        (10.0, 16.0, "length", "hard", None),
        (16.0, 20.0, "hard", "edge", None),
    ]
    assert [r["n_frames"] for r in rows] == [75, 25, 150, 150, 100]


def test_spans_tile_the_source_and_thumbnails_stay_inside(film: Path) -> None:
    rows = run(film)
    assert rows[0]["start_s"] == 0.0
    for before, after in pairwise(rows):
        assert before["end_s"] == after["start_s"]
    for row in clips(rows):
        times_s = row["thumb_times_s"]
        assert len(times_s) == len(row["thumbs"]) >= 2 * (row["end_s"] - row["start_s"]) - 1
        assert all(row["start_s"] <= t < row["end_s"] for t in times_s)
        assert np.diff(times_s) == pytest.approx(0.5, abs=1.5 / FPS)
    for row in (r for r in clips(rows) if r["start_kind"] != "length"):
        assert row["thumb_times_s"][0] == row["start_s"], "the first thumbnail is the first frame of the shot"


def test_thumbnails_show_their_own_moment(film: Path) -> None:
    frames = list(shots(75, 25, 300, 100))
    for row in clips(run(film)):
        for t_s, jpeg in zip(row["thumb_times_s"], row["thumbs"], strict=True):
            seen = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)
            assert np.abs(seen - frames[round(t_s * FPS)]).mean() < 8


@pytest.mark.parametrize("window_s", [4.0, 7.0])
def test_windows_tile_the_source_too_and_end_at_keyframes(film: Path, window_s: float) -> None:
    rows = run(film, window_s=window_s, max_clip_s=4.0, min_clip_s=1.0)
    whole = run(film, max_clip_s=4.0, min_clip_s=1.0)
    assert rows[0]["start_s"] == 0.0
    assert rows[-1]["end_s"] == whole[-1]["end_s"]
    for before, after in pairwise(rows):
        assert before["end_s"] == pytest.approx(after["start_s"], abs=1e-6)
    edges = [row["start_s"] for row in rows if row["start_kind"] == "window"]
    assert edges
    assert all(edge == pytest.approx(round(edge), abs=1e-6) for edge in edges), "keyframes lie on full seconds"
    cuts = [round(row["start_s"], 3) for row in rows if row["start_kind"] == "hard"]
    assert set(cuts) | {round(edge, 3) for edge in edges} >= {3.0, 4.0, 16.0}


def test_the_order_of_windows_changes_no_value(film: Path) -> None:
    config = ScanConfig(window_s=5.0, max_clip_s=4.0)
    forwards = [scan.scan_window(str(film), "source", w, 3, config, CUTS) for w in range(4)]
    backwards = [scan.scan_window(str(film), "source", w, 3, config, CUTS) for w in reversed(range(4))]
    assert forwards == backwards[::-1]


def test_a_file_cut_short_keeps_what_is_before_and_says_so(film: Path, tmp_path: Path) -> None:
    fast = tmp_path / "fast.mp4"
    write_video(fast, shots(75, 25, 300, 100), FPS, gop=25, container_options={"movflags": "faststart"})
    torn = tmp_path / "torn.mp4"
    data = fast.read_bytes()
    torn.write_bytes(data[: len(data) * 6 // 10])
    rows = run(torn)
    failed = [row for row in rows if row["error"]]
    assert len(failed) == 1
    assert "20.00 s" in failed[0]["error"] or "damaged" in failed[0]["error"]
    assert failed[0]["end_s"] == pytest.approx(20.0, abs=0.1)
    assert clips(rows)


def test_a_file_without_a_picture_raises_one_sentence(tmp_path: Path) -> None:
    empty = tmp_path / "x.mp4"
    empty.write_bytes(b"")
    with pytest.raises(VideoError, match="empty"):
        scan.scan_window(str(empty), "s", 0, 0, ScanConfig(), CUTS)


@pytest.mark.parametrize(("seconds", "n"), [(None, 1), (10, 1), (440, 1), (460, 2), (10_800, 36), (float("inf"), 1)])
def test_number_of_windows(seconds: float | None, n: int) -> None:
    assert scan.n_windows(seconds, 300.0) == n


def test_hard_cuts_of_real_footage(shared_dir: Path) -> None:
    """The first form of the detector, on reels with known cuts."""
    import json

    found, made = 0, 0
    for name in ("reel_a", "reel_b"):
        truth = json.loads((shared_dir / "footage" / f"{name}.json").read_text())
        rows = run(shared_dir / "footage" / f"{name}.mp4")
        starts = {round(row["start_s"] * truth["fps"]) for row in rows if row["start_kind"] == "hard"}
        cuts = [t["start"] for t in truth["transitions"] if t["type"] == "cut"]
        found += sum(any(abs(cut - start) <= 2 for start in starts) for cut in cuts)
        made += len(cuts)
    assert made == 36
    assert found >= 0.98 * made
