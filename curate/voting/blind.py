"""What a voter is shown instead of names: ids and file names made from a secret of the contest. Nothing tells which training a video is of.

The secret lies in RUN/ablate/NAME/vote.key and is made once. An item is a comparison with its sides: its id says, to whoever holds the key,
which contestant was on the left. So a page that was open while the server started anew, or a folder packed last week, is still understood.
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
"""Hexadecimal digits of an id: 96 bits. Ours."""


@dataclass(frozen=True)
class Item:
    """A comparison as it is shown."""

    id: str
    comparison: Comparison
    left: str
    right: str


class Blind:
    """The ids of one contest. Makes the key if there is none yet."""

    def __init__(self, contest: Contest) -> None:
        self.contest, self.key = contest, _key(contest.folder / KEY)

    def digest(self, *what: Any) -> str:
        """Digits that always are the same for the same words and that nobody without the key can foretell."""
        return hmac.new(self.key, json.dumps(what).encode(), hashlib.sha256).hexdigest()[:ID_DIGITS]

    def item(self, comparison: Comparison, left: str) -> Item:
        """A comparison with `left` (one of its two contestants) on the left."""
        c = comparison
        right = c.b if left == c.a else c.a
        return Item(self.digest("item", c.group, c.prompt, c.seed, left, right), c, left, right)

    def file(self, contestant: str, seed: int, prompt: int) -> str:
        """The name of a video in a packed folder, without its ending."""
        return self.digest("file", contestant, seed, prompt)

    @cached_property
    def items(self) -> dict[str, Item]:
        """Every item by its id, both ways round; also those whose videos are gone by now."""
        found = (self.item(c, left) for c in self.contest.comparisons(missing=True) for left in (c.a, c.b))
        return {item.id: item for item in found}

    def balanced(self, comparisons: list[Comparison], who: str) -> dict[Comparison, str]:
        """Who is on the left, for one voter: drawn by lot, and as often the one as the other in each pair of contestants (within one)."""
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
    """The secret of a contest. Two that make it at once agree on one: a file that is there is whole and is never replaced."""
    if not path.exists():
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
            os.fsync(handle)
            try:
                os.link(aside, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                aside.replace(path)
        finally:
            os.close(handle)
            aside.unlink(missing_ok=True)
    try:
        key = bytes.fromhex(path.read_text().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise RunError(
            f"{path} is damaged; delete it (folders that were packed with it can then no longer be imported)"
        )
    return key
