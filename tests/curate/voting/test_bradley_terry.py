"""Bradley-Terry strengths, against published ones and closed forms."""

import math
import sys

import pytest

from curate.voting.bradley_terry import bradley_terry, strengths
from curate.voting.games import POINTS, START
from tests.curate.voting.simulated import simulate, votes

BASEBALL = {
    "Milwaukee": (0, 7, 9, 7, 7, 9, 11),
    "Detroit": (6, 0, 7, 5, 11, 9, 9),
    "Toronto": (4, 6, 0, 7, 7, 8, 12),
    "New York": (6, 8, 6, 0, 6, 7, 10),
    "Boston": (6, 2, 6, 7, 0, 7, 12),
    "Cleveland": (4, 4, 5, 6, 6, 0, 6),
    "Baltimore": (2, 4, 1, 3, 1, 7, 0),
}
"""Wins of each team over each, American League 1987 (Agresti, Categorical Data Analysis, 2nd edition, 2002, table 10.10)."""


def test_the_published_strengths_of_seven_baseball_teams() -> None:
    teams = list(BASEBALL)
    games = [
        g for a, wins in BASEBALL.items() for b, n in zip(teams, wins, strict=True) if n for g in votes("w" * n, a, b)
    ]
    found = bradley_terry(games, spread=1e5)
    log_odds = {team: (found[team] - found["Baltimore"]) / POINTS for team in teams}
    published = {
        "Milwaukee": 1.581,
        "Detroit": 1.436,
        "Toronto": 1.294,
        "New York": 1.248,
        "Boston": 1.108,
        "Cleveland": 0.684,
    }
    assert log_odds == pytest.approx({**published, "Baltimore": 0.0}, abs=0.001)


@pytest.mark.parametrize(
    ("answers", "difference"),
    [
        pytest.param("wwwl" * 100, 400 * math.log10(3), id="three wins of four are odds of 3"),
        pytest.param("wt" * 100, 400 * math.log10(3), id="a tie is half a win"),
        pytest.param("wlt" * 100, 0.0, id="equals"),
        pytest.param("l" * 10 + "w", -400, id="one of eleven"),
    ],
)
def test_two_contestants_in_closed_form(answers: str, difference: float) -> None:
    found = bradley_terry(votes(answers), spread=1e5)
    assert found["A"] - found["B"] == pytest.approx(difference, abs=0.1)
    assert found["A"] + found["B"] == pytest.approx(2 * START)


def test_the_interval_of_two_is_that_of_their_log_odds() -> None:
    """100 votes at 3 to 1: the standard error of log odds is 1/sqrt(100 * 0.75 * 0.25), and half of the difference is either's."""
    a, _ = strengths(votes("wwwl" * 25), spread=1e5)
    assert a.high - a.elo == pytest.approx(1.95996 * POINTS / math.sqrt(100 * 0.75 * 0.25) / 2, rel=1e-3)


def test_ties_tell_more_than_votes_that_cancel() -> None:
    tied, split = strengths(votes("wt" * 50))[0], strengths(votes("wwwl" * 25))[0]
    assert tied.elo == pytest.approx(split.elo)
    # A vote varies by 3/16 with no ties and by 3/16 - 1/8 with half of them ties; four untied votes are added to these.
    assert (tied.high - tied.low) / (split.high - split.low) == pytest.approx(math.sqrt(1 / 3), rel=0.07)


def test_an_unbeaten_contestant_stays_finite_and_uncertain() -> None:
    few, many = strengths(votes("ww"))[0], strengths(votes("w" * 50))[0]
    assert START < few.elo < many.elo < START + 1000
    assert few.low < START < many.low


def test_no_games() -> None:
    assert (bradley_terry([]), strengths([])) == ({}, [])


def test_regularisation_is_weak() -> None:
    games = simulate({"A": 1100.0, "B": 1000.0, "C": 900.0}, 0, items=100)
    assert bradley_terry(games) == pytest.approx(bradley_terry(games, spread=1e5), abs=1)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    for function in (bradley_terry, strengths):
        with pytest.raises(ImportError):
            function(votes("w"))
