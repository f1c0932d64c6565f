import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import Motion
from filters.models.flow import DIS, FARNEBACK, flow_map, raft
from filters.models.sampling import nearest_to_grid
from filters.motion import motion_score
from tests.filters.families import family

FLOWS = pytest.mark.parametrize("flow", [FARNEBACK, DIS], ids=["farneback", "dis"])

# Photographs of coco_mini with texture from edge to edge.
TEXTURED_PHOTOS = ("000000000790", "000000160012", "000000216794", "000000234748", "000000423617", "000000475678")


def stepping(picture, dx_px, dy_px, count=3, size_px=(480, 360)):
    """Frames of a window that moves over the picture; the true motion is the step."""
    width_px, height_px = size_px
    left, top = (picture.shape[1] - width_px) // 2 - dx_px, (picture.shape[0] - height_px) // 2 - dy_px
    return np.stack(
        [picture[top + dy_px * i :, left + dx_px * i :][:height_px, :width_px] for i in range(count)],
    )


@FLOWS
@pytest.mark.parametrize(
    ("dx_px", "dy_px"),
    [(5, 0), (0, 11), (-12, 16), (22, 0), (0, -33), (40, 10)],
    ids=["quarter_right", "half_up", "diagonal", "one_left", "one_and_a_half_down", "almost_two"],
)
def test_known_translation_gives_known_magnitude(textured, dx_px, dy_px, flow):
    truth = np.hypot(dx_px, dy_px) * 16 / 360
    assert motion_score(stepping(textured, dx_px, dy_px), flow) == pytest.approx(truth, rel=0.05)


@FLOWS
@pytest.mark.parametrize("photo", family(TEXTURED_PHOTOS))
@pytest.mark.parametrize("step_px", [(10, 0), (0, 20), (-24, 16)], ids=["right", "down", "diagonal"])
def test_photographs_moved_by_a_known_amount(shared_dir, photo, step_px, flow):
    picture = cv2.imread(str(shared_dir / "assets/coco_mini" / f"{photo}.jpg"))[..., ::-1]
    size_px = (min(400, picture.shape[1] - 60), min(300, picture.shape[0] - 60))
    frames = stepping(picture, *step_px, count=2, size_px=size_px)
    assert motion_score(frames, flow) == pytest.approx(np.hypot(*step_px) * 16 / min(size_px), rel=0.05)


def test_flow_points_in_the_direction_of_motion(textured):
    left, right = (
        cv2.resize(frame[..., 0], (128, 96), interpolation=cv2.INTER_AREA)
        for frame in stepping(textured, -15, 0, count=2)
    )
    flow = flow_map(left, right)
    assert flow.shape == (16, 21, 2)
    assert np.median(flow[..., 0]) == pytest.approx(15 * 16 / 360, rel=0.05)
    assert abs(np.median(flow[..., 1])) < 0.02


@pytest.mark.parametrize("side_px", [48, 90, 180, 720])
def test_score_does_not_depend_on_the_size_of_thumbnails(textured, side_px):
    frames = stepping(textured, 12, 8)
    size_px = (side_px * 4 // 3, side_px)
    resized = np.stack([cv2.resize(f, size_px, interpolation=cv2.INTER_AREA) for f in frames])
    assert motion_score(resized) == pytest.approx(motion_score(frames), rel=0.05)


@FLOWS
@pytest.mark.parametrize("kind", ["black", "photo", "one_pixel_high"])
def test_identical_frames_are_exactly_zero(textured, kind, flow):
    frame = {"black": np.zeros((90, 160, 3), np.uint8), "photo": textured, "one_pixel_high": textured[:1, :40]}[kind]
    assert motion_score(np.stack([frame] * 3), flow) == 0.0


@FLOWS
def test_static_picture_with_camera_noise_stays_below_the_static_limit(textured, flow):
    rng = np.random.default_rng(1)
    noisy = [np.clip(textured + rng.normal(0, 6, textured.shape), 0, 255).astype(np.uint8) for _ in range(3)]
    assert motion_score(np.stack(noisy), flow) < 0.05


@FLOWS
def test_five_speeds_keep_their_order(textured, flow):
    scores = [motion_score(stepping(textured, speed_px, 0), flow) for speed_px in (1, 3, 8, 16, 32)]
    assert scores == sorted(scores)
    assert len(set(scores)) == 5


def draw(frames, overlay):
    """The frames with a still overlay."""
    drawn = frames.copy()
    height_px, width_px = frames.shape[1:3]
    for frame in drawn:
        if overlay == "logo":
            cv2.circle(frame, (width_px - 50, 50), 28, (230, 40, 40), -1)
            cv2.circle(frame, (width_px - 50, 50), 14, (255, 255, 255), -1)
        else:
            for colour, thick in (((0, 0, 0), 6), ((255, 255, 255), 2)):
                at = (width_px // 2 - 170, height_px - 25)
                cv2.putText(
                    frame, "I never paid that, no", at, cv2.FONT_HERSHEY_DUPLEX, 0.9, colour, thick, cv2.LINE_AA
                )
    return drawn


@FLOWS
@pytest.mark.parametrize("bars", [(0, 80), (45, 0), (30, 40)], ids=["pillarbox", "letterbox", "windowbox"])
@pytest.mark.parametrize("black", [0, 16])
def test_black_bars_do_not_change_the_value(make_clip, textured, bars, black, flow):
    (rows, columns), frames = bars, stepping(textured, 14, 6)
    boxed = np.pad(frames, ((0, 0), (rows, rows), (columns, columns), (0, 0)), constant_values=black)
    (clip, boxed_clip) = (make_clip(f).frames_THWC for f in (frames, boxed))
    assert motion_score(boxed_clip, flow) == pytest.approx(motion_score(clip, flow), rel=0.05)


@FLOWS
@pytest.mark.parametrize("overlay", ["logo", "subtitle"])
@pytest.mark.parametrize("step_px", [(14, 0), (0, 9), (24, -18)], ids=["right", "down", "diagonal"])
def test_still_overlay_does_not_dilute_motion(make_clip, textured, overlay, step_px, flow):
    frames = stepping(textured, *step_px)
    drawn = make_clip(draw(frames, overlay)).frames_THWC
    assert motion_score(drawn, flow) == pytest.approx(motion_score(frames, flow), rel=0.05)


@pytest.mark.parametrize("overlay", ["logo", "subtitle"])
def test_overlay_on_a_still_picture_is_still(textured, overlay):
    assert motion_score(draw(stepping(textured, 0, 0), overlay)) == 0.0


def test_still_background_is_not_an_overlay(textured):
    before, after = stepping(textured, 0, 0, count=2)
    before[100:220, 60:180] = after[100:220, 90:210] = textured[500:620, 900:1020]
    flow = flow_map(FARNEBACK.prepare(before), FARNEBACK.prepare(after))
    score = motion_score(np.stack([before, after]))
    assert score == pytest.approx(np.hypot(flow[..., 0], flow[..., 1]).mean())
    assert score > 0.05


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


def test_denser_thumbnails_are_sampled_at_fps(make_clip, textured):
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
def test_clip_that_cannot_be_measured_names_the_reason(make_clip, textured, count, fps, message):
    with pytest.raises(ValueError, match=message):
        Motion()([make_clip([textured[:90, :160]] * count, clip_id="bad", fps=fps)])


def test_broken_thumbnail_names_the_reason(make_clip, textured):
    clip = make_clip([textured[:90, :160]] * 2, clip_id="bad")
    broken = type(clip)(**{**clip.__dict__, "jpegs": (clip.jpegs[0], b"no picture")})
    with pytest.raises(ThumbnailError, match="bad"):
        Motion()([broken])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "raft"}, "needs weights"),
        ({"weights": "dir:/x"}, "for method raft"),
        ({"method": "pwc"}, "farneback, dis or raft"),
    ],
)
def test_method_and_weights_must_match(options, message):
    with pytest.raises(ValueError, match=message):
        Motion(**options)


