import json
from importlib.metadata import distribution
from itertools import chain

import cv2
import numpy as np
import pytest

from annotate import MiniLM
from filters import Conse
from filters.conse import conse


def located(address):
    package, inside = address.removeprefix("pip:").split(":", 1)
    return str(distribution(package.split("==")[0]).locate_file(inside))


@pytest.fixture(scope="module")
def stage():
    made = Conse(weights=located(Conse().weights), text_weights=located(Conse().text_weights))
    made.setup()
    return made


@pytest.fixture(scope="module")
def minilm():
    made = MiniLM(weights=located(MiniLM().weights))
    made.setup()
    return made


@pytest.fixture(scope="module")
def photos(shared_dir):
    folder = shared_dir / "assets/coco_mini"
    captions = json.loads((folder / "captions.json").read_text())
    return [(cv2.imread(str(folder / entry["file"]))[..., ::-1], entry["captions"]) for entry in captions]


def test_text_to_image_recall_on_photographs(stage, minilm, photos):
    """The first two captions of each; chance is 2 % and 20 %. The benchmark uses all five."""
    images_ND = np.stack([stage.embed([photo]) for photo, _ in photos])
    texts = list(chain.from_iterable(captions[:2] for _, captions in photos))
    cosines = minilm.embed_texts(texts) @ images_ND.T
    own = np.repeat(np.arange(len(photos)), 2)
    rank = (cosines > cosines[np.arange(len(texts)), own][:, None]).sum(axis=1)
    assert (rank < 10).mean() >= 0.75
    assert (rank < 1).mean() >= 0.3


@pytest.mark.parametrize(
    ("classes", "wanted"),
    [(1, [1, 0, 0]), (2, [0.8, 0.6, 0]), (3, [0.8, 0.6, 0])],
    ids=["one", "two", "one_more_of_none"],
)
def test_mean_of_the_likeliest(classes, wanted):
    found = conse(np.array([0.4, 0.0, 0.3], np.float32), np.eye(3, dtype=np.float32)[[0, 2, 1]], classes)
    assert found == pytest.approx(wanted, abs=1e-6)


def test_value_depends_on_neither_order_nor_batch_to_the_bit(stage, make_clip, photos):
    clips = [
        make_clip([photo[:240, :320], photo[40:280, :320]], clip_id=f"c{i}") for i, (photo, _) in enumerate(photos[:4])
    ]
    together = {row["clip_id"]: row["conse"].tobytes() for row in stage(clips)}
    assert together == {row["clip_id"]: row["conse"].tobytes() for clip in reversed(clips) for row in stage([clip])}
    assert len(set(together.values())) == 4


@pytest.mark.parametrize("shape", [(90, 160), (3, 5)])
def test_black_and_tiny_frames_have_a_vector(stage, make_clip, shape):
    (row,) = stage([make_clip([np.zeros((*shape, 3), np.uint8)])])
    assert set(row) == {"clip_id", *Conse.columns}
    assert row["conse"].shape == (384,)
    assert np.linalg.norm(row["conse"]) == pytest.approx(1, abs=1e-5)


def test_nan_from_the_classifier_is_an_error(stage, make_clip, monkeypatch):
    import torch

    monkeypatch.setattr(stage, "_model", lambda pictures: torch.full((len(pictures), 1000), float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        stage([make_clip([np.zeros((9, 9, 3), np.uint8)])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes of Conse"),
        ({"temperature": 0}, "temperature of Conse"),
        ({"temperature": float("nan")}, "temp"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Conse(**options)


def test_call_before_setup_is_refused():
    with pytest.raises(RuntimeError, match="setup"):
        Conse().embed([np.zeros((9, 9, 3), np.uint8)])
