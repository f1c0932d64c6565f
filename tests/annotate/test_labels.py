import cv2
import numpy as np
import pytest

from annotate import Labels
from annotate.labels import sentence, top_labels
from curate.clip import ThumbnailError
from filters.models.efficientnet import network_input


@pytest.fixture(scope="module")
def stage(ready):
    return ready(Labels())


@pytest.fixture(scope="module")
def photo(shared_dir):
    return lambda name: cv2.imread(str(shared_dir / "assets/coco_mini" / f"{name}.jpg"))[..., ::-1]


@pytest.mark.parametrize(
    ("labels", "motion", "camera", "expected"),
    [
        ([("pizza", 0.9)], 0.1, None, "Video labelled as: pizza; little motion."),
        ([("ox", 0.5), ("alp", 0.3)], None, None, "Video labelled as: ox, alp."),
        ([("ox", 0.5), ("alp", 0.2)], None, None, "Video labelled as: ox, perhaps alp."),
        ([("desk", 0.2)], 0.7, None, "No ImageNet label is confident, perhaps desk; strong motion."),
        ([], 0.0, "static", "No ImageNet label is confident; almost no motion; static camera."),
        ([], None, None, "No ImageNet label is confident."),
        ([], float("nan"), "pan_left", "No ImageNet label is confident; camera pans left."),
        ([], 0.05, "", "No ImageNet label is confident; little motion."),
        ([], 0.2, "dolly_in", "No ImageNet label is confident; moderate motion; camera dolly in."),
    ],
    ids=["one", "two", "sure_and_perhaps", "perhaps", "static", "nothing", "nan", "edge", "unknown_camera"],
)
def test_sentence(labels, motion, camera, expected):
    assert sentence(labels, motion, camera) == expected


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [(0.1, 5, ["b", "a", "d"]), (0.1, 2, ["b", "a"]), (0.4, 3, ["b"]), (0.9, 3, [])],
)
def test_top_labels(least, most, expected):
    found = top_labels(np.float32([0.3, 0.45, 0.05, 0.2]), ["a", "b", "c", "d"], least, most)
    assert [name for name, _ in found] == expected


@pytest.mark.parametrize("shape", [(90, 160), (160, 90), (360, 360), (720, 1280)])
def test_network_input_covers_the_middle_at_most_4_to_3(shape):
    frame = np.zeros((*shape, 3), np.uint8)
    frame[:, : shape[1] // 2] = 255
    pixels = network_input(frame)
    assert pixels.shape == (3, 224, 224)
    assert (pixels.max(), pixels.min()) == (1.0, np.float32(-127 / 128))
    assert pixels.mean() == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("000000062554", "broccoli"),
        ("000000160012", "pizza"),
        ("000000252639", "trolleybus"),
        ("000000519208", "Indian elephant"),
        ("000000433998", "ballplayer"),
    ],
)
def test_real_photographs_get_their_label(stage, make_clip, photo, name, label):
    (row,) = stage([make_clip([photo(name)], columns={"motion": 0.4})])
    assert row["labels"][0] == label
    assert row["label_scores"] == sorted(row["label_scores"], reverse=True)
    assert row["caption"].startswith(f"Video labelled as: {label}")
    assert row["caption"].endswith("; moderate motion.")


def test_probabilities_are_averaged_over_first_middle_and_last(stage, make_clip, photo):
    pizza, elephant, bus = photo("000000160012"), photo("000000519208"), photo("000000252639")
    clip = make_clip([pizza, pizza, elephant, bus])
    (row,) = stage([clip])
    expected = (stage.classify([clip.first]) + stage.classify([clip.middle]) + stage.classify([clip.last])) / 3
    assert stage.classify([clip.first, clip.middle, clip.last]).sum() == pytest.approx(1.0, abs=1e-5)
    assert row["label_scores"] == pytest.approx(np.sort(expected)[::-1][: len(row["labels"])], abs=1e-5)
    assert set(row["labels"]) == {"pizza", "Indian elephant", "trolleybus"}
    assert all(0.3 < score < 1 / 3 for score in row["label_scores"])


def test_grey_picture_has_no_label(stage, make_clip):
    (row,) = stage([make_clip([np.full((90, 160, 3), 128, np.uint8)])])
    assert row["caption"].startswith("No ImageNet label is confident")
    assert max(row["label_scores"], default=0) < 0.3


def test_value_depends_on_neither_order_nor_batch(stage, make_clip, photo):
    names = ["000000062554", "000000160012", "000000252639", "000000519208"]
    clips = [make_clip([photo(name)] * (i + 1), clip_id=name) for i, name in enumerate(names)]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert all(set(row) == {"clip_id", *Labels.columns} for row in together.values())


def test_clip_without_thumbnails_is_an_error(stage, make_clip):
    with pytest.raises(ThumbnailError, match="clip bare has no thumbnail"):
        stage([make_clip([], clip_id="bare")])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"min_probability": 0}, "min_probability"),
        ({"min_probability": 1.5}, "min_probability"),
        ({"max_labels": 0}, "max_labels"),
    ],
)
def test_options_out_of_range_are_refused(options, named):
    with pytest.raises(ValueError, match=f"{named} of Labels"):
        Labels(**options)


def test_classify_before_setup_is_refused():
    with pytest.raises(RuntimeError, match="setup"):
        Labels().classify([np.zeros((32, 32, 3), np.uint8)])
