"""The scan on videos with known cuts: spans tile the source, thumbnails belong to their span, and windows do not change the result."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray

from curate.config.config import ScanConfig
from curate.scan import scan
from curate.stages.stage import StageSpec
from curate.video.frame_hash import bits_apart, frame_hash
from curate.video.open import VideoError
from tests.videos import write_video

CUTS = StageSpec("curate.cuts.Cascade", "cuts")
FPS = 25


def shots(*lengths: int, width: int = 160, height: int = 96) -> Iterator[NDArray[np.uint8]]:
    """Shots of a smooth texture that drifts slowly, each in another colour."""
    for k, n in enumerate(lengths):
        noise = cv2.GaussianBlur(np.random.default_rng(k).normal(size=(height, width, 3)), (0, 0), 8)
        colour = np.array([(60 * k) % 160, (110 * k) % 160, (30 * k) % 160]) + 50
        picture = np.clip(noise / noise.std() * 22 + colour, 0, 255).astype(np.uint8)
        for i in range(n):
            yield np.roll(picture, i // 4, axis=1)


def run(path: Path, **options: Any) -> list[dict[str, Any]]:
    config = ScanConfig(**options)
    last = scan.n_windows(_length(path), config.window_s) - 1
    return [row for w in range(last + 1) for row in scan.scan_window(str(path), "source", w, last, config, CUTS)]


def _length(path: Path) -> float | None:
    from curate.video.open import probe

    return probe(str(path)).duration_s


def clips(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["skip"] is None and row["error"] is None]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shots of 3 s, 1 s, 12 s and 4 s at 25 fps with hard cuts; a keyframe every second."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_video(path, shots(75, 25, 300, 100), FPS, gop=25)


def test_cuts_lengths_and_kinds(film: Path) -> None:
    rows = run(film)
    summary = [(round(r["start_s"], 2), round(r["end_s"], 2), r["start_kind"], r["end_kind"], r["skip"]) for r in rows]
    assert summary == [
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
        assert times_s == pytest.approx([round(2 * t) / 2 for t in times_s], abs=0.501 / FPS), (
            "a fixed grid, whatever the cuts"
        )


def test_thumbnails_show_the_frames_at_their_times(film: Path) -> None:
    frames = list(shots(75, 25, 300, 100))
    for row in clips(run(film)):
        for t_s, jpeg in zip(row["thumb_times_s"], row["thumbs"], strict=True):
            seen = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)
            assert np.abs(seen - frames[round(t_s * FPS)]).mean() < 8


@pytest.mark.parametrize("window_s", [4.0, 7.0])
def test_windows_tile_the_source_and_end_at_keyframes(film: Path, window_s: float) -> None:
    rows = run(film, window_s=window_s, max_clip_s=4.0, min_clip_s=1.0)
    whole = run(film, max_clip_s=4.0, min_clip_s=1.0)
    assert rows[0]["start_s"] == 0.0
    assert rows[-1]["end_s"] == whole[-1]["end_s"]
    for before, after in pairwise(rows):
        assert before["end_s"] == pytest.approx(after["start_s"], abs=1e-6)
    edges = [row["start_s"] for row in rows if row["start_kind"] == "window"]
    assert edges
    assert all(edge == pytest.approx(round(edge), abs=1e-6) for edge in edges), "keyframes are at full seconds"
    cuts = [round(row["start_s"], 3) for row in rows if row["start_kind"] == "hard"]
    assert set(cuts) | {round(edge, 3) for edge in edges} >= {3.0, 4.0, 16.0}


def test_values_do_not_depend_on_the_order_of_windows(film: Path) -> None:
    config = ScanConfig(window_s=5.0, max_clip_s=4.0)
    forwards = [scan.scan_window(str(film), "source", w, 3, config, CUTS) for w in range(4)]
    backwards = [scan.scan_window(str(film), "source", w, 3, config, CUTS) for w in reversed(range(4))]
    assert forwards == backwards[::-1]


def test_a_transition_across_a_window_edge_is_skipped_on_both_sides(tmp_path: Path) -> None:
    a, b = np.stack(list(shots(140))).astype(float), np.stack(list(shots(0, 140))).astype(float)
    share = (np.arange(30) / 30)[:, None, None, None]
    middle = (1 - share) * a[-30:] + share * b[:30]  # frames 110 to 140; a window begins at the keyframe 125
    film = np.concatenate([a[:-30], middle, b[30:]]).astype(np.uint8)
    path = write_video(tmp_path / "dissolve.mp4", film, FPS, gop=25)
    rows = run(path, window_s=5.0, max_clip_s=4.0)
    summary = [(round(r["start_s"] * FPS), round(r["end_s"] * FPS), r["skip"]) for r in rows]
    assert [t[2] for t in summary] == [None, None, "transition", "transition", None, None]
    assert summary[2] == (pytest.approx(110, abs=4), 125, "transition")
    assert summary[3] == (125, pytest.approx(140, abs=4), "transition")
    assert {row["start_kind"] for row in rows[2:4]} == {"dissolve"}
    assert [row["window"] for row in rows] == [0, 0, 0, 1, 1, 1]


def test_kind_confidence_and_detector_are_stored_for_each_boundary(film: Path) -> None:
    rows = run(film)
    for before, after in pairwise(rows):
        assert before["end_kind"] == after["start_kind"]
        if before["end_kind"] == "hard":
            assert before["end_detector"] == after["start_detector"] == "ratio"
            assert 0.5 < before["end_confidence"] == after["start_confidence"] <= 1
        else:
            assert before["end_confidence"] is before["end_detector"] is None
    assert [row["first_frame"] for row in rows] == [0, 75, 100, 250, 400]
    assert set(rows[0]) == set(scan.SCHEMA.names)


def test_hashes_match_the_first_and_last_frame_of_a_written_clip(film: Path) -> None:
    from curate.clips.write import Cut, Span, cut
    from curate.video.open import Reader

    rows = clips(run(film))
    spans = [Span(row["clip_id"], row["start_s"], row["end_s"]) for row in rows]
    for row, made in zip(rows, cut(str(film), spans), strict=True):
        assert isinstance(made, Cut)
        with fsspec.open(f"memory://{row['clip_id']}.mp4", "wb") as file:
            file.write(made.mp4)
        with Reader(f"memory://{row['clip_id']}.mp4") as reader:
            pictures = [cv2.cvtColor(frame.rgb(), cv2.COLOR_RGB2GRAY) for frame in reader]
        assert bits_apart(frame_hash(pictures[0]), row["first_hash"]) <= 8
        assert bits_apart(frame_hash(pictures[-1]), row["last_hash"]) <= 8
    assert bits_apart(rows[0]["last_hash"], rows[1]["first_hash"]) > 12, "the shots on both sides of a cut differ"


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_hashes_and_boxes_are_upright(tmp_path: Path, rotation_deg: int) -> None:
    upright = np.stack(list(shots(75)))
    upright[:, :, :20] = upright[:, :, -20:] = 16
    stored = np.rot90(upright, rotation_deg // 90, axes=(1, 2))
    path = write_video(tmp_path / "turned.mp4", stored, FPS, rotation_deg=rotation_deg)
    (row,) = run(path)
    assert (row["width_px"], row["height_px"]) == (160, 96)
    wanted = frame_hash(cv2.cvtColor(upright[0], cv2.COLOR_RGB2GRAY))
    assert bits_apart(row["first_hash"], wanted) <= 10
    assert (row["crop_x_px"], row["crop_width_px"]) == (pytest.approx(20, abs=2), pytest.approx(120, abs=4))
    assert (row["crop_y_px"], row["crop_height_px"]) == (0, 96)


def test_keyframe_alignment_keeps_a_copied_clip_inside_its_shot(film: Path) -> None:
    from curate.clips.write import ClipOptions, Cut, Span, cut

    rows = run(film, align="keyframe")
    assert sum(row["n_frames"] for row in rows) == 500
    for before, after in pairwise(rows):
        assert before["end_s"] == after["start_s"]
    good = clips(rows)
    assert good
    spans = [Span(row["clip_id"], row["start_s"], row["end_s"]) for row in good]
    for row, made in zip(good, cut(str(film), spans, ClipOptions(mode="copy")), strict=True):
        assert isinstance(made, Cut)
        assert (made.start_s, made.end_s) == (pytest.approx(row["start_s"]), pytest.approx(row["end_s"]))
        assert made.n_frames == row["n_frames"], "nothing is lost in copying"


def test_boxes_of_real_pillarboxes(shared_dir: Path) -> None:
    """The reels show each source at 640 x 360 with its own aspect ratio, which gives the bars."""
    import json

    sources = {"dj__video2.mp4": (480, 640), "dj__video4.mp4": (480, 360), "opencvdoc__vtest.avi": (768, 576)}
    truth = json.loads((shared_dir / "footage" / "reel_a.json").read_text())
    rows = run(shared_dir / "footage" / "reel_a.mp4")
    at, checked = 0, 0
    for i, shot in enumerate(truth["shots"]):
        start_s = at / truth["fps"]
        at = truth["transitions"][i]["end"] if i < len(truth["transitions"]) else at
        if shot["file"] not in sources:
            continue
        width, height = sources[shot["file"]]
        bar_px = (640 - round(360 * width / height)) / 2
        for row in clips(rows):
            if row["start_s"] >= start_s - 0.1 and row["end_s"] <= at / truth["fps"] + 0.1:
                assert row["crop_x_px"] == pytest.approx(bar_px, abs=4), shot
                assert row["crop_width_px"] == pytest.approx(640 - 2 * bar_px, abs=8), shot
                checked += 1
    assert checked >= 4


def test_a_truncated_file_gives_its_clips_and_an_error_row(film: Path, tmp_path: Path) -> None:
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
