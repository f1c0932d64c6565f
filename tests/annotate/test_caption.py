"""Rows from answers, sampling of thumbnails, and column values in prompts."""

import numpy as np
import pytest

from annotate.models.caption import COLUMNS, MAX_CHARACTERS, Answer, clean
from annotate.models.frames import every, fewer, spread
from annotate.models.prompts import PRESETS, fill, in_words, placeholders
from curate.stages.stage import OF_CAPTIONER


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("  A dog\n\n runs.\t", "A dog runs."),
        ("a\x00b\x1b[31mc\x7f", "ab[31mc"),
        ("half \ud83d a pair", "half \ufffd a pair"),
        ("\u200bzero\u200e width", "zero width"),
        ("a\u2028b\u00a0c", "a b c"),
        ("\U0001f468\u200d\U0001f373 cooks", "\U0001f468\u200d\U0001f373 cooks"),
        ("日本語 العربية", "日本語 العربية"),
        ("", ""),
        ("\n\x00 ", ""),
    ],
    ids=["spaces", "control", "surrogate", "zero width", "separators", "emoji", "scripts", "empty", "nothing left"],
)
def test_clean(given: str, kept: str) -> None:
    assert clean(given) == kept
    clean(given).encode("utf-8")


def test_clean_limits_the_length() -> None:
    assert len(clean("word " * 10_000)) <= MAX_CHARACTERS


def test_row_has_every_column_and_the_engine_renames_them() -> None:
    row = Answer("A dog.", 10, 3, "length", 8, 0.5).row("a")
    assert set(row) == {"clip_id", *COLUMNS}
    assert set(COLUMNS) <= set(OF_CAPTIONER)


@pytest.mark.parametrize(
    ("n_thumbnails", "n_frames", "indices"),
    [(1, 8, [0]), (3, 3, [0, 1, 2]), (10, 1, [5]), (10, 2, [2, 7]), (20, 4, [2, 7, 12, 17]), (0, 4, [])],
)
def test_spread(n_thumbnails: int, n_frames: int, indices: list[int]) -> None:
    assert spread(n_thumbnails, n_frames) == indices


def test_every_two_seconds() -> None:
    times_s = list(10 + np.arange(20) / 2)
    assert every(times_s, 2.0) == [0, 4, 8, 12, 16]
    assert every(times_s[:1], 2.0) == [0]
    assert every([], 2.0) == []
    assert every([0.0, 5.0], 2.0) == [0, 1]


def test_fewer_indices_stay_evenly_spread() -> None:
    assert fewer([0, 4, 8, 12, 16], 2) == [4, 12]
    assert fewer([0, 4], 8) == [0, 4]


def test_prompt_contains_the_clips_values() -> None:
    prompt = "Motion {motion}, camera {camera}, {labels}. {{plain}}"
    assert placeholders(prompt) == ("motion", "camera", "labels")
    message = fill(prompt, {"motion": np.float32(1.23456), "labels": ["dog", "cat"]})
    assert message == "Motion 1.23, camera unknown, dog, cat. {plain}"


@pytest.mark.parametrize("prompt", ["{", "a } b", "{0}", "{}", "{a.b}", "{motion:.2f}", "{motion!r}"])
def test_prompt_with_malformed_braces_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="the prompt"):
        placeholders(prompt)


def test_in_words() -> None:
    assert [in_words(v) for v in (None, float("nan"), True, 3, [], "x")] == [
        "unknown",
        "unknown",
        "yes",
        "3",
        "none",
        "x",
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_contain_no_placeholders(name: str) -> None:
    preset = PRESETS[name]
    assert placeholders(preset.prompt) == ()
    assert (preset.frames is None) != (preset.every_s is None)
