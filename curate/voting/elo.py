"""Elo ratings of contestants from pairwise votes, by the method of SVD, with intervals that include the chance in the votes.

SVD (arXiv 2311.15127, appendix E): every contestant starts at 1000; before a game the expected score of 1 against 2 is
E1 = 1/(1+10^((R2-R1)/400)), after it R1' = R1 + K(S1-E1) with K = 1 and the score S1 (1, 0, or 0.5 for a tie); the rating is the mean over
1,000 random orders of the games. Unit: Elo points.

What a rating estimates. With K = 1 a game changes a rating by less than a point, so after a few hundred games it is still far from the strength
of the contestant (which voting/bradley_terry.py estimates). A rating estimates its own expectation: the mean rating of these contestants after
the same number of games between the same pairs, over other votes, items and orders. The intervals are of this expectation. Such ratings compare
contestants that met the same opponents about equally often, as planned comparisons do. Otherwise a contestant that met weak opponents is rated
too high until the ratings settle after some thousand games; use Bradley-Terry then.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from curate.voting.bradley_terry import bradley_terry, strengths
from curate.voting.games import START, Game, Table, design_effect, groups
from curate.voting.replays import ADDED, K, Replays

__all__ = [
    "ORDERS",
    "START",
    "Difference",
    "Game",
    "K",
    "Rating",
    "bradley_terry",
    "differences",
    "elo_of",
    "expected",
    "groups",
    "ratings",
    "votes_for",
    "votes_needed",
]

ORDERS = 1000
"""Random orders of the games (SVD, appendix E)."""

POWER = 0.8
"""Probability that the predicted number of votes shows a difference of the observed size (Cohen, Statistical Power Analysis, 1988)."""


@dataclass(frozen=True)
class Rating:
    """A contestant's rating, in Elo points.

    Attributes:
        contestant: Name.
        elo: Mean over the orders.
        low: Lower end of the interval of the expected rating after the same number of games.
        high: Upper end.
        games: Number of games.
        wins: Number of games won.
        ties: Number of ties.
        bradley_terry: Strength, mean START; None without scikit-learn.
        bradley_terry_low: Lower end of the interval of the strength.
        bradley_terry_high: Upper end.
    """

    contestant: str
    elo: float
    low: float
    high: float
    games: int
    wins: int
    ties: int
    bradley_terry: float | None
    bradley_terry_low: float | None = None
    bradley_terry_high: float | None = None


@dataclass(frozen=True)
class Difference:
    """The rating of `a` minus that of `b` in Elo points, 0 or more, and its interval."""

    a: str
    b: str
    elo: float
    low: float
    high: float

    @property
    def apart(self) -> bool:
        """Whether the interval excludes "no difference"."""
        return self.low > 0 or self.high < 0


def expected(a: float, b: float) -> float:
    """The expected score (0 to 1) of rating `a` against rating `b`: 1/(1+10^((b-a)/400))."""
    return 1 / (1 + math.pow(10, (b - a) / 400))


def elo_of(games: Sequence[Game]) -> dict[str, float]:
    """Ratings after one pass over the games in the given order, by the published formula."""
    elo: dict[str, float] = {}
    for game in games:
        a, b = elo.setdefault(game.a, START), elo.setdefault(game.b, START)
        gain = K * (game.score - expected(a, b))
        elo[game.a], elo[game.b] = a + gain, b - gain
    return elo


def ratings(games: Sequence[Game], *, orders: int = ORDERS, seed: int = 0, confidence: float = 0.95) -> list[Rating]:
    """Ratings with intervals, best first; empty without games.

    The top of this file says what an interval covers, voting/replays.py how it is computed. The same votes and seed give the same numbers in any
    order of the votes. Without scikit-learn there are no Bradley-Terry strengths.
    """
    table = Table.of(games)
    if not table.names:
        return []
    point_C, low_C, high_C = Replays.of(table, orders, seed).intervals(np.eye(len(table.names)), confidence)
    try:
        strength = {s.contestant: (s.elo, s.low, s.high) for s in strengths(games, confidence=confidence)}
    except ImportError:
        strength = {}
    count = len(table.names)
    won_C = np.bincount(table.a[table.score == 1], minlength=count)
    won_C += np.bincount(table.b[table.score == 0], minlength=count)
    tied = table.score == 0.5
    tied_C = np.bincount(np.concatenate([table.a[tied], table.b[tied]]), minlength=count)
    found = [
        Rating(
            name,
            float(point_C[i]),
            float(low_C[i]),
            float(high_C[i]),
            int(table.played[i]),
            int(won_C[i]),
            int(tied_C[i]),
            *strength.get(name, (None, None, None)),
        )
        for i, name in enumerate(table.names)
    ]
    return sorted(found, key=lambda r: (-r.elo, r.contestant))


def differences(
    games: Sequence[Game],
    *,
    orders: int = ORDERS,
    seed: int = 0,
    confidence: float = 0.95,
    together: bool = True,
) -> list[Difference]:
    """The difference of each pair of contestants, from the same replays as `ratings`; largest first.

    Two intervals of `ratings` can overlap although the two contestants differ significantly, because one wins what the other loses; so a
    difference has its own interval. With `together` all intervals hold simultaneously with this confidence (the quantile of the largest
    deviation over the pairs, in standard deviations; Westfall & Young, Resampling-Based Multiple Testing, 1993): among equal contestants, a
    difference is found in one case of twenty, however many there are. Without it each interval holds by itself. Pairs that no games link
    (`groups`) are omitted.
    """
    table = Table.of(games)
    pairs = np.argwhere(np.triu(table.group[:, None] == table.group, 1)).tolist()
    if not pairs:
        return []
    every_CC = np.eye(len(table.names))
    contrasts_PC = np.array([every_CC[i] - every_CC[j] for i, j in pairs])
    ends = Replays.of(table, orders, seed).intervals(contrasts_PC, confidence, together=together)
    found = []
    for (i, j), point, low, high in zip(pairs, *(end_P.tolist() for end_P in ends), strict=True):
        a, b = table.names[i], table.names[j]
        found.append(Difference(a, b, point, low, high) if point >= 0 else Difference(b, a, -point, -high, -low))
    return sorted(found, key=lambda d: (-d.elo, d.a, d.b))


def votes_for(wins: float, losses: float, *, confidence: float = 0.95, power: float = POWER) -> float:
    """The number of votes needed to find a difference between two contestants with these shares of wins and losses; the rest are ties.

    (z_a sqrt(w+l) + z_b sqrt(w+l-(w-l)^2))^2 / (w-l)^2, with the normal quantiles z_a and z_b of confidence (two-sided) and power: the sample
    size of McNemar's test (Connor, Sample size for testing differences in proportions for the paired-sample design, Biometrics 43, 1987).
    Infinite when wins and losses are equal.
    """
    untied, lead = wins + losses, wins - losses
    if lead == 0:
        return math.inf
    z_a, z_b = NormalDist().inv_cdf((1 + confidence) / 2), NormalDist().inv_cdf(power)
    return float((z_a * math.sqrt(untied) + z_b * math.sqrt(max(0.0, untied - lead**2))) ** 2 / lead**2)


def votes_needed(
    games: Sequence[Game],
    *,
    orders: int = ORDERS,
    seed: int = 0,
    confidence: float = 0.95,
    power: float = POWER,
) -> int | None:
    """How many more votes between the two best-rated contestants would show a difference at the present shares; 0 if they differ already.

    They differ if their interval in `differences` by itself (`together=False`) excludes 0. Else the result is `votes_for` the present shares,
    with two wins for each added (Agresti & Coull, 1998: a lead of 2:0 is weak evidence), times `design_effect`, less the votes so far. Games
    with third contestants help too but are not counted, so the estimate is rather too high. None when there is no estimate: no games, the two
    never met, or won equally often. With few votes the estimate is uncertain by a factor of several; compute it again as votes come in.
    """
    table = Table.of(games)
    if not table.names:
        return None
    replays = Replays.of(table, orders, seed)
    first, second = np.argsort(-replays.played.mean(axis=0), kind="stable")[:2]
    if table.group[first] != table.group[second]:
        return None
    every_CC = np.eye(len(table.names))
    contrast_1C = (every_CC[first] - every_CC[second])[None]
    _, low_1, high_1 = replays.intervals(contrast_1C, confidence)
    if low_1[0] > 0 or high_1[0] < 0:
        return 0
    met_G = (table.a == min(first, second)) & (table.b == max(first, second))
    met, wins, losses = (int(x.sum()) for x in (met_G, table.score[met_G] == 1, table.score[met_G] == 0))
    if not met:
        return None
    smoothed = votes_for((wins + 2) / (met + ADDED), (losses + 2) / (met + ADDED), confidence=confidence, power=power)
    if math.isinf(smoothed):
        return None
    return max(1, math.ceil(smoothed * design_effect(table)) - met)
