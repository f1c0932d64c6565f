from dataclasses import replace

import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import Nsfw
from filters.models.nudenet import EXPOSED, Detector, load_detector, network_input

# Photographs of coco_mini with a face.
FACES = ("000000000790", "000000256353", "000000229358")


@pytest.fixture(scope="session")
def nudenet(fetched):
    return str(fetched(Nsfw().weights))


@pytest.fixture(scope="module")
def stage(nudenet):
    made = Nsfw(weights=nudenet)
    made.setup()
    return made


@pytest.fixture(scope="module")
def photos(shared_dir):
    found = {}
    for file in sorted((shared_dir / "assets/coco_mini").glob("*.jpg")):
        picture = cv2.imread(str(file))
        scale = 360 / min(picture.shape[:2])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found[file.stem] = np.ascontiguousarray(small[..., ::-1])
    return found


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """An image classifier in the hub's format, tiny and randomly initialised."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        id2label={0: "normal", 1: "NSFW"}, label2id={"normal": 0, "NSFW": 1},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def test_clean_photographs_score_below_nudenets_threshold(stage, make_clip, photos):
    rows = stage([make_clip([photo], clip_id=name) for name, photo in list(photos.items())[::3]])
    assert all(0 <= row["nsfw"] < 0.25 for row in rows)


def test_network_input_has_the_right_colours_and_position(nudenet, photos):
    """There is no explicit test footage; the same output holds faces, and these are found at their place."""
    detector = load_detector(nudenet)
    faces = detector.indices(["FACE_FEMALE", "FACE_MALE"])
    for name in FACES:
        boxes, scores = detector.places(photos[name])
        assert scores[:, faces].max() > 0.6
        x, y, width, height = boxes[scores[:, faces].max(axis=1).argmax()]
        assert 0 < x - width / 2 < x + width / 2 < photos[name].shape[1]
        shifted = cv2.copyMakeBorder(photos[name], 40, 0, 60, 0, cv2.BORDER_CONSTANT)
        moved, again = detector.places(shifted)
        moved_x, moved_y, *_ = moved[again[:, faces].max(axis=1).argmax()]
        assert (moved_x - x, moved_y - y) == pytest.approx((60, 40), abs=0.2 * float(max(width, height)))


@pytest.mark.parametrize("shape", [(360, 640), (640, 360), (50, 400), (320, 320)])
def test_network_sees_a_padded_square(shape):
    seen = network_input(np.full((*shape, 3), 255, np.uint8))
    assert seen.shape == (1, 3, 320, 320)
    assert seen.mean() == pytest.approx(min(shape) / max(shape), abs=0.02)
    assert seen[0, :, 0, 0].tolist() == [1.0] * 3


def test_exposed_classes_are_in_the_file(nudenet):
    detector = load_detector(nudenet)
    assert len(detector.names) == 18
    assert set(EXPOSED) < set(detector.names)


def test_highest_exposed_score_of_three_frames_counts(stage, make_clip, monkeypatch):
    """The stand-in network scores each frame by its brightness."""
    names = ("FACE_FEMALE", *EXPOSED, "BELLY_EXPOSED")

    def places(self, frame):
        scores = np.full((3, 7), 0.01, np.float32)
        scores[:, [0, 6]] = 0.9
        scores[1, 3] = frame.mean() / 255
        return np.zeros((3, 4), np.float32), scores

    monkeypatch.setattr(Detector, "places", places)
    monkeypatch.setattr("filters.nsfw.load_detector", lambda weights: Detector(None, names))
    faked = Nsfw(weights="none.onnx")
    faked.setup()
    frames = [np.full((32, 32, 3), value, np.uint8) for value in (26, 255, 77, 51)]
    (row,) = faked([make_clip(frames)])
    assert row == {"clip_id": "c", "nsfw": pytest.approx(77 / 255, abs=0.01)}


def test_black_frames_are_safe(stage, make_clip):
    (row,) = stage([make_clip([np.zeros((90, 160, 3), np.uint8)] * 2)])
    assert row["nsfw"] < 0.05


def test_value_depends_on_neither_order_nor_batch(stage, make_clip, photos):
    clips = [make_clip([photo, photo[::-1]], clip_id=name) for name, photo in list(photos.items())[:4]]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert len({row["nsfw"] for row in together.values()}) == 4


def test_image_classifier_replaces_the_detector(classifier, make_clip, photos):
    stage = Nsfw(weights=classifier)
    stage.setup()
    clips = [make_clip([photo], clip_id=name) for name, photo in list(photos.items())[:4]]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert all(0 < row["nsfw"] < 1 for row in together.values())
    both = Nsfw(weights=classifier, labels=("normal", "nsfw"))
    both.setup()
    assert both(clips[:1])[0]["nsfw"] == pytest.approx(1, abs=1e-6)


def test_classifier_without_the_labels_is_refused(classifier):
    with pytest.raises(ValueError, match="none of the labels cat; it has normal, NSFW"):
        Nsfw(weights=classifier, labels=("cat",)).setup()


def test_nan_and_broken_thumbnails_are_errors(stage, make_clip, monkeypatch):
    clip = make_clip([np.zeros((90, 160, 3), np.uint8)], clip_id="bad")
    with pytest.raises(ThumbnailError, match="bad"):
        stage([replace(clip, jpegs=(b"no picture",))])
    monkeypatch.setattr(stage, "_score", lambda frame: float("nan"))
    with pytest.raises(ValueError, match="clip bad: the output of the classifier is not finite"):
        stage([clip])


def test_call_before_setup_is_refused(make_clip):
    with pytest.raises(RuntimeError, match="setup"):
        Nsfw()([make_clip([np.zeros((9, 9, 3), np.uint8)])])
