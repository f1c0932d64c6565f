import logging
from importlib.metadata import distribution

import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import TextArea
from filters.models.overlay import coherence, gradients
from filters.text_area import credible, network_input, shares, text_area
from tests.filters.families import family

# Photographs of coco_mini without a word on them.
CLEAN_PHOTOS = (
    "000000062554", "000000084284", "000000125870", "000000165518", "000000196393", "000000234748", "000000255165",
    "000000403353", "000000442450", "000000516008",
)  # fmt: skip


@pytest.fixture(scope="module")
def stage():
    made = TextArea()
    package, inside = made.weights.removeprefix("pip:").split(":", 1)
    made.weights = str(distribution(package.split("==")[0]).locate_file(inside))
    made.setup()
    return made


@pytest.fixture(scope="module")
def photo(shared_dir):
    def load(name):
        picture = cv2.imread(str(shared_dir / "assets/coco_mini" / f"{name}.jpg"))
        scale = 360 / min(picture.shape[:2])
        return np.ascontiguousarray(
            cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[..., ::-1]
        )

    return load


def write(picture, text, scale, at=(10, 200), thick=2):
    """The picture with text, and the share of it inside the ink's bounding box."""
    ink = np.zeros(picture.shape[:2], np.uint8)
    cv2.putText(ink, text, at, cv2.FONT_HERSHEY_DUPLEX, scale, 255, thick, cv2.LINE_AA)
    ys, xs = np.nonzero(ink)
    shade = cv2.dilate(ink, np.ones((3, 3), np.uint8))[..., None] / 255.0
    lit = ink[..., None] / 255.0
    drawn = picture * (1 - shade) * (1 - lit) + 255 * lit
    return drawn.astype(np.uint8), (np.ptp(ys) + 1) * (np.ptp(xs) + 1) / ink.size


def box(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


@pytest.mark.parametrize(
    ("boxes", "share"),
    [
        ([], 0.0),
        ([box(0, 0, 99, 49)], 0.5),
        ([box(0, 0, 49, 49), box(50, 50, 99, 99)], 0.5),
        ([box(0, 0, 59, 99), box(40, 0, 99, 99)], 1.0),
        ([box(10, 10, 29, 29), box(10, 10, 29, 29)], 0.04),
        ([box(-50, -50, 49, 49)], 0.25),
        ([[(50, 0), (100, 50), (50, 100), (0, 50)]], 0.5),
    ],
    ids=["none", "half", "two_apart", "overlap_counts_once", "same_twice", "outside_does_not_count", "rotated"],
)
def test_union_of_boxes(boxes, share):
    assert text_area(np.array(boxes, np.float32).reshape(-1, 4, 2), 100, 100) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("height_px", "score", "kept"),
    [(10, 0.71, True), (20, 0.75, False), (20, 0.85, True), (50, 0.99, False)],
    ids=["line", "tall_and_unsure", "tall_and_sure", "half_of_the_frame"],
)
def test_tall_boxes_need_a_high_score_and_very_tall_ones_are_dropped(height_px, score, kept):
    assert len(credible(np.array([box(0, 0, 90, height_px)]), [score], 100, 200)) == kept


@pytest.mark.parametrize("shape", [(360, 640), (640, 360), (720, 1280), (90, 160), (480, 2000)])
def test_network_sees_a_480_px_short_side(shape):
    batch, channels, height_px, width_px = network_input(np.zeros((*shape, 3), np.uint8)).shape
    assert (batch, channels, min(height_px, width_px)) == (1, 3, 480)
    assert height_px % 32 == width_px % 32 == 0


@pytest.mark.parametrize("name", family(CLEAN_PHOTOS, quick=2))
def test_photograph_without_text_is_almost_zero(stage, photo, name):
    picture = photo(name)
    assert text_area(stage.detect(picture), *picture.shape[:2]) < 0.005


