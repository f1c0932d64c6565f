"""Simulated voters, whose contestants' true strengths are known."""

import itertools
import math
from collections.abc import Mapping

import numpy as np

from curate.voting.games import POINTS, Game


def simulate(
    strengths: Mapping[str, float],
    seed: int,
    *,
    items: int,
    voters: int = 1,
    ties: float = 0.2,
    luck: float = 0.0,
) -> list[Game]:
    """Every voter compares every two contestants on every item; the games come in random order.

    A vote's mean score is that of the Elo formula. `ties`: their share between equals. `luck`: by how many Elo points (standard deviation) a
    contestant's sample of one item is better or worse than its strength, for all voters alike.
    """
    rng = np.random.default_rng(seed)
    games = []
    for item in range(items):
        here = {name: elo + luck * rng.standard_normal() for name, elo in strengths.items()}
        for a, b in itertools.combinations(strengths, 2):
            wins = 1 / (1 + math.exp((here[b] - here[a]) / POINTS))
            tied = 2 * ties * min(wins, 1 - wins)
            for voter, u in enumerate(rng.random(voters).tolist()):
                score = 1.0 if u < wins - tied / 2 else 0.5 if u < wins + tied / 2 else 0.0
                games.append(Game(a, b, score, f"voter {voter}", f"prompt {item}"))
    return [games[i] for i in rng.permutation(len(games)).tolist()]


def votes(text: str, a: str = "A", b: str = "B") -> list[Game]:
    """Games of `a` and `b` from letters: `w`on, `l`ost, `t`ied; each has an item and a voter of its own."""
    return [Game(a, b, {"w": 1.0, "l": 0.0, "t": 0.5}[x], f"voter {i}", f"{a}{b} {i}") for i, x in enumerate(text)]
