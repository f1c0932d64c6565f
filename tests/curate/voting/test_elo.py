"""Elo on games computed by hand, and on simulated voters with known strengths."""

import math
import subprocess
import sys
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from curate.voting.elo import (
    START,
    Difference,
    Game,
    differences,
    elo_of,
    expected,
    groups,
    ratings,
    votes_for,
    votes_needed,
)
from curate.voting.games import Table, design_effect
from curate.voting.replays import Replays
from tests.curate.voting.simulated import DESIGNS, EQUAL, LADDER, covered, expectation, simulate, votes

SEEDS = 100
FEW = 200
"""Orders where a hundred data sets are rated; which leaves an error of 5 % in the width of an interval."""

# -- the published formula


@pytest.mark.parametrize(
    ("a", "b", "score"),
    [
        pytest.param(1000, 1000, 0.5, id="equals"),
        pytest.param(1400, 1000, 10 / 11, id="400 points are 10 to 1"),
        pytest.param(1000, 1400, 1 / 11, id="and 1 to 10"),
        pytest.param(2000, 1200, 100 / 101, id="800 points are 100 to 1"),
    ],
)
def test_the_expected_score(a: float, b: float, score: float) -> None:
    assert expected(a, b) == pytest.approx(score, abs=1e-12)


def test_three_games_by_hand() -> None:
    # A beats B:  E = 1/2,                                  A 1000.5,          B 999.5
    # A ties C:   E = 1/(1+10^(-0.5/400)) = 0.5007195573,   A 1000.4992804427, C 1000.0007195573
    # B beats C:  E = 1/(1+10^(0.5007195573/400)) = 0.4992794071, B 1000.0007205929, C 999.4999989645
    games = [Game("A", "B", 1, "v", "i"), Game("A", "C", 0.5, "v", "i"), Game("C", "B", 0, "v", "i")]
    found = elo_of(games)
    assert found == pytest.approx({"A": 1000.4992804427, "B": 1000.0007205929, "C": 999.4999989645}, abs=1e-9)
    assert sum(found.values()) == pytest.approx(3 * START)


def test_a_thousand_orders_are_a_thousand_times_the_plain_formula() -> None:
    games = [*votes("wl"), *votes("t", "A", "C")]
    played = Replays.of(Table.of(games), 50, 0).played
    orders = [
        elo_of([games[i] for i in order])
        for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    ]
    wanted = np.array([[elo[name] for name in "ABC"] for elo in orders])
    assert len(np.unique(played.round(9), axis=0)) > 2
    assert abs(played[:, None] - wanted).max(axis=2).min(axis=1).max() < 1e-9


# -- what the intervals hold


@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_contain_the_truth(design: str) -> None:
    elo, bradley_terry, _ = covered(design, SEEDS, FEW)
    print(f"of {SEEDS} seeds: Elo {elo}, Bradley-Terry {bradley_terry}")
    for inside in (elo, bradley_terry):
        assert sum(inside) >= 93 * len(inside)
        assert min(inside) >= 90


def test_simultaneous_intervals_contain_all_true_differences() -> None:
    truth, together, alone = expectation(LADDER, {"items": 15}), 0, 0
    for seed in range(SEEDS):
        games = simulate(LADDER, 100 + seed, items=15)
        held = [d.low <= truth[d.a] - truth[d.b] <= d.high for d in differences(games, orders=FEW, seed=seed)]
        together += all(held)
        pairs = differences(games, orders=FEW, seed=seed, together=False)
        alone += sum(d.low <= truth[d.a] - truth[d.b] <= d.high for d in pairs)
    print(f"of {SEEDS} seeds: all six at once {together}, each by itself {alone / 6:.1f}")
    assert together >= 93
    assert alone >= 93 * 6


def test_intervals_from_orders_alone_have_no_sampling_error() -> None:
    """Why the games are resampled: the variance over orders of the same games does not include the variance of other votes."""
    truth, inside = expectation(LADDER, {"items": 10}), 0
    for seed in range(SEEDS):
        table = Table.of(simulate(LADDER, seed, items=10))
        low, high = np.quantile(Replays.of(table, 100, seed).played, [0.025, 0.975], axis=0)
        inside += sum(low[i] <= truth[name] <= high[i] for i, name in enumerate(table.names))
    assert inside < 0.2 * SEEDS * len(LADDER)


def test_the_ranking_is_recovered() -> None:
    right = {"elo": 0, "bradley-terry": 0}
    for seed in range(SEEDS):
        found = ratings(simulate(LADDER, seed, items=30), orders=20, seed=seed)
        right["elo"] += [r.contestant for r in found] == list("ABCD")
        right["bradley-terry"] += sorted(
            "ABCD", key=lambda n: -{r.contestant: r.bradley_terry or 0 for r in found}[n]
        ) == list("ABCD")
    assert min(right.values()) >= 93