@pytest.mark.parametrize("name", family(["grey", "000000062554", "000000084284", "000000234748"]))
@pytest.mark.parametrize(
    ("text", "scale"),
    [("Read this line, please", 0.9), ("Where are we going", 1.1), ("THE NEXT DAY IN TOWN", 1.0)],
    ids=["line", "larger", "capitals"],
)
def test_drawn_text_of_known_area(stage, photo, name, text, scale):
    picture = np.full((360, 640, 3), 90, np.uint8) if name == "grey" else photo(name)
    drawn, truth = write(picture, text, scale)
    assert text_area(stage.detect(drawn), *drawn.shape[:2]) == pytest.approx(truth, rel=0.15)


@pytest.mark.parametrize("name", family(["demo_1.png", "demo_3.png", "demo_5.png", "demo_8.jpg", "demo_9.jpg"]))
def test_words_from_real_pictures_are_located(stage, shared_dir, name):
    word = cv2.imread(str(shared_dir / "assets/ocr_words" / name))[..., ::-1]
    word = cv2.resize(word, (round(word.shape[1] * 50 / word.shape[0]), 50), interpolation=cv2.INTER_AREA)
    frame = np.full((360, 640, 3), 128, np.uint8)
    frame[100:150, 60 : 60 + word.shape[1]] = word
    boxes = stage.detect(frame)
    share = text_area(boxes, 360, 640) / (word.shape[0] * word.shape[1] / frame[..., 0].size)
    assert 0.4 < share < 1.3
    assert (boxes.mean(axis=1) > (60, 100)).all()
    assert (boxes.mean(axis=1) < (60 + word.shape[1], 150)).all()


def test_columns_and_the_maximum(stage, make_clip):
    grey = np.full((360, 640, 3), 90, np.uint8)
    small, _ = write(grey, "one line", 0.8)
    large, _ = write(small, "and a second line of text", 1.2, at=(10, 300))
    (row,) = stage([make_clip([grey, grey, small, large])])
    assert set(row) == {"clip_id", *TextArea.columns}
    assert row["text_area_first"] == 0.0
    assert 0 < row["text_area_middle"] < row["text_area_last"] == row["text_area"] <= 1


def camera(picture, path, size_px=(480, 270)):
    """Frames of a window that follows `path` (x, y in pixels) over a picture."""
    return [np.ascontiguousarray(picture[y : y + size_px[1], x : x + size_px[0]]) for x, y in path]


PAN = [(10 * i, 6 * i) for i in range(6)]
TRIPOD = [(20, 20)] * 6


@pytest.mark.parametrize("name", family(["000000062554", "000000234748", "000000403353"]))
@pytest.mark.parametrize(
    ("where", "path", "kind"),
    [
        ("overlay", PAN, "overlay"),
        ("ticker", PAN, "overlay"),
        ("scene", PAN, "scene"),
        ("overlay", TRIPOD, "still"),
        ("scene", TRIPOD, "still"),
    ],
    ids=["overlay", "ticker", "scene", "overlay_on_a_tripod", "scene_on_a_tripod"],
)
def test_overlay_and_scene_text_are_separated_when_the_picture_moves(stage, photo, make_clip, name, where, path, kind):
    picture = cv2.resize(photo(name), (640, 480))
    if where == "scene":
        frames = camera(write(picture, "Market Street 12", 0.9, at=(150, 180))[0], path)
    else:
        left = (lambda t: 60) if where == "overlay" else (lambda t: 120 - 30 * t)
        line = "Read this line" if where == "overlay" else "breaking news tonight - more at nine"
        frames = [write(f, line, 0.9, at=(left(t), 240))[0] for t, f in enumerate(camera(picture, path))]
    (row,) = stage([make_clip(frames)])
    areas = {each: row[f"{each}_text"] for each in ("overlay", "scene", "still")}
    assert max(areas, key=areas.get) == kind
    if where != "ticker":  # at the ends of a clip only a piece of it is left in the picture
        assert areas[kind] > 3 * (sum(areas.values()) - areas[kind])
    assert kind in row["text_kinds"]
    assert len(row["text_kinds"]) == len(row["text_boxes"])


