"""Games: answered comparisons of two contestants, the input of ratings; and the dependence between them.

Legend of shapes: G games, C contestants, I items, P pairs of contestants that met.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

START = 1000.0
"""Elo points at the start, and the mean of strengths (SVD, arXiv 2311.15127, appendix E)."""

POINTS = 400 / math.log(10)
"""Elo points of one unit of log odds, 173.7: 400 points are odds of 10 to 1."""


@dataclass(frozen=True)
class Game:
    """One answered comparison. Raises ValueError for a contestant against itself and for an invalid score.

    Attributes:
        a: One contestant.
        b: The other.
        score: Score of `a`: 1 won, 0 lost, 0.5 a tie.
        voter: Name of the voter.
        item: The prompt and seed of the videos, such as prompt 3 of seed 0. Games of two voters on the same item and pair are comparable.
    """

    a: str
    b: str
    score: float
    voter: str
    item: str

    def __post_init__(self) -> None:
        if self.a == self.b:
            raise ValueError(f"a game needs two different contestants, got '{self.a}' twice")
        if self.score not in (0.0, 0.5, 1.0):
            raise ValueError(f"a game's score is 1 (a won), 0 (a lost) or 0.5 (a tie), not {self.score!r}")


@dataclass(frozen=True)
class Table:
    """Games as arrays, sorted by content, so that the order of the votes does not change any result.

    Attributes:
        names: The C contestants, sorted.
        a: Index of the contestant of a game whose name sorts first; (G,), as the next four.
        b: Index of the other.
        score: Score of `a`.
        pair: Number of the pair of contestants, 0 to P-1.
        item: Number of the item, 0 to I-1.
        group: Number of the group of contestants that games link (`groups`); (C,).
        played: Number of games of each contestant; (C,).
    """

    names: list[str]
    a: Array
    b: Array
    score: Array
    pair: Array
    item: Array
    group: Array
    played: Array

    @classmethod
    def of(cls, games: Sequence[Game]) -> "Table":
        """The table of some games; arrays of length 0 without games."""
        rows = sorted(
            (g.a, g.b, float(g.score), g.item, g.voter) if g.a < g.b else (g.b, g.a, 1.0 - g.score, g.item, g.voter)
            for g in games
        )
        names = sorted({name for row in rows for name in row[:2]})
        place = {name: i for i, name in enumerate(names)}
        items = {item: i for i, item in enumerate(sorted({row[3] for row in rows}))}
        home = {name: i for i, group in enumerate(groups(games)) for name in group}
        a_G = np.array([place[row[0]] for row in rows], dtype=np.int64)
        b_G = np.array([place[row[1]] for row in rows], dtype=np.int64)
        return cls(
            names,
            a_G,
            b_G,
            score=np.array([row[2] for row in rows], dtype=float),
            pair=np.unique(a_G * len(names) + b_G, return_inverse=True)[1],
            item=np.array([items[row[3]] for row in rows], dtype=np.int64),
            group=np.array([home[name] for name in names], dtype=np.int64),
            played=np.bincount(np.concatenate([a_G, b_G]), minlength=len(names)),
        )


def groups(games: Sequence[Game]) -> list[list[str]]:
    """Groups of contestants that games link, directly or through others: the largest group first, names sorted.

    Contestants of different groups cannot be compared: each group is rated around `START` by itself.
    """
    home: dict[str, set[str]] = {}
    for game in games:
        both = home.get(game.a, {game.a}) | home.get(game.b, {game.b})
        if len(both) > len(home.get(game.a, ())) or len(both) > len(home.get(game.b, ())):
            home.update(dict.fromkeys(both, both))
    apart = {tuple(sorted(group)) for group in home.values()}
    return [list(group) for group in sorted(apart, key=lambda group: (-len(group), group))]


def design_effect(table: Table) -> float:
    """The factor by which the variance of ratings exceeds that of independent votes; 1 or more.

    Five voters on the same two samples are not five independent comparisons of two models: if one sample is a lucky one, all five see it. This
    is Kish's design effect (Survey Sampling, 1965), the ratio of the variance of sums over an item to that of single votes. The residual of a
    vote is its score less the mean score of its pair, summed over an item for each contestant; squares are added over all contestants, because
    a single one gives a noisy figure. I/(I-1) corrects for the number of items, and the excess over 1 is multiplied by (I-1)/(I-3), the
    variance of Student's t, because few items estimate it badly. The result is at least 1 (our choice: less would be noise), and 1 when every
    game has its own item or all have the same, because it cannot be estimated then. A pair that met on one item only adds no information.
    """
    items, pairs = int(table.item.max(initial=-1)) + 1, int(table.pair.max(initial=-1)) + 1
    if items in (0, 1, len(table.score)):
        return 1.0
    mean_P = np.bincount(table.pair, table.score, pairs) / np.bincount(table.pair, minlength=pairs)
    residual_G = table.score - mean_P[table.pair]
    item_IC = np.zeros((items, len(table.names)))
    np.add.at(item_IC, (table.item, table.a), residual_G)
    np.add.at(item_IC, (table.item, table.b), -residual_G)
    apart = 2 * float((residual_G**2).sum())
    if apart < 1e-9:
        return 1.0
    excess = float((item_IC**2).sum()) * items / (items - 1) / apart - 1
    return 1 + max(0.0, excess) * (items - 1) / max(1, items - 3)
