import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import Motion
from filters.motion import flow_map, motion_score, nearest_to_grid

# Photographs of coco_mini with texture from edge to edge.
TEXTURED_PHOTOS = ("000000000790", "000000160012", "000000216794", "000000234748", "000000423617", "000000475678")


def stepping(picture, dx_px, dy_px, count=3, size_px=(480, 360)):
    """Frames of a window that steps over the picture; the truth is the step."""
    width_px, height_px = size_px
    left, top = (picture.shape[1] - width_px) // 2 - dx_px, (picture.shape[0] - height_px) // 2 - dy_px
    return np.stack(
        [picture[top + dy_px * i :, left + dx_px * i :][:height_px, :width_px] for i in range(count)],
    )


@pytest.mark.parametrize(
    ("dx_px", "dy_px"),
    [(5, 0), (0, 11), (-12, 16), (22, 0), (0, -33), (40, 10)],
    ids=["quarter_right", "half_up", "diagonal", "one_left", "one_and_a_half_down", "almost_two"],
)
def test_known_translation_gives_known_magnitude(textured, dx_px, dy_px):
    truth = np.hypot(dx_px, dy_px) * 16 / 360
    assert motion_score(stepping(textured, dx_px, dy_px)) == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize("photo", TEXTURED_PHOTOS)
@pytest.mark.parametrize("step_px", [(10, 0), (0, 20), (-24, 16)], ids=["right", "down", "diagonal"])
def test_photographs_moved_by_a_known_amount(shared_dir, photo, step_px):
    picture = cv2.imread(str(shared_dir / "assets/coco_mini" / f"{photo}.jpg"))[..., ::-1]
    size_px = (min(400, picture.shape[1] - 60), min(300, picture.shape[0] - 60))
    frames = stepping(picture, *step_px, count=2, size_px=size_px)
    assert motion_score(frames) == pytest.approx(np.hypot(*step_px) * 16 / min(size_px), rel=0.05)


def test_flow_points_where_the_picture_goes(textured):
    left, right = (
        cv2.resize(frame[..., 0], (128, 96), interpolation=cv2.INTER_AREA)
        for frame in stepping(textured, -15, 0, count=2)
    )
    flow = flow_map(left, right)
    assert flow.shape == (16, 21, 2)
    assert np.median(flow[..., 0]) == pytest.approx(15 * 16 / 360, rel=0.05)
    assert abs(np.median(flow[..., 1])) < 0.02


@pytest.mark.parametrize("side_px", [48, 90, 180, 720])
def test_score_does_not_depend_on_the_size_of_the_thumbnails(textured, side_px):
    frames = stepping(textured, 12, 8)
    size_px = (side_px * 4 // 3, side_px)
    resized = np.stack([cv2.resize(f, size_px, interpolation=cv2.INTER_AREA) for f in frames])
    assert motion_score(resized) == pytest.approx(motion_score(frames), rel=0.05)


@pytest.mark.parametrize("kind", ["black", "photo", "one_pixel_high"])
def test_identical_frames_are_exactly_zero(textured, kind):
    frame = {"black": np.zeros((90, 160, 3), np.uint8), "photo": textured, "one_pixel_high": textured[:1, :40]}[kind]
    assert motion_score(np.stack([frame] * 3)) == 0.0


def test_static_picture_with_camera_noise_stays_below_the_static_limit(textured):
    rng = np.random.default_rng(1)
    noisy = [np.clip(textured + rng.normal(0, 6, textured.shape), 0, 255).astype(np.uint8) for _ in range(3)]
    assert motion_score(np.stack(noisy)) < 0.05


def test_five_speeds_keep_their_order(textured):
    scores = [motion_score(stepping(textured, speed_px, 0)) for speed_px in (1, 3, 8, 16, 32)]
    assert scores == sorted(scores)
    assert len(set(scores)) == 5


@pytest.mark.parametrize(
    ("times_s", "fps", "expected"),
    [
        ([0, 0.5, 1.0], 2, [0, 1, 2]),
        ([0, 0.25, 0.5, 0.75, 1.0], 2, [0, 2, 4]),
        ([3.0, 3.4, 4.1], 2, [0, 1, 2]),
        ([0, 0.5, 1.0], 1, [0, 2]),
        ([0, 0.1], 2, [0]),
    ],
    ids=["as_stored", "twice_as_dense", "off_the_grid", "slower", "shorter_than_a_step"],
)
def test_nearest_to_grid(times_s, fps, expected):
    assert nearest_to_grid(np.array(times_s, dtype=float), fps).tolist() == expected


def test_denser_thumbnails_are_sampled_at_the_fps_asked_for(make_clip, textured):
    dense = stepping(textured, 5, 0, count=9)
    stage = Motion(fps=2)
    (row,) = stage([make_clip(dense, fps=8)])
    (same,) = stage([make_clip(dense[::4], fps=2)])
    assert row["motion"] == same["motion"]


@pytest.mark.parametrize(
    ("count", "fps", "message"),
    [
        (1, 2.0, "clip bad has 1 thumbnail\\(s\\); motion needs at least two"),
        (2, 10.0, "clip bad is shorter than one step"),
        (4, 1.0, "clip bad has a thumbnail every 1.00 s.*scan.thumb_fps"),
    ],
    ids=["one_thumbnail", "shorter_than_a_step", "thumbnails_too_far_apart"],
)
def test_clip_that_cannot_be_measured_says_why(make_clip, textured, count, fps, message):
    with pytest.raises(ValueError, match=message):
        Motion()([make_clip([textured[:90, :160]] * count, clip_id="bad", fps=fps)])


def test_broken_thumbnail_says_why(make_clip, textured):
    clip = make_clip([textured[:90, :160]] * 2, clip_id="bad")
    broken = type(clip)(**{**clip.__dict__, "jpegs": (clip.jpegs[0], b"no picture")})
    with pytest.raises(ThumbnailError, match="bad"):
        Motion()([broken])


@pytest.mark.parametrize("fps", [0, -1, 61, float("nan")])
def test_fps_out_of_range_is_refused(fps):
    with pytest.raises(ValueError, match="fps of Motion"):
        Motion(fps=fps)


def test_batching_and_order_change_nothing(make_clip, textured):
    stage = Motion()
    stage.setup()
    clips = [make_clip(stepping(textured, 3 * i, i), clip_id=f"c{i}") for i in range(6)]
    together = {row["clip_id"]: row for row in stage(clips)}
    shuffled = {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert together == shuffled
    assert all(set(row) == {"clip_id", *Motion.columns} for row in together.values())
