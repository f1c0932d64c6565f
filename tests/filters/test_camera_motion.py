from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import CameraMotion
from filters.camera_motion import camera_motion, describe
from filters.models.camera_step import STANDS, camera_step, corners, displacement, evened
from tests.filters.families import family

# Photographs of the odd half of coco_mini, on which nothing was tuned.
PHOTOS = ("000000062554", "000000107438", "000000231460", "000000475678")


def filmed(picture, poses, size_px=(480, 360)):
    """A camera's view of a picture. A pose is its position (right, down, px from the centre), zoom and roll in degrees."""
    width_px, height_px = size_px
    frames = []
    for right, down, zoom, roll_deg in poses:
        at = (picture.shape[1] / 2 + right, picture.shape[0] / 2 + down)
        move = cv2.getRotationMatrix2D(at, roll_deg, zoom)
        move[:, 2] += (width_px / 2 - at[0], height_px / 2 - at[1])
        frames.append(cv2.warpAffine(picture, move, size_px, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return np.stack(frames)


T = range(-2, 3)
JUMPS = [(0, 0, 1.3, 0), (22, -14, 1.3, 1), (-12, 18, 1.3, -1), (24, 9, 1.3, 0), (-18, -16, 1.3, 1), (8, 12, 1.3, 0)]
POSES = {
    "static": [(0, 0, 1.3, 0)] * 4,
    "pan_left": [(-14 * t, 0, 1.3, 0) for t in T],
    "pan_right": [(25 * t, 0, 1.3, 0) for t in T],
    "tilt_up": [(0, -8 * t, 1.3, 0) for t in T],
    "tilt_down": [(0, 20 * t, 1.3, 0) for t in T],
    "zoom_in": [(0, 0, 1.5 * 1.07**t, 0) for t in T],
    "zoom_out": [(0, 0, 1.6 / 1.12**t, 0) for t in T],
    "roll": [(0, 0, 1.7, 5 * t) for t in T],
    "shake": JUMPS,
    "mixed": [(16 * t, 14 * t, 1.3, 0) for t in T],
}


@pytest.mark.parametrize("photo", family(PHOTOS))
@pytest.mark.parametrize("word", POSES)
def test_known_camera_move_gets_its_word(make_clip, shared_dir, photo, word):
    picture = cv2.imread(str(shared_dir / "assets/coco_mini" / f"{photo}.jpg"))[..., ::-1]
    scale = 560 / min(picture.shape[:2])
    picture = np.ascontiguousarray(cv2.resize(picture, None, fx=scale, fy=scale))
    (row,) = CameraMotion()([make_clip(filmed(picture, POSES[word]))])
    assert row["camera"] == word
    assert row["subject_motion"] < 0.05


@pytest.mark.parametrize(
    ("poses", "speed"),
    [
        ([(30 * t, 0, 1, 0) for t in range(3)], 30 * 16 / 360),
        ([(0, -5 * t, 1, 0) for t in range(3)], 5 * 16 / 360),
        ([(150 * t, 0, 1, 0) for t in (-1, 0, 1)], 150 * 16 / 360),
        ([(0, 0, 1.1**t, 0) for t in range(3)], None),
        ([(0, 0, 1, 6 * t) for t in range(3)], None),
    ],
    ids=["pan", "slow_tilt", "almost_half_of_the_picture", "zoom", "roll"],
)
def test_speed_is_the_mean_displacement_of_the_picture(textured, poses, speed):
    frames = filmed(textured, poses)
    if speed is None:
        y, x = np.mgrid[0:360, 0:480] - np.array([180, 240]).reshape(2, 1, 1)
        zoom, roll = 1 if poses[1][3] else 1.1, np.deg2rad(poses[1][3])
        speed = np.abs((x + 1j * y) * (zoom * np.exp(1j * roll) - 1)).mean() * 16 / 360
    assert camera_motion(frames)["camera_speed"] == pytest.approx(speed, rel=0.03)


def steps(*parts):
    parts_S4 = np.array(parts, float)
    return parts_S4, np.linalg.norm(parts_S4, axis=1)


@pytest.mark.parametrize(
    ("parts", "word", "shake"),
    [
        ([(0, 0, 0, 0)], "static", 0),
        ([(0.05, 0, 0, 0)] * 3, "static", 0),
        ([(1, 0, 0, 0)] * 3, "pan_left", 0),
        ([(-1, 0.2, 0, 0)] * 3, "pan_right", 0),
        ([(0, 1, 0, 0)], "tilt_up", 0),
        ([(0, -1, 0, 0)], "tilt_down", 0),
        ([(0, 0, 1, 0)], "zoom_in", 0),
        ([(0.2, 0, -1, 0)], "zoom_out", 0),
        ([(0, 0, 0, -1)], "roll", 0),
        ([(0, 0, 0, 1)], "roll", 0),
        ([(1, 0, 0, 0), (-1, 0, 0, 0)] * 3, "shake", 1),
        ([(1, 0, 0, 0)] * 4 + [(-1, 0, 0, 0)] * 4, "mixed", 1 / 7),
        ([(1, 1, 0, 0)] * 3, "mixed", 0),
        ([(1, 0, 0, 0)] * 2 + [(0, 1, 0, 0)] * 2, "mixed", 2**0.5 / 6),
    ],
)
def test_words_of_known_moves(parts, word, shake):
    name, speed, found = describe(*steps(*parts))
    assert name == word
    assert speed == pytest.approx(np.linalg.norm(parts, axis=1).mean())
    assert found == pytest.approx(shake)


def test_a_picture_that_moves_right_is_a_camera_that_turns_left(textured):
    before, after = (evened(frame) for frame in filmed(textured, [(0, 0, 1, 0), (-20, 0, 1, 0)]))
    parts, speed = displacement(camera_step(before, after), *before.shape)
    assert parts == pytest.approx([20 * 16 / 360, 0, 0, 0], abs=0.02)
    assert speed == pytest.approx(20 * 16 / 360, rel=0.02)


def test_moving_object_counts_as_the_subject(textured):
    frames = filmed(textured, [(12 * t, 0, 1, 0) for t in range(4)])
    alone = camera_motion(frames)
    for i, frame in enumerate(frames):
        frame[120:260, 60 + 40 * i : 180 + 40 * i] = textured[500:640, 900:1020]
    both = camera_motion(frames)
    assert both["camera"] == alone["camera"] == "pan_right"
    assert both["camera_speed"] == pytest.approx(alone["camera_speed"], rel=0.03)
    assert alone["subject_motion"] < 0.02
    assert 0.05 < both["subject_motion"] < 1


def test_subtitle_neither_stops_the_camera_nor_counts_as_a_subject(textured):
    frames = filmed(textured, [(0, 9 * t, 1, 0) for t in range(4)])
    for frame in frames:
        cv2.putText(frame, "and she paid yes", (60, 335), cv2.FONT_HERSHEY_DUPLEX, 1.1, (255, 255, 255), 3, cv2.LINE_AA)
    found = camera_motion(frames)
    assert found["camera"] == "tilt_down"
    assert found["camera_speed"] == pytest.approx(9 * 16 / 360, rel=0.03)
    assert found["subject_motion"] < 0.03


def test_black_bars_do_not_change_the_value(textured):
    frames = filmed(textured, [(11 * t, 0, 1, 0) for t in range(3)])
    boxed = np.pad(frames, ((0, 0), (0, 0), (81, 81), (0, 0)))
    boxed[:, :, [80, -81]] = 40  # the part of a picture's edge that scaling leaves
    found, alone = camera_motion(boxed), camera_motion(frames)
    assert found["camera"] == alone["camera"]
    assert found["camera_speed"] == pytest.approx(alone["camera_speed"], rel=0.02)


def test_change_of_light_is_not_a_move(textured):
    frames = filmed(textured, [(0, 0, 1, 0)] * 3)
    frames = np.stack(
        [np.clip(f * k + b, 0, 255).astype(np.uint8) for f, k, b in zip(frames, (1, 0.7, 0.9), (0, 30, 0), strict=True)]
    )
    found = camera_motion(frames)
    assert found["camera"] == "static"
    assert found["camera_speed"] < 0.02


def real(path, seconds, fps=2.0):
    """Frames of a video at `fps`, short side 360 px."""
    frames, next_s = [], 0.0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time > seconds:
                break
            if frame.time >= next_s:
                picture = frame.to_ndarray(format="rgb24")
                scale = 360 / min(picture.shape[:2])
                frames.append(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
                next_s += 1 / fps
    return frames


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("intel__walk.mkv", 3), ("opencvdoc__vtest.avi", 4), ("intel__car-detection.mp4", 8)],
)
def test_people_and_cars_in_front_of_a_static_camera(make_clip, shared_dir, name, seconds):
    (row,) = CameraMotion()([make_clip(real(shared_dir / "footage/raw" / name, seconds))])
    assert row["camera"] == "static"
    assert row["subject_motion"] > 0.03


@pytest.mark.parametrize("value", [0, 255])
def test_without_any_texture_the_camera_is_static(make_clip, value):
    rng = np.random.default_rng(0)
    frames = [np.clip(value + rng.normal(0, 1, (90, 160, 3)), 0, 255).astype(np.uint8) for _ in range(3)]
    (row,) = CameraMotion()([make_clip(frames)])
    assert (row["camera"], row["shake"]) == ("static", 0)


@pytest.mark.parametrize("shape", [(1, 40), (16, 16), (90, 20), (20, 300)])
def test_pictures_of_any_size(textured, shape):
    height_px, width_px = shape
    found = camera_motion(np.stack([textured[:height_px, x : x + width_px] for x in (0, 1)]))
    assert all(np.isfinite(value) for key, value in found.items() if key != "camera")


def test_corners_are_spread_over_the_picture(textured):
    busy = np.full((240, 320), 128, np.uint8)
    busy[:80, :80] = textured[:80, :80, 0]
    assert len(corners(busy)) <= 4 * 4
    assert camera_step(busy, busy) is STANDS


@pytest.mark.parametrize(
    ("count", "fps", "message"),
    [
        (1, 2.0, "clip bad has 1 thumbnail\\(s\\); camera motion needs at least two"),
        (2, 10.0, "clip bad is shorter than one step of camera motion"),
        (4, 1.0, "clip bad has a thumbnail every 1.00 s.*scan.thumb_fps"),
    ],
    ids=["one_thumbnail", "shorter_than_a_step", "thumbnails_too_far_apart"],
)
def test_clip_that_cannot_be_measured_names_the_reason(make_clip, textured, count, fps, message):
    with pytest.raises(ValueError, match=message):
        CameraMotion()([make_clip([textured[:90, :160]] * count, clip_id="bad", fps=fps)])


def test_broken_thumbnail_names_the_reason(make_clip, textured):
    clip = make_clip([textured[:90, :160]] * 2, clip_id="bad")
    broken = type(clip)(**{**clip.__dict__, "jpegs": (clip.jpegs[0], b"no picture")})
    with pytest.raises(ThumbnailError, match="bad"):
        CameraMotion()([broken])


@pytest.mark.parametrize("fps", [0, -1, 61, float("nan")])
def test_fps_out_of_range_is_refused(fps):
    with pytest.raises(ValueError, match="fps of CameraMotion"):
        CameraMotion(fps=fps)


def test_value_depends_on_neither_order_nor_batch(make_clip, textured):
    stage = CameraMotion()
    stage.setup()
    poses = [[(60 * k * t, 9 * t, 1.1**t, k * t) for t in range(3)] for k in range(4)]
    clips = [make_clip(filmed(textured, p), clip_id=f"c{i}") for i, p in enumerate(poses)]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert all(set(row) == {"clip_id", *CameraMotion.columns} for row in together.values())
    assert all(a != b for a, b in pairwise(row["camera_speed"] for row in together.values()))
