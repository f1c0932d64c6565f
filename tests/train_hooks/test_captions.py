"""The mix of captions at training time, and the facts written after them."""

from collections import Counter

import pytest

from tests.train_hooks.test_feed import feed
from train_hooks.captions import CaptionPolicy, pick, with_facts
from train_hooks.errors import TrainError
from train_hooks.shard_index import ShardClip

SVD = {"mix": {"coca": 0.5, "vlm": 0.25, "summary": 0.25}}
ROW = {"caption_coca": "one", "caption_vlm": "two", "caption_summary": "three"}


def test_svds_mix_within_two_percent_over_ten_thousand_draws(make_shards, square_rows):
    """Through the feed's own draws: a hundred clips, a hundred epochs."""
    feeding = feed(make_shards(square_rows))
    frames = feeding.read(feeding.train[0], 0).video_CTHW
    policy = CaptionPolicy.of({"captions": SVD})
    drawn: Counter[str] = Counter()
    for i in range(100):
        clip = ShardClip(f"clip {i}", "f", 0, 0, 12.0, 36, policy.choices(ROW))
        for window in range(feeding.windows):
            feeding._memory[clip.clip_id, window, None, feeding.sizes[0]] = (
                ((frames + 1) * 127.5).byte().transpose(0, 1)
            )
        drawn.update(feeding.read(clip, epoch).caption for epoch in range(100))
    shares = {text: count / 10_000 for text, count in drawn.items()}
    assert shares == pytest.approx({"one": 0.5, "two": 0.25, "three": 0.25}, abs=0.02)


def test_captions_are_a_pure_function_of_seed_and_step(make_shards, square_rows):
    rows = [{**row, "caption_coca": f"coca {i}", "caption_vlm": f"vlm {i}"} for i, row in enumerate(square_rows)]
    shards = make_shards(rows, index={"captions": {"mix": {"coca": 1, "vlm": 1}}})
    drawn = [[(s.clip_id, s.caption) for s in feed(shards).samples(step)] for step in range(12)]
    again = feed(shards)
    assert [[(s.clip_id, s.caption) for s in again.samples(step)] for step in reversed(range(12))] == drawn[::-1]
    captions = [caption for step in drawn for _, caption in step]
    assert {caption.split()[0] for caption in captions} == {"coca", "vlm"}
    for clip_id, caption in (pair for step in drawn for pair in step):
        assert caption.split()[1] == str([row["clip_id"] for row in rows].index(clip_id))


@pytest.mark.parametrize(
    ("row", "choices"),
    [
        (ROW, (("one", 0.5), ("two", 0.25), ("three", 0.25))),
        ({**ROW, "caption_coca": None}, (("two", 0.5), ("three", 0.5))),
        ({**ROW, "caption_vlm": ""}, (("one", 2 / 3), ("three", 1 / 3))),
        (dict.fromkeys(ROW), ()),
    ],
    ids=["all", "no coca", "empty vlm", "none"],
)
def test_captioners_without_a_caption_leave_the_mix(row, choices):
    found = CaptionPolicy.of({"captions": SVD}).choices(row)
    assert [text for text, _ in found] == [text for text, _ in choices]
    assert [share for _, share in found] == pytest.approx([share for _, share in choices])


@pytest.mark.parametrize(
    ("rule", "value", "holds"),
    [
        ({"above": 0.5}, 0.5, True),
        ({"above": 0.5}, 0.4, False),
        ({"below": 0.5}, 0.4, True),
        ({"above": 0.1, "below": 0.5}, 0.6, False),
        ({"is": "pan_left"}, "pan_left", True),
        ({"is": ["roll", "pan_left"]}, "pan_left", True),
        ({"is": "pan_left"}, "static", False),
        ({"is": True}, True, True),
        ({"above": 0.5}, None, False),
    ],
)
def test_a_fact_is_added_where_its_rule_holds(rule, value, holds):
    policy = CaptionPolicy.of({"captions": {"suffix": [{"add": ", a fact", "when": {"column": rule}}]}})
    assert policy.columns == ("caption", "column")
    (choice,) = policy.choices({"caption": "A dog.", "column": value})
    assert choice == ("A dog, a fact." if holds else "A dog.", 1.0)


def test_where_facts_go():
    assert with_facts("A dog.", [", with watermark", ", shaky camera"]) == "A dog, with watermark, shaky camera."
    assert with_facts("A dog", [", with watermark"]) == "A dog, with watermark"
    assert with_facts("A dog.", [" Shot on film."]) == "A dog. Shot on film."


def test_an_older_index_means_the_caption_column():
    policy = CaptionPolicy.of({"schema_version": 1})
    assert policy.columns == ("caption",)
    assert policy.choices({"caption": "A dog."}) == (("A dog.", 1.0),)


@pytest.mark.parametrize(
    "policy",
    [
        [1],
        {"mix": [1]},
        {"mix": {"coca": 0}},
        {"mix": {"coca": float("nan")}},
        {"mix": {"coca": "half"}},
        {"suffix": [{"add": "x"}]},
        "x",
    ],
)
def test_a_malformed_policy_is_reported(policy):
    with pytest.raises(TrainError, match="'captions' is not a mix and suffixes"):
        CaptionPolicy.of({"captions": policy})


def test_pick_covers_the_line():
    choices = (("a", 0.5), ("b", 0.5))
    assert [pick(choices, draw) for draw in (0.0, 0.49, 0.51, 0.999999999999)] == ["a", "a", "b", "b"]
    assert pick((), 0.3) == ""
