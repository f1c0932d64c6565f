import av
import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import Static
from filters.static import moved_as_one, repeats, slideshow, stillness
from tests.filters.families import family

# Photographs of the odd half of coco_mini, on which nothing was tuned.
PHOTOS = ("000000062554", "000000107438", "000000231460")
SIZE_PX = (480, 270)
FPS = 24


@pytest.fixture(scope="module")
def photos(shared_dir):
    """Three photographs larger than the picture, RGB."""
    read = [cv2.imread(str(shared_dir / "assets/coco_mini" / f"{name}.jpg"))[..., ::-1] for name in PHOTOS]
    return [np.ascontiguousarray(cv2.resize(p, (600, 450), interpolation=cv2.INTER_AREA)) for p in read]


def shown(photo, right_px=0.0, zoom=1.0):
    """A part of the photograph, (270, 480, 3)."""
    scale = 1 / zoom
    move = np.array([[scale, 0, 300 + right_px - scale * 240], [0, scale, 225 - scale * 135]])
    return cv2.warpAffine(photo, move, SIZE_PX, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def through_codec(frames, folder, crf=28):
    """The frames after H.264, two a second."""
    path = folder / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE_PX, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        decoded = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return decoded[:: FPS // 2]


def held(photo, n=48):
    return [shown(photo)] * n


def ken_burns(photo, n=72, zoom=1.2, right_px=20):
    return [shown(photo, right_px * i / n, 1 + (zoom - 1) * i / n) for i in range(n)]


def dissolve(a, b, n=18):
    return [cv2.addWeighted(a, 1 - (i + 1) / (n + 1), b, (i + 1) / (n + 1), 0) for i in range(n)]


FILMS = {
    "one_still": lambda a, b, c: held(a),
    "switched": lambda a, b, c: held(a) + held(b) + held(c),
    "dissolved": lambda a, b, c: held(a) + dissolve(shown(a), shown(b)) + held(b),
    "ken_burns": lambda a, b, c: ken_burns(a),
    "ken_burns_slow": lambda a, b, c: ken_burns(b, n=96, zoom=1.06, right_px=0),
    "ken_burns_switched": lambda a, b, c: ken_burns(a) + ken_burns(c, right_px=0, zoom=1.3),
}


@pytest.mark.parametrize("film", FILMS)
def test_held_switched_and_moved_stills_are_a_slideshow(make_clip, photos, tmp_path, film):
    frames = through_codec(FILMS[film](*photos), tmp_path)
    (row,) = Static()([make_clip(frames)])
    assert row["is_slideshow"] is True
    assert row["still_frames"] >= 0.6
    assert row["duplicate_frames"] == (0 if film.startswith("ken") else row["still_frames"])


def noisy(frames, sigma=3.0):
    rng = np.random.default_rng(5)
    return [np.clip(f + rng.normal(0, sigma, f.shape), 0, 255).astype(np.uint8) for f in frames]


def with_object(frames, step_px):
    """A 40 px wide object that moves in front."""
    out = [frame.copy() for frame in frames]
    for i, frame in enumerate(out):
        x = 20 + round(step_px * i) % 400
        frame[100:180, x : x + 40] = (200, 40, 40)
    return out


LIVE = {
    "someone_passes": lambda a, b, c: with_object(held(a, 72), 4),
    "pan_with_a_subject": lambda a, b, c: with_object(ken_burns(a), 5),
    "someone_passes_between": lambda a, b, c: held(a) + with_object(held(a, 24), 15) + held(a),
    "locked_off_with_noise": lambda a, b, c: noisy(held(a)),
}


@pytest.mark.parametrize("film", LIVE)
def test_real_motion_is_not_a_slideshow(make_clip, photos, tmp_path, film):
    frames = through_codec(LIVE[film](*photos), tmp_path, crf=18)
    (row,) = Static()([make_clip(frames)])
    assert row["is_slideshow"] is False


@pytest.mark.parametrize(
    ("order", "duplicates"),
    [("aaaa", 1.0), ("aabb", 2 / 3), ("abab", 0.0), ("aaab", 2 / 3), ("ab", 0.0)],
)
def test_share_of_repeated_steps(make_clip, photos, order, duplicates):
    pictures = {"a": shown(photos[0]), "b": shown(photos[1])}
    (row,) = Static()([make_clip([pictures[k] for k in order])])
    assert row["duplicate_frames"] == pytest.approx(duplicates)


@pytest.mark.parametrize(
    ("pictures", "still", "expected"),
    [
        ("aaa", [1, 1], True),
        ("ab", [0], False),
        ("aabb", [1, 0, 1], True),
        ("aaxybb", [1, 0, 0, 0, 1], True),
        ("aawxybb", [1, 0, 0, 0, 0, 1], False),
        ("aaxaa", [1, 0, 0, 1], False),
        ("aab", [1, 0], False),
        ("baa", [0, 1], False),
    ],
    ids=["held", "one_change", "cut", "dissolve", "too_long", "comes_back", "ends_changing", "starts_changing"],
)
def test_stills_and_switches_between_them(pictures, still, expected):
    levels = dict(zip("abwxy", (20, 200, 60, 90, 130), strict=True))
    frames = np.stack([np.full((36, 64, 3), levels[k], np.uint8) for k in pictures])
    assert slideshow(frames, np.array(still, bool)) is expected


def test_one_small_moving_object_is_not_a_repetition(photos):
    before = after = shown(photos[0])
    assert repeats(before, after)
    assert not repeats(before, with_object([after], 0)[0])
    assert not moved_as_one(shown(photos[0]), with_object([shown(photos[0], 8)], 0)[0])
    assert moved_as_one(shown(photos[0]), shown(photos[0], 8))


@pytest.mark.parametrize("name", family(["intel__bottle-detection.mp4", "opencvdoc__vtest.avi", "finetr__hiker.mp4"]))
def test_real_shots_are_not_slideshows(make_clip, shared_dir, name):
    with av.open(str(shared_dir / "footage/raw" / name)) as container:
        rate = float(container.streams.video[0].average_rate)
        frames = []
        for i, frame in enumerate(container.decode(video=0)):
            if i >= 4 * rate:
                break
            if i % round(rate / 2) == 0:
                frames.append(frame.to_ndarray(format="rgb24"))
    (row,) = Static()([make_clip(frames)])
    assert row["is_slideshow"] is False
    assert row["duplicate_frames"] == 0


def test_black_bars_do_not_count(photos):
    frames = np.stack([shown(photos[0], x) for x in (0, 9, 18)])
    boxed = np.pad(frames, ((0, 0), (0, 0), (100, 100), (0, 0)))
    assert stillness(boxed)["duplicate_frames"] == stillness(frames)["duplicate_frames"] == 0


def test_black_frames_repeat(make_clip):
    (row,) = Static()([make_clip([np.zeros((90, 160, 3), np.uint8)] * 3)])
    assert row == {"clip_id": "c", "duplicate_frames": 1.0, "still_frames": 1.0, "is_slideshow": True}


@pytest.mark.parametrize("shape", [(1, 40), (16, 16), (90, 20)])
def test_pictures_of_any_size(textured, shape):
    height_px, width_px = shape
    row = stillness(np.stack([textured[:height_px, x : x + width_px] for x in (0, 1)]))
    assert 0 <= row["duplicate_frames"] <= row["still_frames"] <= 1


@pytest.mark.parametrize(
    ("count", "fps", "message"),
    [
        (1, 2.0, "clip bad has 1 thumbnail\\(s\\); stillness needs at least two"),
        (2, 10.0, "clip bad is shorter than one step of stillness"),
        (4, 1.0, "clip bad has a thumbnail every 1.00 s.*scan.thumb_fps"),
    ],
    ids=["one_thumbnail", "shorter_than_a_step", "thumbnails_too_far_apart"],
)
def test_clip_that_cannot_be_measured_names_the_reason(make_clip, textured, count, fps, message):
    with pytest.raises(ValueError, match=message):
        Static()([make_clip([textured[:90, :160]] * count, clip_id="bad", fps=fps)])


def test_broken_thumbnail_names_the_reason(make_clip, textured):
    clip = make_clip([textured[:90, :160]] * 2, clip_id="bad")
    broken = type(clip)(**{**clip.__dict__, "jpegs": (clip.jpegs[0], b"no picture")})
    with pytest.raises(ThumbnailError, match="bad"):
        Static()([broken])


@pytest.mark.parametrize("fps", [0, -1, 61, float("nan")])
def test_fps_out_of_range_is_refused(fps):
    with pytest.raises(ValueError, match="fps of Static"):
        Static(fps=fps)


def test_value_depends_on_neither_order_nor_batch(make_clip, photos):
    stage = Static()
    stage.setup()
    films = [held(photos[0], 3), [shown(photos[1], 8 * i) for i in range(3)], [shown(p) for p in photos]]
    clips = [make_clip(frames, clip_id=f"c{i}") for i, frames in enumerate(films)]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert all(set(row) == {"clip_id", *Static.columns} for row in together.values())
    assert [row["still_frames"] for row in together.values()] == [1.0, 1.0, 0.0]
