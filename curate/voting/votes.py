"""Votes of people: RUN/ablate/NAME/votes.jsonl, one JSON object a line, appended to and never rewritten.

A vote says which of two videos of one comparison a voter finds better, by one of the two questions of Stable Video Diffusion: visual quality, or
how well the prompt is followed. One file for all voters: a name never becomes a path. A line is written by one call under a lock of the file
and flushed to the disk before anybody is told, so voters at once lose nothing and a kill loses at most the vote being written.

What a voter last said of a comparison and a question stands. Taking an answer back is one more line, whose choice is "undone".
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
"""Characters of a voter's name. Ours."""
SCORE = {"left": 1.0, "right": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class Vote:
    """One answer of one voter. `left` and `right` are the contestants as they were shown; `prompt` and `seed` are numbers from 0."""

    voter: str
    group: str
    question: Question
    prompt: int
    seed: int
    left: str
    right: str
    choice: Choice
    time: str
    """UTC, as ISO 8601 with milliseconds: of the server, or of the browser for votes that were imported."""
    id: str
    """Unique: a vote that arrives twice counts once."""

    @property
    def what(self) -> tuple[str, int, int, str, str]:
        """The comparison, whichever side its contestants were shown on."""
        return (self.group, self.prompt, self.seed, *sorted((self.left, self.right)))  # type: ignore[return-value]


@dataclass(frozen=True)
class Votes:
    """The lines of a file in their order, each id once, and in one sentence each what is wrong with the file."""

    votes: tuple[Vote, ...]
    troubles: tuple[str, ...] = ()


def standing(votes: Iterable[Vote]) -> list[Vote]:
    """Returns the votes that count: of a voter, a comparison and a question the last one, and none where that took an answer back."""
    found: dict[Any, Vote] = {}
    for vote in votes:
        key = (vote.voter, vote.question, vote.what)
        found.pop(key, None)  # a later vote also stands later
        if vote.choice != "undone":
            found[key] = vote
    return list(found.values())


def games(votes: Iterable[Vote]) -> list[tuple[str, str, float, str, str]]:
    """Returns (a, b, score, voter, item) for each standing vote: score 1 where `a` won, 0.5 for a tie; an item is a prompt and a seed."""
    return [
        (vote.left, vote.right, SCORE[vote.choice], vote.voter, f"{vote.prompt}/{vote.seed}")
        for vote in standing(votes)
    ]


def voter_name(text: object) -> str:
    """Returns the name in one spelling (NFC, single spaces). Raises UsageError for what is no name: empty, too long, unprintable."""
    name = unicodedata.normalize("NFC", " ".join(text.split())) if isinstance(text, str) else ""
    if not name:
        raise UsageError("a voter needs a name")
    if len(name) > MOST_NAME:
        raise UsageError(f"a voter's name may have {MOST_NAME} characters, and this one has {len(name)}")
    if UNPRINTABLE.search(name):
        raise UsageError("a voter's name may not have characters that cannot be seen")
    return name


def new_vote(
    voter: str, comparison: Comparison, left: str, question: Question, choice: Choice, id: str | None = None
) -> Vote:
    """A vote of this moment; `left` is the contestant that was shown on the left."""
    right = comparison.b if left == comparison.a else comparison.a
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    c = comparison
    return Vote(voter, c.group, question, c.prompt, c.seed, left, right, choice, now, id or uuid.uuid4().hex)


def is_id(text: object) -> bool:
    """Whether this may be the id of a vote: up to 64 plain letters and digits."""
    return isinstance(text, str) and re.fullmatch("[A-Za-z0-9_-]{1,64}", text) is not None


def parse(told: Any) -> Vote:
    """A vote from its JSON object; fields that are not known are passed over. Raises ValueError in a few words."""
    if not isinstance(told, dict):
        raise ValueError("is no vote")
    kinds = {"prompt": int, "seed": int}
    for field in fields(Vote):
        value = told.get(field.name)
        if not isinstance(value, kinds.get(field.name, str)) or isinstance(value, bool):
            raise ValueError(f"has no {field.name}" if value is None else f"has a wrong {field.name}")
    if told["question"] not in QUESTIONS or told["choice"] not in CHOICES:
        raise ValueError("has an unknown question or choice")
    if not is_id(told["id"]):
        raise ValueError("has a wrong id")
    return Vote(**{field.name: told[field.name] for field in fields(Vote)})


def read(path: Path) -> Votes:
    """Reads a file of votes; none when there is no file. Lines that are no whole vote are left out and told, all others count."""
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
            broken.append(f"line {i} {'was not written to its end' if i == len(lines) else 'is damaged'}")
        except ValueError as error:
            broken.append(f"line {i} {error}")
    others = f" (and {len(broken) - 1} more like it)" if len(broken) > 1 else ""
    told = (f"{name}, {broken[0]} and is left out{others}; all other votes count ({len(votes)})",) if broken else ()
    return Votes(tuple(votes.values()), told)


@dataclass(frozen=True)
class Imported:
    """What came of an import: votes that were new, votes that were there already, and what is wrong with the file."""

    new: int
    known: int
    troubles: tuple[str, ...] = ()


def import_votes(folder: Path, file: Path) -> Imported:
    """Takes in the votes of a file: one that a packed page gave (`votes-NAME.jsonl`), or the `votes.jsonl` of a copy of this ablation.

    A vote counts once however often it is imported. Raises UsageError, and takes nothing, when one does not belong to the contest in `folder`.
    """
    contest = read_contest(folder)
    blind = Blind(contest)
    known = {(c.group, c.prompt, c.seed, *sorted((c.a, c.b))) for c in contest.comparisons(missing=True)}

    def read_one(told: Any) -> Vote:
        vote = parse(_unsealed(told, blind.items))
        if vote.what not in known:
            raise UsageError(
                f"{file} has votes of another contest ({vote.left} against {vote.right}, prompt {vote.prompt}); none was taken"
            )
        try:
            return replace(vote, voter=voter_name(vote.voter), time=_utc(vote.time))
        except UsageError as error:
            raise ValueError(f"is not from a voter ({error})") from error

    try:
        found = from_lines(file.read_bytes(), file.name, read_one)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    if not found.votes:
        raise UsageError(f"{file} holds no votes" + "".join(f": {told}" for told in found.troubles))
    there = {vote.id for vote in read(folder / FILE).votes}
    new = [vote for vote in found.votes if vote.id not in there]
    if new:
        append(folder / FILE, new)
    return Imported(len(new), len(found.votes) - len(new), found.troubles)


def _utc(time: str) -> str:
    try:
        return datetime.fromisoformat(time).astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError) as error:
        raise ValueError("has a wrong time") from error


def _unsealed(told: Any, items: dict[str, Item]) -> Any:
    """A vote of a packed page names an item; here the item becomes what it stands for."""
    if not isinstance(told, dict) or "item" not in told:
        return told
    item = items.get(told["item"]) if isinstance(told["item"], str) else None
    if item is None:
        raise UsageError("these votes are of another contest, or were packed with another vote.key; none was taken")
    return told | asdict(item.comparison) | {"left": item.left, "right": item.right}


def append(path: Path, votes: Sequence[Vote]) -> None:
    """Writes votes to the end of the file and returns when they are on the disk, all of them. A line that a kill broke stays a line of its own.

    Raises RunError when they cannot be written (a full disk); the file is then as it was.
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
        raise RunError(f"{path} could not be written: {error.strerror or error}; the vote was not taken") from error


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
    os.fsync(handle)


def _lock(handle: int) -> None:
    """Waits for the file, which is held while one line is written. Where a file system has no locks, appending is safe in itself."""
    import fcntl

    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
