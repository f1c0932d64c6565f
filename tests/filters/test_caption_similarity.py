import dataclasses

import numpy as np
import pytest

from curate.clip import Clip
from filters import CaptionSimilarity
from filters.caption_similarity import cosines
from filters.models.openclip import unit
from tests.filters import tiny_openclip

TEXTS = ("a dog", "two people walk along a wet street at night", "a red bus", "waves", "an empty room with a chair")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_openclip.build(tmp_path_factory.mktemp("openclip") / "tiny")


@pytest.fixture(scope="module")
def stage(tiny):
    file, _ = tiny
    empty = CaptionSimilarity(model=str(file), weights=str(file.with_suffix("")), device="cpu")
    made = dataclasses.replace(empty, captions=("labels", "vlm"))
    made.setup()
    return made


def captioned(labels, vlm, clip_id="c", dim=48):
    vectors = unit(np.random.default_rng(len(clip_id)).normal(size=(3, dim)))
    names = ("openclip_first", "openclip_middle", "openclip_last")
    columns = {"caption_labels": labels, "caption_vlm": vlm, **dict(zip(names, vectors.tolist(), strict=True))}
    return Clip(clip_id, "s", 0.0, 1.0, 24.0, 24, 640, 360, (), (), columns)


def test_columns_and_reads_follow_the_captioners():
    stage = dataclasses.replace(CaptionSimilarity(), captions=("a", "b_"))
    assert list(stage.columns) == [
        f"sim_{name}{end}" for name in ("a", "b_") for end in ("_first", "_middle", "_last", "")
    ]
    assert stage.reads == ("caption_a", "caption_b_", "openclip_first", "openclip_middle", "openclip_last")
    assert CaptionSimilarity().columns == {}


def test_values_are_the_cosines_of_the_bare_model(tiny, stage):
    import open_clip
    import torch

    _, net = tiny
    clip = captioned(TEXTS[0], TEXTS[1])
    (row,) = stage([clip])
    with torch.inference_mode():
        texts = unit(net.encode_text(open_clip.tokenize(list(TEXTS[:2]))).numpy())
    for captioner, text in zip(("labels", "vlm"), texts, strict=True):
        wanted = [float(np.dot(text, clip.columns[f"openclip_{n}"])) for n in ("first", "middle", "last")]
        found = [row[f"sim_{captioner}_{n}"] for n in ("first", "middle", "last")]
        assert found == pytest.approx(wanted, abs=1e-5)
        assert row[f"sim_{captioner}"] == pytest.approx(np.mean(wanted), abs=1e-5)
    assert set(row) == {"clip_id", *stage.columns}


def test_caption_and_its_own_vector_have_cosine_one(stage):
    text = unit(stage._encoder.encode_texts(["a dog"]).numpy())[0]
    clip = captioned("a dog", "a dog")
    clip = dataclasses.replace(clip, columns={**clip.columns, "openclip_first": text})
    (row,) = stage([clip])
    assert row["sim_vlm_first"] == pytest.approx(1, abs=1e-6)
    assert row["sim_vlm_first"] <= 1


def test_tokens_are_those_of_openai_clip(stage):
    assert stage._encoder.tokenize(["a dog"])[0, :4].tolist() == [49406, 320, 1929, 49407]


def test_value_depends_on_neither_order_nor_batch_to_the_bit(stage):
    clips = [captioned(TEXTS[i], TEXTS[-1 - i] if i % 2 else None, clip_id="c" * (i + 1)) for i in range(5)]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert len({row["sim_labels"] for row in together.values()}) == 5


def test_gpu_passes_of_one_size_agree_with_the_cpu(stage, monkeypatch):
    clips = [captioned(TEXTS[i % 5], None, clip_id="c" * (i + 1)) for i in range(70)]
    wanted = [row["sim_labels"] for row in stage(clips)]
    monkeypatch.setattr(type(stage._encoder), "on_cpu", False)
    assert [row["sim_labels"] for row in stage(clips)] == pytest.approx(wanted, abs=1e-5)


def test_missing_caption_is_null_and_no_caption_at_all_is_an_error(stage):
    (row,) = stage([captioned("a dog", "  ")])
    assert row["sim_labels"] is not None
    assert [row[f"sim_vlm{end}"] for end in ("", "_first", "_middle", "_last")] == [None] * 4
    with pytest.raises(ValueError, match="clip bad has no caption; CaptionSimilarity needs at least one"):
        stage([captioned(None, "", clip_id="bad")])


def test_vectors_of_another_model_are_refused(stage):
    with pytest.raises(ValueError, match="no openclip vectors of 48 numbers"):
        stage([captioned("a dog", None, dim=32)])


def test_long_caption_is_truncated(stage):
    (row,) = stage([captioned("word " * 500, None)])
    assert row["sim_labels"] is not None


def test_cosines_are_in_range():
    vector = np.full(3, 0.577351, np.float32)
    assert cosines(vector, np.stack([vector, -vector, vector])) == [1.0, -1.0, 1.0]