@pytest.mark.parametrize(
    ("how", "as_if_alone"),
    [
        pytest.param({"items": 15}, False, id="one voter"),
        pytest.param({"items": 12, "voters": 3, "luck": 200.0}, False, id="three voters before lucky samples"),
        pytest.param({"items": 12, "voters": 3, "luck": 200.0}, True, id="the same taken for independent votes"),
    ],
)
def test_equals_have_no_winner_unless_votes_on_one_item_are_taken_for_independent(
    how: dict[str, Any], as_if_alone: bool
) -> None:
    won = 0
    for seed in range(SEEDS):
        games = simulate(EQUAL, 500 + seed, **how)
        if as_if_alone:
            games = [Game(g.a, g.b, g.score, g.voter, f"{i}") for i, g in enumerate(games)]
        won += any(d.apart for d in differences(games, orders=FEW, seed=seed))
    print(f"of {SEEDS} seeds, somebody ahead in {won}")
    assert won > 25 if as_if_alone else won <= 9


def test_the_design_effect_is_that_of_voters_who_all_answer_alike() -> None:
    rng = np.random.default_rng(0)
    alike = [
        Game("A", "B", score, f"{v}", f"{i}") for i, score in enumerate(rng.integers(2, size=200)) for v in range(4)
    ]
    assert design_effect(Table.of(alike)) == pytest.approx(4, rel=0.05)
    assert design_effect(Table.of(simulate(EQUAL, 0, items=100, voters=4))) == pytest.approx(1, abs=0.2)
    assert design_effect(Table.of(votes("wwlltwl"))) == 1
    assert design_effect(Table.of([Game("A", "B", s, f"{s}", "one") for s in (0, 1, 1)])) == 1


# -- the order of votes, and who is named first


def test_shuffled_votes_give_the_same_numbers_and_another_seed_nearly_the_same() -> None:
    games = simulate(LADDER, 0, items=30)
    found = ratings(games)
    shuffled = [games[i] for i in np.random.default_rng(1).permutation(len(games))]
    turned = [Game(g.b, g.a, 1 - g.score, g.voter, g.item) for g in shuffled]
    assert ratings(shuffled) == ratings(turned) == found
    for one, other in zip(found, ratings(games, seed=1), strict=True):
        width = one.high - one.low
        assert one.elo == pytest.approx(other.elo, abs=0.02 * width)
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.1 * width)
    plain = elo_of(games)
    assert all(r.low < plain[r.contestant] < r.high for r in found)


# -- what to answer when there is little to say


def test_no_games() -> None:
    assert (ratings([]), differences([]), elo_of([]), groups([])) == ([], [], {}, [])
    assert votes_needed([]) is None


