"""Vlm on small randomly initialised models of two families: the captions are noise, the code path is real."""

from dataclasses import replace

import numpy as np
import pytest

from annotate import Vlm
from annotate.models.caption import COLUMNS, TOO_LARGE
from annotate.models.prompts import PRESETS

N_WORDS = {"max_tokens": 6, "prompt": "What?"}


@pytest.fixture(scope="module")
def clips(make_clip):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (45, 80, 3), np.uint8) for _ in range(12)]
    return [make_clip(frames[: 1 + 3 * (i % 4)][::-1], f"clip{i}", {"motion": 0.5 * i}) for i in range(5)]


def ready(folder, **options):
    stage = Vlm(weights=str(folder), device="cpu", **(N_WORDS | options))
    stage.setup()
    return stage


def without_seconds(rows):
    return {row["clip_id"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}


@pytest.mark.parametrize("family", ["tiny_vlm", "tiny_llava"])
@pytest.mark.parametrize("show", ["video", "images"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_caption_depends_on_neither_order_nor_batch(request, clips, family, show, temperature):
    stage = ready(request.getfixturevalue(family), show=show, temperature=temperature)
    together = without_seconds(stage(clips))
    assert without_seconds(stage(clips[::-1])) == together
    assert {clip.clip_id: without_seconds(stage([clip]))[clip.clip_id] for clip in clips} == together
    assert [row["frames"] for row in together.values()] == [1, 4, 7, 8, 1]
    assert set(together["clip0"]) == {"clip_id", *COLUMNS} - {"seconds"}
    assert together["clip1"]["caption"] != together["clip2"]["caption"]
    assert all(row["finish_reason"] == "length" and row["output_tokens"] == 6 for row in together.values())


def test_the_model_sees_the_pictures(tiny_vlm, make_clip):
    """Otherwise a caption on the wrong clip would go unnoticed."""
    stage = ready(tiny_vlm)
    captions = {
        level: stage([make_clip([np.full((45, 80, 3), level, np.uint8)] * 4)])[0]["caption"] for level in (0, 128, 255)
    }
    assert len(set(captions.values())) == 3


def test_a_small_context_shows_fewer_frames(tiny_vlm, clips):
    whole = ready(tiny_vlm)(clips)[3]
    assert whole["frames"] == 8
    short = ready(tiny_vlm, max_context=whole["prompt_tokens"])(clips)
    assert short[3]["frames"] < 8
    assert short[3]["prompt_tokens"] + 6 <= whole["prompt_tokens"]
    least = ready(tiny_vlm, max_context=8)(clips)
    assert [row["frames"] for row in least] == [1] * 5
    assert all(row["caption"] is not None for row in least)


def test_prompt_contains_each_clips_value(tiny_vlm, clips):
    stage = ready(tiny_vlm, prompt="Motion {motion}.")
    assert stage.reads == ("motion",)
    assert [stage.prompt_of(clip) for clip in clips[:3]] == ["Motion 0.", "Motion 0.5.", "Motion 1."]
    with pytest.raises(ValueError, match="braces"):
        Vlm(prompt="{")


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        ({"preset": "video"}, [0, 1, 3, 4, 5, 6, 8, 9]),
        ({"preset": "dense"}, [0, 4, 8]),
        ({"preset": "tags"}, [1, 3, 6, 8]),
        ({"frames": 2}, [2, 7]),
        ({"every_s": 3}, [0, 6]),
    ],
)
def test_which_frames_are_shown(make_clip, options, indices):
    clip = make_clip([np.zeros((8, 8, 3), np.uint8)] * 10)
    assert Vlm(**options).shown(clip) == indices


def test_tagged_frames_are_captioned_alone(tiny_vlm, clips):
    stage = ready(tiny_vlm, tag_frames=3)
    row = stage(clips)[3]
    assert [tag["frame_index"] for tag in row["tagged_frames"]] == [12, 23, 23]
    alone = replace(clips[3], jpegs=clips[3].jpegs[1:2], jpeg_times_s=(0.5,))
    assert row["tagged_frames"][0]["prompt"] == ready(tiny_vlm)([alone])[0]["caption"]
    assert "tagged_frames" in stage.columns
    assert "tagged_frames" not in Vlm().columns


def test_clip_too_large_for_the_gpu_affects_only_itself(tiny_vlm, clips, monkeypatch):
    import torch

    stage = ready(tiny_vlm)
    wanted, real = without_seconds(stage(clips)), Vlm._write

    def small_gpu(self, asks):
        if sum(len(ask.indices) for ask in asks) > 7:
            raise torch.OutOfMemoryError("no room")
        return real(self, asks)

    monkeypatch.setattr(Vlm, "_write", small_gpu)
    found = without_seconds(stage(clips))
    assert found["clip3"] == {"clip_id": "clip3", "error": TOO_LARGE}
    assert {k: v for k, v in found.items() if k != "clip3"} == {k: v for k, v in wanted.items() if k != "clip3"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 4, "every_s": 1.0}, "remove one"),
        ({"frames": 0}, "frames of Vlm is 0"),
        ({"tag_frames": -1}, "tag_frames"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_p": 2.0}, "top_p"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Vlm(**options)


def test_call_before_setup_is_refused(clips):
    with pytest.raises(RuntimeError, match="setup"):
        Vlm()(clips)


def test_presets_set_the_answer_length():
    assert Vlm(preset="dense").decoding.max_tokens == PRESETS["dense"].max_tokens
    assert Vlm(preset="dense", max_tokens=7).decoding.max_tokens == 7
