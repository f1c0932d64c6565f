"""Voters: their agreement, and voters with suspicious answers. No voter is dropped; compare the ratings with and without a flagged one."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from curate.voting.games import Game

FLAG_P = 0.001
"""Maximum p-value of a flagged bias to one side (our choice: it flags one of 50 honest voters in one run of 20)."""

FLAG_SHARE = 0.8
"""Minimum share of that side (our choice: a smaller bias only adds noise, because the sides are shuffled)."""

FLAG_TIES = 10
"""Minimum number of answers of a voter flagged for only ties (our choice)."""

SIDES = ("left", "right", "tie")


@dataclass(frozen=True)
class Agreement:
    """Agreement on comparisons that two or more voters answered.

    Attributes:
        comparisons: Number of comparisons (an item and a pair) that two or more voters answered.
        pairs: Number of pairs of such answers.
        equal: Share of these pairs that are equal, 0 to 1.
        alpha: Krippendorff's alpha: 1 perfect agreement, 0 chance level. None without common comparisons, or with only ties.
    """

    comparisons: int
    pairs: int
    equal: float | None
    alpha: float | None


def agreement(games: Sequence[Game]) -> Agreement:
    """Agreement between voters. If a voter answered the same comparison twice, the last answer counts.

    Alpha is Krippendorff's (Content Analysis, 4th edition, 2019, chapter 12) for interval data: a tie is halfway between win and loss, so a win
    against a tie is a quarter of a disagreement. Each comparison is counted from both sides, because the order of the contestants is arbitrary:
    chance level is then a voter without a preference, and alpha does not depend on names. Krippendorff advises to rely on data from 0.8 and to
    draw tentative conclusions from 0.667. A low alpha calls for more votes or a clearer question; the intervals remain valid.
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

    One sequence per unit, with the values that coders gave it; units with fewer than two values are ignored. None when all values are equal.
    """
    coded = [unit for unit in units if len(unit) > 1]
    every = [value for unit in coded for value in unit]
    if len(set(every)) < 2:
        return None
    observed = sum(_disagreement(unit) / (len(unit) - 1) for unit in coded) / len(every)
    return 1 - observed / (_disagreement(every) / (len(every) * (len(every) - 1)))


def _disagreement(values: Sequence[float]) -> float:
    """Squared differences, summed over all ordered pairs."""
    return 2 * (len(values) * math.fsum(value * value for value in values) - math.fsum(values) ** 2)


def flags(presses: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Voters with suspicious answers, each with a sentence such as `always left: 24 of 24 answers (p < 0.001 by chance)`.

    Takes (voter, side) pairs; a side is `left`, `right` or `tie`. Sides are shuffled, so an honest voter chooses each side half the time. A
    voter is flagged when one side has at least `FLAG_SHARE` of the answers without ties and the exact two-sided binomial test against 1/2 gives
    less than `FLAG_P` (at least 11 of 11 answers), or for only ties, at least `FLAG_TIES`. Raises ValueError for another side.
    """
    pressed: dict[str, Counter[str]] = defaultdict(Counter)
    for voter, side in presses:
        if side not in SIDES:
            raise ValueError(f"a side is left, right or tie, got {side!r}")
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
    """Probability that a fair coin, thrown `answers` times, shows one side at least `more` times: the exact two-sided binomial test, 0 to 1."""
    tail = sum(math.comb(answers, k) for k in range(max(more, answers - more), answers + 1))
    return float(min(1.0, 2 * tail / 2**answers))


def without(games: Sequence[Game], voters: Collection[str]) -> list[Game]:
    """The games without those of these voters, to compare ratings with and without flagged voters."""
    return [game for game in games if game.voter not in voters]
