from dataclasses import replace
from importlib.metadata import distribution

import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import SourceWatermark, Watermark
from filters.models.overlay import gradients
from filters.models.still_edges import MAP_CELLS, long_lines, median_over_time, unpacked
from filters.source_watermark import common_mark
from filters.text_area import shares
from filters.watermark import edge_score, marks_owner

PATH = [(9 * i, 5 * i) for i in range(8)]


@pytest.fixture(scope="module")
def stage():
    made = Watermark()
    package, inside = made.text_weights.removeprefix("pip:").split(":", 1)
    made.text_weights = str(distribution(package.split("==")[0]).locate_file(inside))
    made.setup()
    return made


def window(picture, path=PATH, size_px=(480, 270)):
    return [np.ascontiguousarray(picture[y : y + size_px[1], x : x + size_px[0]]) for x, y in path]


def logo(frames, opacity, at=(430, 40), r=24):
    cover = np.zeros(frames[0].shape[:2], np.uint8)
    cv2.circle(cover, at, r, 255, 6, cv2.LINE_AA)
    cv2.rectangle(cover, (at[0] - 6, at[1] - 10), (at[0] + 6, at[1] + 10), 255, -1)
    alpha = cover[..., None] / 255 * opacity
    return [(frame * (1 - alpha) + 255 * alpha).astype(np.uint8) for frame in frames]


def signed(line, shape=(270, 480), at=(40, 200)):
    """Dark frames with a line of text, and its box in TextArea's format."""
    frame = np.full((*shape, 3), 40, np.uint8)
    cv2.putText(frame, line, at, cv2.FONT_HERSHEY_DUPLEX, 1.0, (230, 230, 230), 2, cv2.LINE_AA)
    ys, xs = np.nonzero(frame[..., 0] > 100)
    box = np.array([[(xs.min(), ys.min()), (xs.max(), ys.min()), (xs.max(), ys.max()), (xs.min(), ys.max())]])
    return frame, shares(box, *shape)


@pytest.mark.parametrize("opacity", [0.7, 1.0])
@pytest.mark.parametrize("at", [(430, 40), (50, 220), (240, 135)], ids=["top_right", "bottom_left", "centre"])
def test_logo_over_a_moving_picture_is_located(stage, make_clip, textured, opacity, at):
    frames = window(textured)
    (clean,), (marked,) = (stage([make_clip(f)]) for f in (frames, logo(frames, opacity, at)))
    assert clean["watermark"] < 0.3
    assert clean["watermark_by"] is clean["watermark_box"] is clean["watermark_text"] is None
    assert marked["watermark"] > 0.5
    assert marked["watermark_by"] == "edges"
    left, top, right, bottom = marked["watermark_box"]
    assert left < at[0] / 480 < right
    assert top < at[1] / 270 < bottom
    assert right - left < 0.25
    assert bottom - top < 0.4


def test_tripod_shot_has_no_mark(stage, make_clip, textured):
    (row,) = stage([make_clip(window(textured, [(30, 30)] * 8))])
    assert row["watermark"] < 0.5


@pytest.mark.parametrize("border", ["letterbox", "frame"])
def test_borders_are_not_marks(stage, make_clip, textured, border):
    frames = window(textured)
    for frame in frames:
        if border == "letterbox":
            frame[:30] = frame[-30:] = 0
        else:
            cv2.rectangle(frame, (0, 0), (479, 269), (60, 30, 200), 12)
    (row,) = stage([make_clip(frames)])
    assert row["watermark"] < 0.3


@pytest.mark.parametrize(
    ("line", "owned"),
    [
        ("shutterstock", True), ("shutterst0ck", True), ("Getty Images", True), ("iStock", True), ("alamy", True),
        ("pond5", True), ("Adobe Stock", True), ("depositphotos", True), ("dreamstime.", True), ("123RF", True),
        ("www.example.org", True), ("visit example.com", True), ("@some_handle", True), ("(c) A. Nyman", True), ("© 2024", True),
        ("THE NEXT DAY", False), ("Market Street 12", False), ("12.5 km", False), ("me @ home", True), ("a.m.", False), ("", False),
        ("stock", False), ("come in", False),
    ],
)  # fmt: skip
def test_lines_that_name_an_owner(line, owned):
    assert marks_owner(line) is owned


