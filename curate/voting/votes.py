"""Votes of people: RUN/ablate/NAME/votes.jsonl, one JSON object a line, append-only.

A vote says which of the two videos of a comparison a voter prefers, by one of the two questions of Stable Video Diffusion: visual quality, or
prompt following. All voters share one file, so a name never becomes a path. A line is written by one call under a lock of the file and
flushed to the disk before the reply, so concurrent votes are safe and a kill loses at most the vote being written.

The last vote of a voter on a comparison and a question is valid. Undoing an answer appends a line with the choice "undone".
"""

import json
import os
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from curate.errors import UNPRINTABLE, RunError, UsageError
from curate.voting.blind import Blind, Item
from curate.voting.contest import Comparison
from curate.voting.contest import read as read_contest

Question = Literal["quality", "prompt"]
Choice = Literal["left", "right", "tie", "undone"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
CHOICES: tuple[Choice, ...] = get_args(Choice)

FILE = "votes.jsonl"
MOST_NAME = 100
"""Maximum number of characters in a voter's name. Our choice."""
SCORE = {"left": 1.0, "right": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class Vote:
    """One answer of one voter. `left` and `right` are the contestants on these sides; `prompt` and `seed` are numbers from 0."""

    voter: str
    group: str
    question: Question
    prompt: int
    seed: int
    left: str
    right: str
    choice: Choice
    time: str
    """UTC in ISO 8601 with milliseconds, by the clock of the server, or of the browser for imported votes."""
    id: str
    """Unique, so that a vote that arrives twice counts once."""

    @property
    def what(self) -> tuple[str, int, int, str, str]:
        """The comparison, independent of sides."""
        return (self.group, self.prompt, self.seed, *sorted((self.left, self.right)))  # type: ignore[return-value]


@dataclass(frozen=True)
class Votes:
    """The votes of a file in order, each id once, and the problems of the file, a sentence each."""

    votes: tuple[Vote, ...]
    troubles: tuple[str, ...] = ()


def standing(votes: Iterable[Vote]) -> list[Vote]:
    """Returns the valid votes: the last one of each voter, comparison and question, unless it is an undo."""
    found: dict[Any, Vote] = {}
    for vote in votes:
        key = (vote.voter, vote.question, vote.what)
        found.pop(key, None)  # so that a later vote moves to the end
        if vote.choice != "undone":
            found[key] = vote
    return list(found.values())


def games(votes: Iterable[Vote]) -> list[tuple[str, str, float, str, str]]:
    """Returns (a, b, score, voter, item) for each valid vote: score 1 if `a` won, 0.5 for a tie; an item is a prompt and a seed."""
    return [
        (vote.left, vote.right, SCORE[vote.choice], vote.voter, f"{vote.prompt}/{vote.seed}")
        for vote in standing(votes)
    ]


def voter_name(text: object) -> str:
    """Returns the name in normal form (NFC, single spaces). Raises UsageError for one that is empty, too long or has unprintable characters."""
    name = unicodedata.normalize("NFC", " ".join(text.split())) if isinstance(text, str) else ""
    if not name:
        raise UsageError("a voter needs a name")
    if len(name) > MOST_NAME:
        raise UsageError(f"the name has {len(name)} characters; the maximum is {MOST_NAME}")
    if UNPRINTABLE.search(name):
        raise UsageError("the name has invisible characters; type it without them")
    return name


def new_vote(
    voter: str, comparison: Comparison, left: str, question: Question, choice: Choice, id: str | None = None
) -> Vote:
    """A vote with the current time; `left` is the contestant on the left."""
    right = comparison.b if left == comparison.a else comparison.a
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    c = comparison
    return Vote(voter, c.group, question, c.prompt, c.seed, left, right, choice, now, id or uuid.uuid4().hex)


def is_id(text: object) -> bool:
    """Whether this is a valid id of a vote: up to 64 letters, digits, dashes and underscores."""
    return isinstance(text, str) and re.fullmatch("[A-Za-z0-9_-]{1,64}", text) is not None


def parse(line: Any) -> Vote:
    """A vote from its JSON object. Unknown keys are ignored. Raises ValueError with a message that continues "line 3 ..."."""
    if not isinstance(line, dict):
        raise ValueError("is not a vote")
    kinds = {"prompt": int, "seed": int}
    for field in fields(Vote):
        value = line.get(field.name)
        if not isinstance(value, kinds.get(field.name, str)) or isinstance(value, bool):
            raise ValueError(f"has no {field.name}" if value is None else f"has a wrong {field.name}")
    if line["question"] not in QUESTIONS or line["choice"] not in CHOICES:
        raise ValueError("has an unknown question or choice")
    if not is_id(line["id"]):
        raise ValueError("has a wrong id")
    return Vote(**{field.name: line[field.name] for field in fields(Vote)})


def read(path: Path) -> Votes:
    """Reads a file of votes; a missing file has none. Malformed lines are skipped and reported in `troubles`."""
    try:
        return from_lines(path.read_bytes(), path.name)
    except FileNotFoundError:
        return Votes(())


def from_lines(data: bytes, name: str, read_one: Callable[[Any], Vote] = parse) -> Votes:
    """The votes in the bytes of a file called `name`."""
    votes: dict[str, Vote] = {}
    broken: list[str] = []
    lines = data.split(b"\n")
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            vote = read_one(json.loads(line))
            votes.setdefault(vote.id, vote)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            broken.append(f"line {i} {'is incomplete' if i == len(lines) else 'is damaged'}")
        except ValueError as error:
            broken.append(f"line {i} {error}")
    others = f" (and {len(broken) - 1} more like it)" if len(broken) > 1 else ""
    troubles = (f"{name}, {broken[0]} and is skipped{others}; all other votes count ({len(votes)})",) if broken else ()
    return Votes(tuple(votes.values()), troubles)


@dataclass(frozen=True)
class Imported:
    """Result of an import: the number of new and of known votes, and the problems of the file."""

    new: int
    known: int
    troubles: tuple[str, ...] = ()


def import_votes(folder: Path, file: Path) -> Imported:
    """Imports the votes of a file: a download from a packed page (`votes-NAME.jsonl`), or the `votes.jsonl` of a copy of this ablation.

    A vote counts once however often it is imported. Raises UsageError and imports nothing if a vote is not of the contest in `folder`.
    """
    contest = read_contest(folder)
    blind = Blind(contest)
    known = {(c.group, c.prompt, c.seed, *sorted((c.a, c.b))) for c in contest.comparisons(missing=True)}

    def read_one(line: Any) -> Vote:
        vote = parse(_resolved(line, blind.items))
        if vote.what not in known:
            raise UsageError(
                f"{file} has votes of another contest ({vote.left} against {vote.right}, prompt {vote.prompt}); no vote was imported"
            )
        try:
            return replace(vote, voter=voter_name(vote.voter), time=_utc(vote.time))
        except UsageError as error:
            raise ValueError(f"has no valid voter ({error})") from error

    try:
        found = from_lines(file.read_bytes(), file.name, read_one)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    if not found.votes:
        raise UsageError(f"{file} has no votes" + "".join(f": {trouble}" for trouble in found.troubles))
    existing = {vote.id for vote in read(folder / FILE).votes}
    new = [vote for vote in found.votes if vote.id not in existing]
    if new:
        append(folder / FILE, new)
    return Imported(len(new), len(found.votes) - len(new), found.troubles)


def _utc(time: str) -> str:
    try:
        return datetime.fromisoformat(time).astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError) as error:
        raise ValueError("has a wrong time") from error


def _resolved(line: Any, items: dict[str, Item]) -> Any:
    """A vote of a packed page with its item id replaced by the comparison and sides. Other values are unchanged."""
    if not isinstance(line, dict) or "item" not in line:
        return line
    item = items.get(line["item"]) if isinstance(line["item"], str) else None
    if item is None:
        raise UsageError(
            "these votes are of another contest, or of a folder packed with another vote.key; no vote was imported"
        )
    return line | asdict(item.comparison) | {"left": item.left, "right": item.right}


def append(path: Path, votes: Sequence[Vote]) -> None:
    """Appends votes and returns when all of them are on the disk. After an incomplete line it starts a new one.

    Raises RunError when they cannot be written (a full disk); the file is unchanged then.
    """
    data = "".join(json.dumps(asdict(vote), ensure_ascii=False) + "\n" for vote in votes).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            _lock(handle)
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                _write(handle, data)
            except OSError:
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)
        if is_new:
            _flush_folder(path.parent)
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror or error}; the vote is not recorded") from error


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
    os.fsync(handle)


def _lock(handle: int) -> None:
    """Waits for the lock of the file. On a file system without locks, an append is atomic enough by itself."""
    import fcntl

    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