def test_dis_writes_the_same_column(make_clip, textured):
    clips = [make_clip(stepping(textured, 9, 4))]
    (row,), (other,) = Motion()(clips), Motion(method="dis")(clips)
    assert row["motion"] != other["motion"] == pytest.approx(row["motion"], rel=0.05)


@pytest.fixture(scope="module")
def raft_state():
    """RAFT (small) with random weights: it tests the code path, not the values."""
    torch = pytest.importorskip("torch")
    optical_flow = pytest.importorskip("torchvision.models.optical_flow")
    torch.manual_seed(0)
    return optical_flow.raft_small(weights=None).state_dict()


@pytest.mark.parametrize("kind", ["pth", "safetensors", "folder"])
def test_raft_has_its_own_column_and_does_not_depend_on_the_batch(
    make_clip, textured, raft_state, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr("filters.models.flow.RAFT_SIDE_PX", 128)  # 450 takes a CPU many seconds
    path = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pth")
    if kind == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(raft_state, path)
    else:
        pytest.importorskip("torch").save(raft_state, path)
    stage = Motion(method="raft", weights=str(tmp_path if kind == "folder" else path))
    assert set(stage.columns) == {"motion_raft"}
    assert set(Motion.columns) == {"motion"}
    stage.setup()
    still, moving = (make_clip(stepping(textured, x, 0, count=2, size_px=(96, 96)), f"c{x}") for x in (0, 9))
    rows = {row["clip_id"]: row for row in stage([still, moving])}
    assert rows["c0"] == {"clip_id": "c0", "motion_raft": 0.0}
    assert np.isfinite(rows["c9"]["motion_raft"])
    if kind == "pth":
        assert [rows["c9"], rows["c0"]] == stage([moving, still])


def test_raft_input_has_the_size_of_svd(raft_state, tmp_path):
    pytest.importorskip("torch").save(raft_state, tmp_path / "model.pth")
    assert raft(tmp_path).prepare(np.zeros((360, 640, 3), np.uint8)).shape == (450, 800, 3)


def test_raft_before_setup_is_refused(make_clip, textured):
    with pytest.raises(RuntimeError, match="setup"):
        Motion(method="raft", weights="x.pth")([make_clip(stepping(textured, 1, 0))])


def test_weights_of_another_network_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="holds 0 files"):
        raft(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="not a state dict of torchvision's RAFT"):
        raft(tmp_path)


def test_flow_that_is_not_finite_is_refused(textured):
    broken = FARNEBACK._replace(between=lambda a, b: np.full((*a.shape, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        motion_score(stepping(textured, 5, 0), broken)


@pytest.mark.parametrize("fps", [0, -1, 61, float("nan")])
def test_fps_out_of_range_is_refused(fps):
    with pytest.raises(ValueError, match="fps of Motion"):
        Motion(fps=fps)


def test_value_depends_on_neither_order_nor_batch(make_clip, textured):
    stage = Motion()
    stage.setup()
    clips = [make_clip(stepping(textured, 3 * i, i), clip_id=f"c{i}") for i in range(6)]
    together = {row["clip_id"]: row for row in stage(clips)}
    shuffled = {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert together == shuffled
    assert all(set(row) == {"clip_id", *Motion.columns} for row in together.values())