@pytest.mark.parametrize(
    ("line", "kind", "found"),
    [
        ("www.example.com", "overlay", True),
        ("shutterstock", "still", True),
        ("shutterstock", "scene", False),
        ("the next day", "overlay", False),
    ],
)
def test_words_of_an_overlay_are_read(stage, make_clip, line, kind, found):
    frame, boxes = signed(line)
    clip = replace(make_clip([frame]), columns={"text_boxes": boxes, "text_kinds": [kind]})
    (row,) = stage([clip])
    assert (row["watermark"] > 0.5) is found
    assert row["watermark_by"] == ("text" if found else None)
    assert row["watermark_text"] == (line if found else None)
    if found:
        assert row["watermark_box"][0] == pytest.approx(boxes[0][0], abs=0.01)


def test_nothing_is_read_without_text_area_or_without_weights(make_clip):
    frame, boxes = signed("www.example.com")
    silent = Watermark(text_weights=None)
    silent.setup()
    clip = replace(make_clip([frame]), columns={"text_boxes": boxes, "text_kinds": ["overlay"]})
    assert silent([clip])[0]["watermark_text"] is None


@pytest.fixture(scope="module")
def tiny_classifier(tmp_path_factory):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        id2label={0: "no-watermark", 1: "Watermark"}, label2id={"no-watermark": 0, "Watermark": 1},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    model.classifier.bias.data = torch.tensor([0.0, 3.0])
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def test_classifier_is_one_of_the_detectors(make_clip, textured, tiny_classifier):
    stage = Watermark(weights=tiny_classifier, text_weights=None)
    stage.setup()
    clips = [make_clip(window(textured, [(30 * k, 30 * k)] * 3), clip_id=f"c{k}") for k in range(3)]
    rows = {row["clip_id"]: row for row in stage(clips)}
    assert rows == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    for row in rows.values():
        assert row["watermark_by"] == "classifier"
        assert 0.5 < row["watermark"] < 1
        assert row["watermark_box"] is None


def test_nan_from_the_classifier_is_an_error(make_clip, textured, tiny_classifier):
    import torch
    import transformers

    model = transformers.ViTForImageClassification.from_pretrained(tiny_classifier)
    model.classifier.bias.data = torch.tensor([0.0, float("nan")])
    model.save_pretrained(tiny_classifier + "_nan")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tiny_classifier + "_nan")
    stage = Watermark(weights=tiny_classifier + "_nan", text_weights=None)
    stage.setup()
    with pytest.raises(ValueError, match="not finite"):
        stage([make_clip(window(textured, [(0, 0)] * 2))])


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_frames_of_one_colour_have_no_mark(stage, make_clip, level, count):
    (row,) = stage([make_clip([np.full((90, 160, 3), level, np.uint8)] * count)])
    assert set(row) == {"clip_id", *Watermark.columns}
    assert row["watermark"] == 0
    assert (row["watermark_edges"] is None) == (count == 1)


def test_broken_thumbnail_names_the_reason(stage, make_clip, textured):
    clip = make_clip([textured[:90, :160]] * 2, clip_id="bad")
    with pytest.raises(ThumbnailError, match="bad"):
        stage([replace(clip, jpegs=(clip.jpegs[0], b"no picture"))])


def test_value_depends_on_neither_order_nor_batch(stage, make_clip, textured):
    frames = window(textured)
    clips = [make_clip(logo(frames, 0.4 + 0.15 * k, (100 + 60 * k, 60)), clip_id=f"c{k}") for k in range(5)]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert len({row["watermark"] for row in together.values()}) == 5


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 11, 12])
def test_median_equals_numpys(count):
    values = np.random.default_rng(count).integers(-9000, 9000, (count, 500)).astype(np.int16)
    assert np.array_equal(median_over_time(values), np.median(values.astype(np.float32), axis=0))


