"""The messages quoted in docs/troubleshooting.md, compared with the texts in the code. `python -m docs.make.messages` lists what differs.

A quoted message is an example: its names and numbers are invented, its other words must come from texts of the code (string literals and
fixed pieces of f-strings, each text with all of its pieces in order). For each message that differs, its line and the most similar text in
the code are printed.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/troubleshooting.md"
PACKAGES = ("curate", "filters", "annotate", "train_hooks", "rushes.py")
LEAST_SHARE = 0.75
"""Share of a message's words that must come from the code; the rest is examples of names. One such word is always accepted."""
WORD = re.compile(r"(?<![\w/.`'=:~-])[A-Za-z][a-z]+(?![\w/'=]|[.:][\w/])")
"""A plain word: no part of a path, a key, an option, a dotted name or something in quotes."""
OF_THE_SYSTEM = ("OSError: [Errno 28] No space left on device",)


@dataclass(frozen=True)
class Text:
    """A text in the code: where it is, and its fixed pieces in order."""

    path: str
    line: int
    pieces: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'{}'.join(self.pieces)}"

    def places(self, message: str) -> set[int]:
        """The characters of a message that this text accounts for: all of its pieces, in order, or none."""
        places: set[int] = set()
        at = 0
        for piece in self.pieces:
            at = message.find(piece, at)
            if at < 0:
                return set()
            places.update(range(at, at + len(piece)))
            at += len(piece)
        return places


def texts() -> list[Text]:
    """Every text of ten characters or more in the packages."""
    found = []
    for package in PACKAGES:
        paths = [ROOT / package] if package.endswith(".py") else sorted((ROOT / package).rglob("*.py"))
        for path in (path for path in paths if path.exists()):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr | ast.Constant):
                    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                    fixed = [part.value for part in parts if isinstance(part, ast.Constant)]
                    pieces = tuple(piece for piece in fixed if isinstance(piece, str) and len(piece) > 1)
                    if len("".join(pieces)) >= 10:
                        found.append(Text(path.relative_to(ROOT).as_posix(), node.lineno, pieces))
    return found


def quoted() -> Iterator[tuple[int, str]]:
    """(line, message) of every message on the page: the lines of its `text` blocks."""
    inside = False
    for number, line in enumerate((ROOT / PAGE).read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```text"
        elif inside:
            yield number, line


def is_known(message: str, known: Iterable[Text]) -> bool:
    """Whether texts of the code account for the plain words of a message."""
    covered = set().union(*(text.places(message) for text in known))
    words = [match.span() for match in WORD.finditer(message)]
    unknown = sum(not covered.issuperset(range(*span)) for span in words)
    return len(words) > unknown and unknown <= max(1, (1 - LEAST_SHARE) * len(words))


def nearest(message: str, known: Sequence[Text]) -> Text:
    """The text of the code that shares most words with a message."""
    wanted = set(re.findall(r"[a-z]{3,}", message))

    def likeness(text: Text) -> float:
        words = set(re.findall(r"[a-z]{3,}", " ".join(text.pieces)))
        return len(words & wanted) / (len(words | wanted) or 1)

    return max(known, key=likeness)


def differing() -> list[str]:
    """A line for each quoted message that the code does not print: where it is quoted, its words, the most similar text in the code."""
    known = texts()
    return [
        f"{PAGE}:{line}: no text in the code prints\n    {message}\n  the most similar is {nearest(message, known)}"
        for line, message in quoted()
        if message not in OF_THE_SYSTEM and not is_known(message, known)
    ]


if __name__ == "__main__":
    found = differing()
    print("\n".join(found), end="\n" if found else "")
    sys.exit(1 if found else 0)
