"""Defects of a caption that its text alone shows.

| flag | the caption |
|---|---|
| `empty` | contains no word |
| `refused` | is the model declining to answer ("I'm sorry, I cannot ...") |
| `repeated` | loops: it has ten words or more and fewer than half of its triples differ, or a word is repeated four times in a row |
| `echo` | repeats eight consecutive words of a prompt |
| `language` | is in another language than requested, by its script and its most common words |

All bounds are ours. tests/annotate/test_caption_flags.py checks them on the 255 human captions of coco_mini; none of them is
flagged.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

Language = Literal["en", "de", "fr", "es", "it", "pt", "nl"]
COMMON: dict[Language, str] = {
    "en": "the a an of and in is are on with to at by for from its it this that two has have there",
    "de": "der die das ein eine einen und ist sind auf mit von im in dem den zu an bei es sich zwei",
    "fr": "le la les un une des et est sont sur avec de du dans au aux en par pour il elle deux",
    "es": "el la los las un una y es son en con de del al por para se su hay dos",
    "it": "il lo la i gli le un una e è sono su con di del della in al per si due",
    "pt": "o a os as um uma e é em com de do da no na ao por para se dois",
    "nl": "de het een en is zijn op met van in aan bij te voor naar er twee",
}
"""Words that occur in nearly every sentence of a language."""
STOP_WORDS = {language: frozenset(words.split()) for language, words in COMMON.items()}
LEAST_WORDS = 6
"""Minimum words to judge the language."""
REFUSALS = re.compile(
    r"^\W*(i['’]?m sorry|i am sorry|sorry,|i apologi[sz]e|i can ?not |i can['’]?t |i['’]?m (unable|not able) to|i am (unable|not able) to|"
    r"unfortunately,? i )|\bas an? (ai|artificial intelligence|language model|large language model)\b|"
    r"\bi (don['’]?t|do not) (have|see) (access to|any) (the |a |an )?(image|images|video|picture|pictures)\b",
    re.IGNORECASE,
)
ECHO_WORDS = 8
LEAST_REPEATING = 10


def words_of(text: str) -> list[str]:
    """The words in lower case, without punctuation."""
    return re.findall(r"[\w'’]+", text.lower())


def flags(text: str, prompts: Iterable[str] = (), language: Language | None = "en") -> list[str]:
    """The flags of a caption, in the order of the table above."""
    words = words_of(text)
    if not words:
        return ["empty"]
    found = {
        "refused": bool(REFUSALS.search(text)),
        "repeated": is_repeated(words),
        "echo": any(is_echo(words, words_of(prompt)) for prompt in prompts),
        "language": language is not None and is_other_language(text, words, language),
    }
    return [name for name, holds in found.items() if holds]


def is_repeated(words: list[str]) -> bool:
    """Whether the text loops."""
    if any(len(set(words[i : i + 4])) == 1 for i in range(len(words) - 3)):
        return True
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(words) >= LEAST_REPEATING and len(set(triples)) < 0.5 * len(triples)


def is_echo(words: list[str], prompt: list[str]) -> bool:
    """Whether the caption contains ECHO_WORDS consecutive words of the prompt."""
    asked = {tuple(prompt[i : i + ECHO_WORDS]) for i in range(len(prompt) - ECHO_WORDS + 1)}
    return any(tuple(words[i : i + ECHO_WORDS]) in asked for i in range(len(words) - ECHO_WORDS + 1))


def is_other_language(text: str, words: list[str], language: Language) -> bool:
    """Whether most letters are not Latin, or another language's common words outnumber the requested language's."""
    letters = [character for character in text if character.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if latin < 0.5 * len(letters):
        return True
    if len(words) < LEAST_WORDS:
        return False
    counts = {name: sum(word in common for word in words) for name, common in STOP_WORDS.items()}
    return max(counts.values()) >= counts[language] + 2
