"""The words of tests/english.py do not occur in the text of the project."""

import subprocess
from pathlib import Path

import pytest

from tests import english


def test_no_text_uses_a_banned_word() -> None:
    assert english.findings() == [], "listed by: python -m tests.english"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("the user is told about it", "told"),
        ("heard = queue.get()", "heard"),
        ("a value that is none of ours", "is none"),
        ("the run goes on from here", "goes on"),
        ("the rows lie in one file", "lie"),
    ],
    ids=lambda value: value.split()[0],
)
def test_a_banned_word_is_found_in_text_and_in_names(line: str, word: str) -> None:
    assert [match[0] for match in english.PATTERN.finditer(line)] == [word]


@pytest.mark.parametrize("line", ["a client", "unsaid", "the value is None", "ongoing", "laypeople"])
def test_an_ordinary_word_is_not_found(line: str) -> None:
    assert not english.PATTERN.search(line)


def test_the_command_ends_with_1_when_it_finds_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "page.md").write_text("The user is told.\n")
    monkeypatch.setattr(english, "ROOT", tmp_path)
    assert english.main([]) == 1
    (tmp_path / "page.md").write_text("The reason is logged.\n")
    assert english.main([]) == 0
