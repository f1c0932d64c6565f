"""Elo over many orders at once: of the games as answered, and of games resampled from them.

A rating depends on the order of the games, so the published method plays them in 1,000 random orders. That shows the effect of the order but
not of other votes: a contestant that won 60 of 100 games won 60 in every order. For intervals the games are therefore also resampled, with
replacement and in random order (the bootstrap: Efron, Annals of Statistics 7, 1979), with two additions of ours:

- A pair with at least `URN` games is resampled from its own games, so that its number of games is constant; all other games share one urn. With
  a single urn, a rating would also vary with the number of weak opponents drawn, and intervals would be up to a quarter too wide.
- A drawn game is replaced by a coin flip with probability 4/(n+4), where n is the smaller number of games of the two contestants. Otherwise an
  unbeaten contestant would have an interval of width 0, after two votes as after two hundred. The 4 is that of Agresti & Coull (Approximate is
  better than "exact", The American Statistician 52, 1998).

Legend of shapes: G games, O orders, C contestants, V contrasts.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from curate.voting.games import POINTS, START, Array, Table, design_effect

K = 1.0
"""Maximum change of a rating by a game, in Elo points (SVD, arXiv 2311.15127, appendix E)."""

ADDED = 4
"""Coin flips added to the games of a contestant."""

URN = 5
"""Minimum games of a pair with its own urn: resampling fewer games underestimates their variance (by 20 % at 5)."""

CELLS = 5_000_000
"""Maximum of games times orders computed at once: about 300 MB (our choice)."""


@dataclass(frozen=True)
class Replays:
    """Final ratings, Elo points.

    Attributes:
        table: The games.
        played: Ratings from the games as answered, in random orders; (O, C).
        drawn: Ratings from resampled games; (O, C).
    """

    table: Table
    played: Array
    drawn: Array

    @classmethod
    def of(cls, table: Table, orders: int, seed: int) -> "Replays":
        """Plays and resamples `orders` times; the same table and seed give the same ratings. Raises ValueError for fewer than 2 orders."""
        if orders < 2:
            raise ValueError(f"an interval needs at least 2 orders of the games, got {orders}")
        rng, at_once = np.random.default_rng(seed), max(1, CELLS // max(1, len(table.score)))
        blocks = [_block(table, min(at_once, orders - done), rng) for done in range(0, orders, at_once)]
        return cls(
            table, np.concatenate([played for played, _ in blocks]), np.concatenate([drawn for _, drawn in blocks])
        )

    def intervals(self, contrasts: Array, confidence: float, *, together: bool = False) -> tuple[Array, Array, Array]:
        """Point, low and high of each contrast (V, C): three arrays (V,).

        The point is the mean over the orders. The interval is normal, around the mean of the resampled ratings. Its variance is theirs less the
        variance of one order, which the mean over orders does not have; at most three quarters are subtracted (our choice; the rest would be
        a difference of two noisy values). `design_effect` widens it. With `together` all contrasts are in their intervals simultaneously with
        this confidence: the factor is the quantile of the largest deviation (Westfall & Young, Resampling-Based Multiple Testing, 1993).
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
    """Ratings (O, C) of the games as answered and of resampled games."""
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
    """Plays all orders at once, game after game, by the formula of `curate.voting.elo.elo_of`; games and scores (G, O), ratings (O, C)."""
    orders = games.shape[1]
    elo = np.full(orders * len(table.names), START)
    base_O = np.arange(orders) * len(table.names)
    for game_O, score_O in zip(games, scores, strict=True):
        a_O, b_O = table.a[game_O] + base_O, table.b[game_O] + base_O
        elo_a_O, elo_b_O = elo[a_O], elo[b_O]
        gain_O = K * (score_O - 1 / (1 + np.exp((elo_b_O - elo_a_O) / POINTS)))
        elo[a_O], elo[b_O] = elo_a_O + gain_O, elo_b_O - gain_O
    return elo.reshape(orders, -1)