def test_long_lines_are_borders_and_letters_are_not():
    still = np.zeros((100, 200), np.uint8)
    still[30, :] = 1
    still[60:66, 50:60] = 1
    lines = long_lines(still)
    assert lines[30].all()
    assert not lines[60:66, 50:60].any()


def test_gradients_have_units_of_levels_per_pixel():
    ramp = np.tile(np.arange(0, 100, 2, dtype=np.uint8), (40, 1))
    dx, dy = gradients(ramp)[:, 10:-10, 10:-10]
    assert dx == pytest.approx(2, abs=1e-4)
    assert dy == pytest.approx(0, abs=1e-4)


def shots(make_clip, stage, marked, source):
    """Clips of one source with their maps: five tripod shots with different shapes."""
    clips = []
    for k in range(5):
        rng = np.random.default_rng(k)
        frame = np.full((270, 480, 3), 90, np.uint8)
        for _ in range(12):
            (x, y), grey = rng.integers((0, 0), (480, 270)), int(rng.integers(0, 200))
            cv2.circle(frame, (int(x), int(y)), int(rng.integers(8, 40)), (grey, grey, grey), -1, cv2.LINE_AA)
        clips.append(make_clip(logo([frame] * 4, 0.8) if marked else [frame] * 4, clip_id=f"{source}{k}"))
    maps = {row["clip_id"]: {"watermark_edges": row["watermark_edges"]} for row in stage(clips)}
    return [replace(clip, source_id=source, columns=maps[clip.clip_id]) for clip in clips]


def test_a_mark_shared_by_the_shots_of_one_source(stage, make_clip):
    clips = shots(make_clip, stage, True, "marked") + shots(make_clip, stage, False, "clean")
    rows = {row["clip_id"]: row for row in SourceWatermark()(clips)}
    assert set(rows["marked0"]) == {"clip_id", *SourceWatermark.columns}
    assert rows["marked0"]["source_watermark"] > 0.5 > 0.2 > rows["clean0"]["source_watermark"]
    left, top, right, bottom = rows["marked0"]["source_watermark_box"]
    assert left < 430 / 480 < right
    assert top < 40 / 270 < bottom
    assert rows["clean0"]["source_watermark_box"] is None
    assert {r["clip_id"]: r for r in SourceWatermark()(clips[::-1])} == rows


def test_one_tripod_shot_has_no_common_mark(stage, make_clip):
    clip = shots(make_clip, stage, True, "s")[0]
    data = clip.columns["watermark_edges"]
    rows = SourceWatermark()([replace(clip, clip_id=f"c{k}", columns={"watermark_edges": data}) for k in range(5)])
    assert rows[0]["source_watermark"] < 0.05


def test_source_with_too_few_clips_is_null(make_clip, textured):
    clip = make_clip([textured[:90, :160]])
    rows = SourceWatermark()([replace(clip, clip_id=f"c{k}", columns={"watermark_edges": None}) for k in range(5)])
    assert all(row["source_watermark"] is None for row in rows)


def test_empty_maps_have_no_mark():
    assert common_mark(np.zeros((4, 2, *MAP_CELLS), bool)) == (0.0, None)
    assert unpacked(np.packbits(np.ones((2, *MAP_CELLS), bool)).tobytes()).all()


def test_score_is_between_0_and_1():
    from filters.models.still_edges import Group

    low, high = (
        edge_score(Group((0, 0, 1, 1), n, o, z, r, e)) for n, o, z, r, e in ((12, 0, 4, 1, 99), (1e6, 1, 1e6, 0, 0))
    )
    assert 0 < low < 0.1 < 0.9 < high < 1