def test_a_subtitle_that_changes_is_still_an_overlay(stage, photo, make_clip):
    frames = camera(cv2.resize(photo("000000062554"), (640, 480)), [(10 * i, 6 * i) for i in range(8)])
    lines = ["Where are we going"] * 3 + ["THE NEXT DAY"] * 3 + ["Nobody knows that"] * 2
    (row,) = stage([make_clip([write(f, line, 0.9, at=(60, 240))[0] for f, line in zip(frames, lines, strict=True)])])
    assert row["overlay_text"] > 0.02
    assert row["scene_text"] < 0.01


def test_boxes_are_shares_of_the_picture(stage, make_clip):
    drawn, _ = write(np.full((360, 640, 3), 90, np.uint8), "one line", 1.0, at=(320, 180))
    (row,) = stage([make_clip([drawn] * 3)])
    (box,) = row["text_boxes"]
    assert len(box) == 8
    assert box[0] == pytest.approx(0.5, abs=0.02)
    assert box[5] == pytest.approx(0.5, abs=0.03)


def test_shares_are_clipped_to_the_frame():
    assert shares(np.array([box(-9, -9, 300, 50)]), 100, 200) == [[0, 0, 1, 0, 1, 0.5, 0, 0.5]]


def test_coherence_of_the_same_shifted_and_empty_frames(textured):
    here, there = gradients(textured[:90, :160, 0]), gradients(textured[9:99, 7:167, 0])
    assert coherence(here, here) == pytest.approx(1)
    assert abs(coherence(here, there)) < 0.3
    assert coherence(here * 0, here * 0) == 1


def test_corrupt_thumbnail_between_the_three_names_the_reason(stage, make_clip):
    drawn, _ = write(np.full((360, 640, 3), 90, np.uint8), "one line", 1.0)
    clip = make_clip([drawn] * 5, clip_id="bad")
    jpegs = (clip.jpegs[0], b"no picture", *clip.jpegs[2:])
    with pytest.raises(ThumbnailError, match="bad"):
        stage([type(clip)(**{**clip.__dict__, "jpegs": jpegs})])


@pytest.mark.parametrize(("count", "runs"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_thumbnail_is_detected_once(stage, make_clip, monkeypatch, count, runs):
    seen = []
    monkeypatch.setattr(stage, "detect", lambda frame: seen.append(frame) or np.zeros((0, 4, 2), np.float32))
    stage([make_clip([np.zeros((90, 160, 3), np.uint8)] * count)])
    assert len(seen) == runs


@pytest.mark.parametrize("shape", [(360, 640), (16, 16), (32, 400)])
def test_black_frames_of_any_size_have_no_text(stage, make_clip, shape):
    (row,) = stage([make_clip([np.zeros((*shape, 3), np.uint8)])])
    assert row["text_area"] == 0.0


def test_value_depends_on_neither_order_nor_batch(stage, make_clip, photo):
    frames = [
        write(photo(name), "Some words here", 1.0, at=(10, 100 + 20 * i))[0] for i, name in enumerate(CLEAN_PHOTOS[:3])
    ]
    clips = [make_clip([frame], clip_id=f"c{i}") for i, frame in enumerate(frames)]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert len({row["text_area"] for row in together.values()}) == 3


def test_setup_logs_nothing(stage, capfd, caplog):
    with caplog.at_level(logging.DEBUG):
        TextArea(weights=stage.weights).setup()
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if "rapidocr" in record.name.lower()]


def test_detect_before_setup_is_refused():
    with pytest.raises(RuntimeError, match="setup"):
        TextArea().detect(np.zeros((32, 32, 3), np.uint8))
