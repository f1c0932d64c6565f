"""Simulated votes on contestants with known strengths."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.voting.elo import ORDERS, START, elo_of, ratings
from curate.voting.games import POINTS, Game

LADDER = {"A": 1150.0, "B": 1050.0, "C": 950.0, "D": 850.0}
EQUAL = dict.fromkeys("ABCD", 1000.0)
DESIGNS: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "a ladder, 90 votes": (LADDER, {"items": 15}),
    "a ladder, 30 votes": (LADDER, {"items": 5, "ties": 0.0}),
    "a ladder, many ties": (LADDER, {"items": 10, "ties": 0.5}),
    "equals, three voters before lucky samples": (EQUAL, {"items": 12, "voters": 3, "luck": 200.0}),
    "two": ({"A": 1060.0, "B": 940.0}, {"items": 30}),
}
"""True strengths, and how often they are compared."""


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


def expectation(strengths: Mapping[str, float], how: Mapping[str, Any]) -> dict[str, float]:
    """The truth of Elo: the mean rating after as many games, over the votes, items and orders of 600 other data sets (equals need none)."""
    if len(set(strengths.values())) == 1:
        return dict.fromkeys(strengths, START)
    others = [elo_of(simulate(strengths, 10_000 + seed, **how)) for seed in range(600)]
    return {name: float(np.mean([elo[name] for elo in others])) for name in strengths}


def covered(design: str, seeds: int, orders: int = ORDERS) -> tuple[list[int], list[int], int]:
    """Number of seeds in which each contestant's truth is inside the interval of Elo and of Bradley-Terry, and the order is right."""
    strengths, how = DESIGNS[design]
    truth, elo, strength, ranked = expectation(strengths, how), Counter[str](), Counter[str](), 0
    for seed in range(seeds):
        found = ratings(simulate(strengths, seed, **how), orders=orders, seed=seed)
        ranked += [r.contestant for r in found] == sorted(strengths, key=lambda name: -strengths[name])
        for r in found:
            elo[r.contestant] += r.low <= truth[r.contestant] <= r.high
            strength[r.contestant] += (
                (r.bradley_terry_low or 0) <= strengths[r.contestant] <= (r.bradley_terry_high or 0)
            )
    return [elo[name] for name in strengths], [strength[name] for name in strengths], ranked
