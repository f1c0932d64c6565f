"""VllmBatch against a stand-in for vLLM's documented API, without a GPU and without vllm."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from annotate import VllmBatch
from annotate.models.caption import COLUMNS
from tests.annotate.chat_server import Handler, drawn, number_in


class LLM:
    """Answers each conversation with the numbers drawn into its pictures, in order, as vLLM does."""

    def __init__(self, model, limit_mm_per_prompt, **engine):
        self.model, self.most, self.engine = model, limit_mm_per_prompt["image"], engine
        self.drop = 0

    def chat(self, messages, sampling_params, use_tqdm):
        assert len(messages) == len(sampling_params)
        return [self.one(talk, params) for talk, params in zip(messages, sampling_params, strict=True)][self.drop :]

    def one(self, talk, params):
        pictures = [part["image_url"]["url"] for part in talk[0]["content"] if part["type"] == "image_url"]
        assert len(pictures) <= self.most
        text = f"code {number_in(Handler.picture(pictures[0]))} seed {params.seed}"
        best = SimpleNamespace(text=text, token_ids=[1] * params.max_tokens, finish_reason="length")
        return SimpleNamespace(prompt_token_ids=[0] * 9, outputs=[best])


@pytest.fixture
def vllm(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, lambda **values: SimpleNamespace(**values)
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.mark.usefixtures("vllm")
def test_captions_belong_to_their_clips_in_any_order(make_clip):
    stage = VllmBatch(weights="here", max_tokens=5, engine={"max_model_len": 99})
    stage.setup()
    assert stage._llm.engine == {"max_model_len": 99}
    clips = [make_clip([drawn(i)] * 20, f"clip{i}") for i in range(6)]
    rows = {row["clip_id"]: row | {"seconds": 0} for row in stage(clips)}
    assert {row["clip_id"]: row | {"seconds": 0} for row in stage(clips[::-1])} == rows
    assert all(row["caption"].startswith(f"code {clip_id[4:]} seed ") for clip_id, row in rows.items())
    assert len({row["caption"].split()[-1] for row in rows.values()}) == 6
    assert set(rows["clip0"]) == {"clip_id", *COLUMNS}
    assert (rows["clip0"]["output_tokens"], rows["clip0"]["finish_reason"], rows["clip0"]["frames"]) == (5, "length", 8)


@pytest.mark.usefixtures("vllm")
def test_excess_frames_are_thinned_out_evenly(make_clip):
    """The first of two that are shown is the middle of the first half, not the first frame."""
    stage = VllmBatch(weights="here", frames=8, most_frames=2)
    stage.setup()
    row = stage([make_clip([drawn(i) for i in range(8)], "a")])[0]
    assert (row["caption"].split()[1], row["frames"]) == ("2", 2)


@pytest.mark.usefixtures("vllm")
def test_missing_answer_does_not_shift_captions(make_clip):
    stage = VllmBatch(weights="here")
    stage.setup()
    stage._llm.drop = 1
    with pytest.raises(RuntimeError, match="returned 1 captions for 2 clips"):
        stage([make_clip([drawn(i)], f"clip{i}") for i in range(2)])


def test_missing_parts_are_reported_before_the_run():
    with pytest.raises(ValueError, match="the package vllm is not installed"):
        VllmBatch().check()
    with pytest.raises(RuntimeError, match="setup"):
        VllmBatch()([])
    with pytest.raises(ValueError, match="most_frames"):
        VllmBatch(most_frames=0)
