"""Elo over many orders at once: the games as they were answered, and games drawn anew from them.

A rating depends on the order of the games, so the published method plays them in 1,000 random orders. That shows what the order does, and
nothing of what other votes would have done: where one won 60 of 100 games, it did so in every order. For intervals the games are therefore
also drawn anew, with replacement and in random order (the bootstrap: Efron, Annals of Statistics 7, 1979), with two additions of ours:

- A pair that met `URN` times or more is drawn from its own games, so that it meets as often as it did; all other games share one urn. With one
  urn for all, a rating would also scatter with how many weak opponents it happens to draw, and intervals would be up to a quarter too wide.
- A drawn game is replaced by the flip of a coin with probability 4/(n+4), n being the games of whichever of the two has fewer. Otherwise an
  unbeaten contestant would have an interval of width 0, after two votes as after two hundred. The 4 is that of Agresti & Coull (Approximate is
  better than "exact", The American Statistician 52, 1998).

Legend of shapes: G games, O orders, C contestants, V contrasts.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from curate.voting.games import POINTS, START, Array, Table, design_effect

K = 1.0
"""Elo points that a game moves a rating by, at most (SVD, arXiv 2311.15127, appendix E)."""

ADDED = 4
"""Coin flips added to the games of a contestant."""

URN = 5
"""Games of a pair from which on it has an urn of its own: with fewer, its own games show too little of their scatter (20 % less at 5)."""

CELLS = 5_000_000
"""Games times orders that are played at once: about 300 MB (ours)."""


@dataclass(frozen=True)
class Replays:
    """Final ratings, Elo points.

    Attributes:
        table: The games.
        played: Of the games as answered, in random orders; (O, C).
        drawn: Of games drawn anew; (O, C).
    """

    table: Table
    played: Array
    drawn: Array

    @classmethod
    def of(cls, table: Table, orders: int, seed: int) -> "Replays":
        """Plays and draws `orders` times; the same table and seed give the same ratings. Raises ValueError for fewer than 2 orders."""
        if orders < 2:
            raise ValueError(f"an interval needs 2 orders of the games or more, not {orders}")
        rng, at_once = np.random.default_rng(seed), max(1, CELLS // max(1, len(table.score)))
        blocks = [_block(table, min(at_once, orders - done), rng) for done in range(0, orders, at_once)]
        return cls(
            table, np.concatenate([played for played, _ in blocks]), np.concatenate([drawn for _, drawn in blocks])
        )

    def intervals(self, contrasts: Array, confidence: float, *, together: bool = False) -> tuple[Array, Array, Array]:
        """Point, low and high of each contrast (V, C): three times (V,).

        The point is the mean over the orders. The interval is normal, around the mean of what was drawn, with its variance less that of one
        order, which the mean over many does not have; at most three quarters are taken off (ours: beyond, the rest is the difference of two
        noises). It is widened by `design_effect`. With `together` all contrasts lie in their intervals at once with this confidence: the factor
        is the quantile of the largest deviation among them (Westfall & Young, Resampling-Based Multiple Testing, 1993).
        """
        played_OV, drawn_OV = self.played @ contrasts.T, self.drawn @ contrasts.T
        point_V, middle_V, variance_V = played_OV.mean(axis=0), drawn_OV.mean(axis=0), drawn_OV.var(axis=0)
        width = NormalDist().inv_cdf((1 + confidence) / 2)
        if together:
            deviation_V = np.sqrt(np.maximum(variance_V, 1e-12))
            width = float(np.quantile((abs(drawn_OV - middle_V) / deviation_V).max(axis=1), confidence))
        own_V = np.maximum(variance_V - played_OV.var(axis=0), variance_V / 4)
        half_V = width * np.sqrt(own_V * design_effect(self.table))
        return point_V, np.minimum(point_V, middle_V - half_V), np.maximum(point_V, middle_V + half_V)


def _block(table: Table, orders: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Ratings (O, C) of the games as answered and of games drawn anew, as the top of this file says."""
    played_GO = rng.permuted(np.tile(np.arange(len(table.score))[:, None], (1, orders)), axis=0)
    drawn_GO = np.empty_like(played_GO)
    urn_G = np.where(np.bincount(table.pair)[table.pair] >= URN, table.pair + 1, 0)
    for urn in np.unique(urn_G):
        inside = np.flatnonzero(urn_G == urn)
        drawn_GO[inside] = inside[rng.integers(len(inside), size=(len(inside), orders))]
    drawn_GO = rng.permuted(drawn_GO, axis=0)
    fewer_G = np.minimum(table.played[table.a], table.played[table.b])
    coin_GO = rng.random(drawn_GO.shape) < (ADDED / (fewer_G + ADDED))[drawn_GO]
    score_GO = np.where(coin_GO, rng.integers(2, size=drawn_GO.shape), table.score[drawn_GO])
    return _play(table, played_GO, table.score[played_GO]), _play(table, drawn_GO, score_GO)


def _play(table: Table, games: Array, scores: Array) -> Array:
    """Every order at once, game after game, by the formula of `curate.voting.elo.elo_of`; games and scores (G, O), ratings (O, C)."""
    orders = games.shape[1]
    elo = np.full(orders * len(table.names), START)
    base_O = np.arange(orders) * len(table.names)
    for game_O, score_O in zip(games, scores, strict=True):
        a_O, b_O = table.a[game_O] + base_O, table.b[game_O] + base_O
        elo_a_O, elo_b_O = elo[a_O], elo[b_O]
        gain_O = K * (score_O - 1 / (1 + np.exp((elo_b_O - elo_a_O) / POINTS)))
        elo[a_O], elo[b_O] = elo_a_O + gain_O, elo_b_O - gain_O
    return elo.reshape(orders, -1)
