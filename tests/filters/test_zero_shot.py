import numpy as np
import pytest

from curate.clip import Clip
from curate.stages import stage as stages
from curate.stages.stage import StageSpec
from filters import ZeroShot
from filters.models.openclip import unit
from filters.zero_shot import LABELS, NEUTRAL, probabilities
from tests.filters import tiny_openclip

NAMES = ("openclip_first", "openclip_middle", "openclip_last")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openclip") / "tiny"
    file, _ = tiny_openclip.build(folder)
    made = ZeroShot(model=str(file), weights=str(folder), device="cpu")
    made.setup()
    return made


def clip(clip_id, vectors):
    return Clip(clip_id, "s", 0.0, 1.0, 24.0, 24, 640, 360, (), (), dict(zip(NAMES, vectors, strict=True)))


def test_probabilities_equal_a_manual_computation():
    label, neutral = np.eye(4, dtype=np.float32)[:2]
    frames = np.stack(
        [label, neutral, (label + neutral) / np.sqrt(2).astype(np.float32), np.eye(4, dtype=np.float32)[3]]
    )
    found = probabilities(frames, label, neutral, 2.0)
    assert found == pytest.approx([np.exp(2) / (np.exp(2) + 1), 1 / (np.exp(2) + 1), 0.5, 0.5])


def test_frame_that_matches_the_prompts_scores_high(stage):
    """Vectors of the prompts themselves, those of a perfectly matching frame."""
    for name in LABELS:
        row = stage([clip("a", [stage._vectors[name]] * 3)])[0]
        assert row[f"zero_shot_{name}"] > 0.5
        assert row[f"zero_shot_{name}"] == max(value for key, value in row.items() if key != "clip_id")
    row = stage([clip("a", [stage._vectors[""]] * 3)])[0]
    assert all(value < 0.5 for key, value in row.items() if key != "clip_id")


def test_scores_equal_the_bare_models_softmax(stage, tmp_path):
    import torch

    file, net = tiny_openclip.build(tmp_path / "tiny")
    net = net.eval()
    import open_clip

    tokenize = open_clip.get_tokenizer("ViT-B-32")
    frames = unit(np.random.default_rng(0).normal(size=(3, 48)))
    own = ZeroShot(
        model=str(file), weights=str(tmp_path / "tiny"), device="cpu", labels={"dog": ("a dog",)}, neutral=("a cat",)
    )
    own.setup()
    with torch.no_grad():
        texts = torch.nn.functional.normalize(net.encode_text(tokenize(["a dog", "a cat"])), dim=-1)
        wanted = (net.logit_scale.exp() * torch.from_numpy(frames) @ texts.T).softmax(-1)[:, 0].mean()
    assert own([clip("a", frames)])[0] == {"clip_id": "a", "zero_shot_dog": pytest.approx(float(wanted), abs=1e-5)}


def test_value_depends_on_neither_order_nor_batch(stage):
    rng = np.random.default_rng(1)
    clips = [clip(f"c{i}", unit(rng.normal(size=(3, 48)))) for i in range(7)]
    rows = {row["clip_id"]: row for row in stage(clips)}
    assert {row["clip_id"]: row for row in stage(clips[::-1])} == rows
    assert {c.clip_id: stage([c])[0] for c in clips} == rows
    assert all(0 <= value <= 1 for row in rows.values() for key, value in row.items() if key != "clip_id")


@pytest.mark.parametrize("vectors", [[None] * 3, [np.ones(7, np.float32)] * 3], ids=["none", "another model's"])
def test_clip_without_vectors_affects_only_itself(stage, vectors):
    good = clip("good", unit(np.random.default_rng(2).normal(size=(3, 48))))
    rows = stages.apply(stage, [clip("bad", vectors), good], {name: name for name in stage.columns})
    assert "has no openclip vectors of 48 numbers" in rows[0]["error"]
    assert rows[1]["error"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {"Big Dog": ("a dog",)}}, "lower-case letters"),
        ({"labels": {"dog": ()}}, "no prompt"),
        ({"labels": {"dog": (" ",)}}, "empty"),
        ({"neutral": ()}, "neutral"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ZeroShot(**options)


def test_own_labels_are_read_from_yaml():
    built = stages.build(StageSpec("filters.ZeroShot", "z", {"labels": {"sport": ["people doing sport"]}}))
    assert list(built.columns) == ["zero_shot_sport"]
    assert built.neutral == NEUTRAL


def test_call_before_setup_is_refused():
    with pytest.raises(RuntimeError, match="setup"):
        ZeroShot()([])
