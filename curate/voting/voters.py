"""Voters: how far they agree, and which of them to look at. Nobody is dropped: a voter is named, and one rates with and without."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from curate.voting.games import Game

FLAG_P = 0.001
"""A lean to one side is told when chance makes one as strong less often than this (ours: it names one of 50 honest voters in one run of 20)."""

FLAG_SHARE = 0.8
"""And when that side has this share of the answers (ours: a milder lean only adds noise, for the sides are shuffled)."""

FLAG_TIES = 10
"""Answers from which on ties alone are told (ours)."""

SIDES = ("left", "right", "tie")


@dataclass(frozen=True)
class Agreement:
    """How far voters agree on what two or more of them saw.

    Attributes:
        comparisons: Comparisons (an item and a pair) that two or more voters answered.
        pairs: Pairs of such answers.
        equal: Share of these pairs that are equal, 0 to 1.
        alpha: Krippendorff's alpha: 1 all agree, 0 as by chance, below 0 worse than that. None where no two saw the same, or all said "a tie".
    """

    comparisons: int
    pairs: int
    equal: float | None
    alpha: float | None


def agreement(games: Sequence[Game]) -> Agreement:
    """Agreement between voters; of a voter who answered the same comparison twice, the last answer counts.

    Alpha is Krippendorff's (Content Analysis, 4th edition, 2019, chapter 12) for numbers: a tie lies halfway between the two, so that one win
    against one tie is a quarter of a disagreement. Every comparison is counted from both sides, for which contestant is called the first is
    arbitrary: chance is then a voter who favours neither, and alpha is the same whatever the contestants are called. He advises to rely on data
    from 0.8 and to conclude tentatively from 0.667; a low alpha asks for more votes or a clearer question, and makes no interval wrong.
    """
    answers: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for game in games:
        first, second = sorted((game.a, game.b))
        answers[first, second, game.item][game.voter] = game.score if game.a == first else 1.0 - game.score
    units = [list(unit.values()) for unit in answers.values() if len(unit) > 1]
    pairs = sum(math.comb(len(unit), 2) for unit in units)
    if not pairs:
        return Agreement(0, 0, None, None)
    equal = sum(math.comb(count, 2) for unit in units for count in Counter(unit).values())
    return Agreement(len(units), pairs, equal / pairs, krippendorff(units + [[1 - x for x in unit] for unit in units]))


def krippendorff(units: Sequence[Sequence[float]]) -> float | None:
    """Krippendorff's alpha for interval data: 1 - observed / expected disagreement.

    One sequence per unit, with the values that coders gave it; those with fewer than two count for nothing. None where all values are the same.
    """
    told = [unit for unit in units if len(unit) > 1]
    every = [value for unit in told for value in unit]
    if len(set(every)) < 2:
        return None
    observed = sum(_disagreement(unit) / (len(unit) - 1) for unit in told) / len(every)
    return 1 - observed / (_disagreement(every) / (len(every) * (len(every) - 1)))


def _disagreement(values: Sequence[float]) -> float:
    """Squared differences, summed over all ordered pairs."""
    return 2 * (len(values) * math.fsum(value * value for value in values) - math.fsum(values) ** 2)


def flags(presses: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Voters to look at, each with a sentence such as `always left: 24 of 24 answers (p < 0.001 by chance)`.

    Takes voters with the side that each pressed: `left`, `right` or `tie`. Sides are shuffled before they are shown, so an honest voter presses
    either half the time: a side with `FLAG_SHARE` of the answers that are no ties is told when the exact two-sided binomial test against 1/2
    gives less than `FLAG_P`, which takes 11 answers of 11. So are `FLAG_TIES` ties or more and nothing else. Raises ValueError for another side.
    """
    pressed: dict[str, Counter[str]] = defaultdict(Counter)
    for voter, side in presses:
        if side not in SIDES:
            raise ValueError(f"a press is left, right or tie, not {side!r}")
        pressed[voter][side] += 1
    found = {}
    for voter, counts in pressed.items():
        answers = counts["left"] + counts["right"]
        side = "left" if counts["left"] > counts["right"] else "right"
        if not answers and counts["tie"] >= FLAG_TIES:
            found[voter] = f"only ties: {counts['tie']} of {counts['tie']} answers"
        elif counts[side] >= FLAG_SHARE * answers and by_chance(counts[side], answers) < FLAG_P:
            often = "always" if counts[side] == answers else "nearly always"
            ties = f", {counts['tie']} ties aside" if counts["tie"] else ""
            found[voter] = f"{often} {side}: {counts[side]} of {answers} answers{ties} (p < {FLAG_P:g} by chance)"
    return found


def by_chance(more: int, answers: int) -> float:
    """How often a fair coin, thrown `answers` times, shows either side `more` times or oftener: the exact binomial test, two-sided, 0 to 1."""
    tail = sum(math.comb(answers, k) for k in range(max(more, answers - more), answers + 1))
    return float(min(1.0, 2 * tail / 2**answers))


def without(games: Sequence[Game], voters: Collection[str]) -> list[Game]:
    """The games of everybody but these voters, to rate with and without those that `flags` names."""
    return [game for game in games if game.voter not in voters]
