"""Bradley-Terry strengths: a check of Elo that does not depend on the order of the votes.

The probability that `a` wins is 1/(1+10^((b-a)/400)), as in Elo; the strengths have the maximum likelihood for the votes (Bradley & Terry,
Rank analysis of incomplete block designs, Biometrika 39, 1952). This is a logistic regression without an intercept on rows of +1 and -1, by
scikit-learn (from the `train` extra). A tie counts as half a win for each. Unit: Elo points, mean `START` within each group of contestants that
games link.

Legend of shapes: G games, C contestants.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from curate.voting.games import POINTS, START, Array, Game, Table, design_effect

SPREAD = 550.0
"""Prior standard deviation of strengths in Elo points (our choice). This weak regularisation keeps an unbeaten contestant finite. It weighs as
much as 0.4 even games: after 100 games it changes a strength by less than half a percent."""

ADDED = 4
"""Untied votes added before the share of ties is computed (after Agresti & Coull, 1998): ties alone do not prove that all are equal."""


@dataclass(frozen=True)
class Strength:
    """A contestant's strength and its interval, in Elo points."""

    contestant: str
    elo: float
    low: float
    high: float


def bradley_terry(games: Sequence[Game], *, spread: float = SPREAD) -> dict[str, float]:
    """The strength of each contestant in Elo points; empty without games. Raises ImportError without scikit-learn."""
    table = Table.of(games)
    return dict(zip(table.names, _fit(table, spread).tolist(), strict=True))


def strengths(games: Sequence[Game], *, confidence: float = 0.95, spread: float = SPREAD) -> list[Strength]:
    """Strengths with intervals, best first; empty without games. Raises ImportError without scikit-learn.

    An interval is of the true strength relative to the mean of its group. It is normal, from the information matrix at the fit including the
    regularisation (Laplace's approximation), so it is wide for an unbeaten contestant. The variance of a vote is p(1-p), less a quarter for a
    tie, which is between win and loss. `curate.voting.games.design_effect` widens it.
    """
    table = Table.of(games)
    if not table.names:
        return []
    elo_C = _fit(table, spread)
    spread_G = 1 / (2 + 2 * np.cosh((elo_C[table.a] - elo_C[table.b]) / POINTS))  # p(1-p)
    votes_CC = np.zeros((len(elo_C), len(elo_C)))
    for row, column, sign in (
        (table.a, table.a, 1),
        (table.b, table.b, 1),
        (table.a, table.b, -1),
        (table.b, table.a, -1),
    ):
        np.add.at(votes_CC, (row, column), sign * spread_G)
    before_CC = np.eye(len(elo_C)) * (POINTS / spread) ** 2
    quarters, ties = 4 * float(spread_G.sum()), int((table.score == 0.5).sum())
    untied = max(1 - ties / (quarters + ADDED), ADDED / (len(spread_G) + ADDED))
    same_CC = table.group[:, None] == table.group
    less_mean_CC = np.eye(len(elo_C)) - same_CC / same_CC.sum(axis=1)
    contrasts_CC = less_mean_CC @ np.linalg.inv(votes_CC + before_CC)
    variance_C = ((contrasts_CC @ (votes_CC * untied + before_CC)) * contrasts_CC).sum(axis=1)
    width = NormalDist().inv_cdf((1 + confidence) / 2)
    half_C = width * POINTS * np.sqrt(variance_C * design_effect(table))
    found = zip(table.names, elo_C.tolist(), (elo_C - half_C).tolist(), (elo_C + half_C).tolist(), strict=True)
    return sorted((Strength(*one) for one in found), key=lambda one: (-one.elo, one.contestant))


def _fit(table: Table, spread: float) -> Array:
    """Strengths, (C,)."""
    from sklearn.linear_model import LogisticRegression

    if not table.names:
        return np.zeros(0)
    # One row per pair and outcome, weighted by its votes, and the mirrored rows: without them there would be a single class when the first of
    # every pair won.
    wins_P, losses_P = np.bincount(table.pair, table.score), np.bincount(table.pair, 1 - table.score)
    _, first_P = np.unique(table.pair, return_index=True)
    met_PC = np.zeros((len(first_P), len(table.names)))
    pair_P = np.arange(len(first_P))
    met_PC[pair_P, table.a[first_P]], met_PC[pair_P, table.b[first_P]] = 1.0, -1.0
    model = LogisticRegression(
        C=(spread / POINTS) ** 2, fit_intercept=False, solver="newton-cholesky", tol=1e-9, max_iter=1000
    )
    model.fit(
        np.concatenate([met_PC, met_PC, -met_PC, -met_PC]),
        np.repeat([1, 0, 1, 0], len(first_P)),
        sample_weight=np.concatenate([wins_P, losses_P, losses_P, wins_P]) / 2,
    )
    strength_C: Array = START + POINTS * model.coef_[0]
    return strength_C
