"""Anonymous ids and file names for voters, derived from a secret key of the contest. They do not reveal which training made a video.

The key is RUN/ablate/NAME/vote.key and is made once. An item is a comparison with its sides; with the key, its id gives the contestant on the
left. So votes of a page that stayed open while the server restarted, or of a folder packed last week, are still valid.
"""

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from curate.errors import RunError
from curate.voting.contest import Comparison, Contest

KEY = "vote.key"
KEY_BYTES = 32
ID_DIGITS = 24
"""Hexadecimal digits of an id: 96 bits. Our choice."""


@dataclass(frozen=True)
class Item:
    """A comparison with sides."""

    id: str
    comparison: Comparison
    left: str
    right: str


class Blind:
    """The ids of one contest. Makes the key if it does not exist yet."""

    def __init__(self, contest: Contest) -> None:
        self.contest, self.key = contest, _key(contest.folder / KEY)

    def digest(self, *what: Any) -> str:
        """Hexadecimal digits that are constant for the same arguments and unpredictable without the key."""
        return hmac.new(self.key, json.dumps(what).encode(), hashlib.sha256).hexdigest()[:ID_DIGITS]

    def item(self, comparison: Comparison, left: str) -> Item:
        """A comparison with `left` (one of its two contestants) on the left."""
        c = comparison
        right = c.b if left == c.a else c.a
        return Item(self.digest("item", c.group, c.prompt, c.seed, left, right), c, left, right)

    def file(self, contestant: str, seed: int, prompt: int) -> str:
        """The name of a video in a packed folder, without suffix."""
        return self.digest("file", contestant, seed, prompt)

    @cached_property
    def items(self) -> dict[str, Item]:
        """Every item by id, with both orders of sides, including items whose videos are missing."""
        found = (self.item(c, left) for c in self.contest.comparisons(missing=True) for left in (c.a, c.b))
        return {item.id: item for item in found}

    def balanced(self, comparisons: list[Comparison], who: str) -> dict[Comparison, str]:
        """The left contestant of each comparison for one voter: random, and balanced within each pair of contestants (to within one)."""
        pairs: dict[tuple[str, str, str], list[Comparison]] = {}
        for c in comparisons:
            pairs.setdefault((c.group, c.a, c.b), []).append(c)
        sides: dict[Comparison, str] = {}
        for pair, members in pairs.items():
            turn = int(self.digest("first side", who, pair), 16)
            for i, c in enumerate(sorted(members, key=lambda c: self.digest("side", who, *pair, c.prompt, c.seed))):
                sides[c] = c.a if (turn + i) % 2 else c.b
        return sides


def _key(path: Path) -> bytes:
    """The key of a contest. Processes that make it at the same time agree on one, because an existing file is complete and never replaced."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
            os.fsync(handle)
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                temporary.replace(path)
        finally:
            os.close(handle)
            temporary.unlink(missing_ok=True)
    try:
        key = bytes.fromhex(path.read_text().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise RunError(
            f"{path} is damaged; delete it to make a new key (votes from folders packed with the old key cannot be imported then)"
        )
    return key
