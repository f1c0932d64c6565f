import pickle
from itertools import pairwise

import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import Quality
from filters.models.brisque import Brisque, features
from filters.models.picture import lit_area
from filters.quality import blockiness, contrast, flicker, noise, sharpness
from tests.filters.families import family

PHOTOS = ("000000000790", "000000084284", "000000160012", "000000234748", "000000403353", "000000516008")


@pytest.fixture(scope="module")
def model(fetched):
    return str(fetched("pip:brisque==0.2.0:brisque/models"))


@pytest.fixture(scope="module")
def photo(shared_dir):
    def load(name):
        picture = cv2.imread(str(shared_dir / "assets/coco_mini" / f"{name}.jpg"))
        scale = 360 / min(picture.shape[:2])
        return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[..., ::-1]

    return load


def grey(picture):
    return cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float32)


def blurred(luma, strength):
    return cv2.GaussianBlur(luma, (0, 0), 0.6 * strength) if strength else luma


def noisy(luma, strength):
    return np.clip(luma + np.random.default_rng(1).normal(size=luma.shape) * 4 * strength, 0, 255).astype(np.float32)


def blocky(luma, strength):
    quality = (100, 60, 40, 25, 15, 8)[strength]
    return cv2.imdecode(cv2.imencode(".jpg", luma, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0).astype(np.float32)


def darker(luma, strength):
    return luma * (1 - 0.12 * strength)


def brighter(luma, strength):
    return np.clip(luma * (1 + 0.25 * strength) + 4 * strength, 0, 255)


@pytest.mark.parametrize("name", family(PHOTOS))
@pytest.mark.parametrize(
    ("measure", "distort", "sign"),
    [
        (sharpness, blurred, -1),
        (noise, noisy, 1),
        (blockiness, blocky, 1),
        (np.mean, darker, -1),
        (np.mean, brighter, 1),
        (contrast, lambda luma, s: luma.mean() + (luma - luma.mean()) * (1 - 0.12 * s), -1),
    ],
    ids=["sharpness", "noise", "blockiness", "under_exposed", "over_exposed", "contrast"],
)
def test_measure_is_monotone_in_its_distortion(photo, name, measure, distort, sign):
    values = [float(measure(distort(grey(photo(name)), strength))) for strength in range(6)]
    assert all(sign * (after - before) > 0 for before, after in pairwise(values))


def test_noise_of_known_sigma():
    flat = np.full((200, 300), 128, np.float32)
    assert noise(flat) == 0
    assert noise(flat + np.random.default_rng(0).normal(0, 5, flat.shape).astype(np.float32)) == pytest.approx(
        5, rel=0.02
    )


@pytest.mark.parametrize(
    ("means", "value"),
    [([0.5], None), ([0.2, 0.4], None), ([0.2, 0.4, 0.6], 0.0), ([0.5, 0.6, 0.5, 0.6], 0.1)],
    ids=["one_frame", "two_frames", "a_fade_is_no_flicker", "up_and_down"],
)
def test_flicker(means, value):
    assert flicker(np.array(means)) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("period_px", "origin"),
    [(8, (0, 0)), (8, (5, 3)), (4, (0, 0)), (5.33, (0, 0))],
    ids=["source_size", "cropped", "half", "two_thirds"],
)
def test_blockiness_uses_the_grid_of_the_source(period_px, origin):
    rng = np.random.default_rng(0)
    ys, xs = (np.arange(n) // period_px for n in (180, 320))
    tiles = rng.uniform(90, 150, (60, 100))[ys.astype(int)][:, xs.astype(int)].astype(np.float32)
    tiles = (tiles + rng.normal(0, 2, tiles.shape))[origin[0] :, origin[1] :].astype(np.float32)
    assert blockiness(tiles, period_px / 8, origin) > 2
    shifted = np.roll(tiles, 2, axis=(0, 1))
    assert blockiness(shifted, period_px / 8, origin) < 0.5


def test_blocks_too_small_to_measure_are_null():
    assert blockiness(np.zeros((90, 160), np.float32), 0.33) is None
    assert blockiness(np.zeros((9, 9), np.float32)) is None


def test_black_bars_change_values_little(photo, make_clip):
    picture = photo("000000000790")[:320]
    boxed = np.zeros((400, picture.shape[1], 3), np.uint8)
    boxed[40:360] = picture
    (bare,), (barred,) = (Quality()([make_clip([frame] * 3)]) for frame in (picture, boxed))
    for column in ("sharpness", "exposure", "contrast", "noise"):
        assert barred[column] == pytest.approx(bare[column], rel=0.03), column


@pytest.mark.parametrize("level", [0, 255])
def test_frames_of_one_colour_have_values(make_clip, model, level):
    stage = Quality(weights=model)
    stage.setup()
    (row,) = stage([make_clip([np.full((36, 64, 3), level, np.uint8)] * 3)])
    assert set(row) == {"clip_id", *Quality.columns}
    assert row["exposure"] == level / 255
    assert row["sharpness"] == row["noise"] == row["contrast"] == row["flicker"] == row["blockiness"] == 0
    assert row["brisque"] is None


def test_one_thumbnail_is_measured_and_has_no_flicker(make_clip, textured):
    (row,) = Quality()([make_clip([textured[:90, :160]])])
    assert row["flicker"] is None
    assert row["brisque"] is None
    assert row["sharpness"] > 0


def test_night_is_not_a_bar():
    dark = np.full((3, 90, 160), 10, np.uint8)
    assert lit_area(dark) == (slice(0, 90), slice(0, 160))


def test_broken_thumbnail_names_the_reason(make_clip, textured):
    clip = make_clip([textured[:90, :160]] * 2, clip_id="bad")
    with pytest.raises(ThumbnailError, match="bad"):
        Quality()([type(clip)(**{**clip.__dict__, "jpegs": (clip.jpegs[0], b"no picture")})])


def test_brisque_increases_with_blur_and_blocks(model, photo):
    brisque = Brisque.load(model)
    for name in PHOTOS:
        luma = grey(photo(name))
        assert -20 < brisque.score(luma) < brisque.score(blurred(luma, 3)) < 110
        assert brisque.score(luma) < brisque.score(blocky(luma, 5))
        assert features(luma).shape == (36,)


def test_brisque_refuses_a_pickle_with_anything_but_numbers(model, tmp_path):
    (tmp_path / "svm.txt").write_text("svm_type epsilon_svr\nkernel_type rbf\ngamma 1\nrho 0\nSV\n1 1:0\n")
    (tmp_path / "normalize.pickle").write_bytes(pickle.dumps({"min_": print, "max_": []}))
    with pytest.raises(pickle.UnpicklingError, match="only numbers"):
        Brisque.load(str(tmp_path))


def test_value_depends_on_neither_order_nor_batch(make_clip, textured, model):
    stage = Quality(weights=model)
    stage.setup()
    clips = [make_clip([textured[i : 90 + i, :160], textured[:90, i : 160 + i]], clip_id=f"c{i}") for i in range(4)]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert len({row["sharpness"] for row in together.values()}) == 4