@pytest.mark.parametrize(
    ("game", "message"),
    [
        pytest.param(("A", "A", 1), "got 'A' twice", id="against itself"),
        pytest.param(("A", "B", 2), "not 2", id="a score of 2"),
        pytest.param(("A", "B", -1), "not -1", id="a score of -1"),
        pytest.param(("A", "B", math.nan), "not nan", id="no score"),
    ],
)
def test_an_invalid_game(game: tuple[str, str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Game(*game, "v", "i")


def test_one_order_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 orders"):
        ratings(votes("w"), orders=1)


@pytest.mark.parametrize(
    "answers",
    [pytest.param("w", id="one vote"), pytest.param("wwww", id="unbeaten"), pytest.param("t" * 9, id="ties only")],
)
def test_few_votes_and_votes_that_are_all_alike_leave_a_wide_interval(answers: str) -> None:
    a, b = ratings(votes(answers))
    assert (a.games, a.wins, a.ties, b.wins) == (len(answers), answers.count("w"), answers.count("t"), 0)
    assert a.low < START < a.high
    assert a.low <= a.elo <= a.high
    assert a.bradley_terry_low is not None
    assert a.bradley_terry_high is not None
    assert a.bradley_terry_low < START < a.bradley_terry_high
    assert not differences(votes(answers))[0].apart


def test_an_unbeaten_contestant_is_ahead_in_time() -> None:
    assert differences(votes("w" * 10))[0].apart


def test_contestants_who_never_met() -> None:
    games = [*votes("wwwwwwwwwwww"), *votes("wlwlwlwlwlwl", "X", "Y"), *votes("wl", "A", "C")]
    assert groups(games) == [["A", "B", "C"], ["X", "Y"]]
    found = {r.contestant: r for r in ratings(games)}
    for group in groups(games):
        assert np.mean([found[name].elo for name in group]) == pytest.approx(START)
        assert np.mean([found[name].bradley_terry or 0 for name in group]) == pytest.approx(START)
    assert {(d.a, d.b) for d in differences(games)} == {("A", "B"), ("A", "C"), ("C", "B"), ("X", "Y")}


def test_groups_grow_together() -> None:
    games = [*votes("w", "A", "B"), *votes("w", "C", "D"), *votes("w", "D", "A"), *votes("w", "E", "F")]
    assert groups(games) == [["A", "B", "C", "D"], ["E", "F"]]


def test_differences_have_intervals_of_their_own_and_wider_ones_together() -> None:
    games = simulate(LADDER, 3, items=20)
    found, alone = differences(games), differences(games, together=False)
    elo = {r.contestant: r.elo for r in ratings(games)}
    assert [d.elo for d in found] == sorted((d.elo for d in found), reverse=True)
    assert all(d.elo == pytest.approx(elo[d.a] - elo[d.b]) and d.low <= d.elo <= d.high for d in found)
    assert all(t.high - t.low > 1.2 * a.high - 1.2 * a.low for t, a in zip(found, alone, strict=True))
    assert Difference("A", "B", 1.0, -1.0, 3.0).apart is False


# -- votes needed


@pytest.mark.parametrize(
    ("wins", "losses", "power", "wanted"),
    [
        pytest.param(0.45, 0.05, 0.8, 23, id="Connor's formula at 0.45 and 0.05, as powerandsamplesize.com has it"),
        pytest.param(0.05, 0.45, 0.8, 23, id="the same for the loser"),
        pytest.param(0.55, 0.45, 0.8, 783, id="55 to 45: (1.95996 + 0.84162 sqrt(0.99))^2 / 0.01 = 782.6"),
        pytest.param(0.50, 0.40, 0.8, 705, id="a tenth of ties takes fewer for the same lead"),
        pytest.param(1.0, 0.0, 0.8, 4, id="1.96^2"),
    ],
)
def test_votes_for(wins: float, losses: float, power: float, wanted: int) -> None:
    assert math.ceil(votes_for(wins, losses, power=power)) == wanted


def test_votes_for_have_the_power_they_promise() -> None:
    rng, z = np.random.default_rng(0), NormalDist().inv_cdf(0.975)
    for wins, losses in ((0.5, 0.3), (0.6, 0.4), (0.2, 0.1)):
        votes = math.ceil(votes_for(wins, losses))
        won, lost, _ = rng.multinomial(votes, [wins, losses, 1 - wins - losses], size=20_000).T
        significant = abs(won - lost) > z * np.sqrt(won + lost)
        assert significant.mean() == pytest.approx(0.8, abs=0.03)
    assert math.isinf(votes_for(0.4, 0.4))


@pytest.mark.parametrize(
    ("games", "wanted"),
    [
        pytest.param(votes("w" * 30), 0, id="apart already"),
        pytest.param(votes("wl" * 10), None, id="won equally often"),
        pytest.param(votes("t" * 10), None, id="ties only"),
        pytest.param(
            [*votes("w" * 9), *votes("w" * 9, "X", "Y")], None, id="leaders who never met, even through others"
        ),
        pytest.param(
            [*votes("w" * 9, "A", "Z"), *votes("w" * 8, "B", "Z")], None, id="leaders who met through others only"
        ),
        # (14, 10, 0) of 24: lead 1/6, (1.95996 + 0.84162 sqrt(35/36))^2 * 36 = 280.2
        pytest.param(votes("w" * 12 + "l" * 8), 281 - 20, id="12 to 8"),
        # (14, 10, 10) of 34: untied 24/34, lead 4/34: (1.95996 sqrt(.705882) + 0.84162 sqrt(.692042))^2 * 72.25 = 397.9
        pytest.param(votes("w" * 12 + "l" * 8 + "t" * 10), 398 - 30, id="12 to 8 and 10 ties"),
    ],
)
def test_votes_needed(games: list[Game], wanted: int | None) -> None:
    assert votes_needed(games) == wanted


def test_the_predicted_number_of_votes_separates_the_leaders() -> None:
    so_far = votes("w" * 56 + "l" * 40 + "t" * 20)
    more = votes_needed(so_far)
    assert more is not None
    assert more > 50
    significant = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        then = "".join(rng.choice(list("wlt"), size=more, p=[56 / 116, 40 / 116, 20 / 116]))
        games = so_far + [Game(g.a, g.b, g.score, g.voter, f"later {g.item}") for g in votes(then)]
        significant += differences(games, orders=100, seed=seed, together=False)[0].apart
    assert 0.7 * 60 <= significant <= 0.98 * 60


# -- what it needs


def test_the_base_install_rates_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    games = simulate(LADDER, 0, items=10)
    with_it = ratings(games)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    without_it = ratings(games)
    assert [r.bradley_terry for r in without_it] == [None] * 4
    assert [(r.contestant, r.elo, r.low) for r in without_it] == [(r.contestant, r.elo, r.low) for r in with_it]


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'sklearn', 'scipy', 'torch', 'pandas'}"
    code = f"import sys, curate.voting.elo, curate.voting.voters; print({heavy} & {{m.split('.')[0] for m in sys.modules}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
