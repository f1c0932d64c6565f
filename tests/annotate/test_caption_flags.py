"""Flags of a caption from its text: a line per case, and no flag on human captions."""

import json

import pytest

from annotate.models.caption_flags import flags, is_other_language, words_of
from annotate.models.prompts import PRESETS

PROMPTS = [preset.prompt for preset in PRESETS.values()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["empty"]),
        (" .,!", ["empty"]),
        ("I'm sorry, I cannot describe this video.", ["refused"]),
        ("I can't help with that request.", ["refused"]),
        ("As an AI language model, I do not watch videos.", ["refused"]),
        ("Unfortunately, I am not able to see it.", ["refused"]),
        ("I don't have access to the video.", ["refused"]),
        ("A man who says sorry to a dog.", []),
        ("The cat cannot reach the shelf.", []),
        ("a dog a dog a dog a dog a dog a dog", ["repeated"]),
        ("very very very very good", ["repeated"]),
        ("The man walks. The man walks. The man walks. The man walks.", ["repeated"]),
        ("The man in the red hat looks at the man in the blue hat and smiles.", []),
        ("These pictures are frames of one short video, in order. A dog runs.", ["echo"]),
        ("A short video of a dog, in order to show its tricks.", []),
        ("Ein Hund läuft mit einem Ball auf der Straße.", ["language"]),
        ("Un chien court dans la rue avec un ballon rouge.", ["language"]),
        ("Un perro corre por la calle con una pelota.", ["language"]),
        ("Un cane corre per la strada con una palla di gomma.", ["language"]),
        ("Um cachorro corre na rua com uma bola.", ["language"]),
        ("Een hond rent met een bal op de straat.", ["language"]),
        ("一只狗在街上跑", ["language"]),
        ("Собака бежит по улице", ["language"]),
        ("A dog runs.", []),
        ("Video labelled as: trolleybus, street sign; strong motion.", []),
    ],
)
def test_flags(text, expected):
    assert flags(text, PROMPTS) == expected


def test_requested_language_is_accepted_and_english_flagged():
    german = "Ein Hund läuft mit einem Ball auf der Straße."
    assert flags(german, language="de") == []
    assert flags("A dog runs with a ball on the street.", language="de") == ["language"]
    assert flags(german, language=None) == []


def test_two_thousand_repeated_tokens():
    assert flags("the " * 2000) == ["repeated"]


def test_no_human_caption_is_flagged(shared_dir):
    pictures = json.loads((shared_dir / "assets" / "coco_mini" / "captions.json").read_text())
    texts = [text for picture in pictures for text in picture["captions"]]
    assert len(texts) >= 250
    assert [text for text in texts if flags(text, PROMPTS)] == []


def test_language_of_short_texts_is_not_judged():
    assert not is_other_language("un chat", words_of("un chat"), "en")
