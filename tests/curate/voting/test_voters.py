"""Agreement between voters, and voters with suspicious answers."""

import numpy as np
import pytest

from curate.voting.games import Game
from curate.voting.voters import FLAG_P, Agreement, agreement, by_chance, flags, krippendorff, without

# -- agreement

PUBLISHED = (
    "* * * * * 3 4 1 2 1 1 3 3 * 3",
    "1 * 2 1 3 3 4 3 * * * * * * *",
    "* * 2 1 3 4 4 * 2 1 1 3 3 * 4",
)
"""Three coders, fifteen units, many unanswered: the worked example of Krippendorff's alpha, 0.811 for interval data."""


def test_the_published_alpha() -> None:
    coders = [line.split() for line in PUBLISHED]
    found = krippendorff([[float(v) for v in unit if v != "*"] for unit in zip(*coders, strict=True)])
    assert found == pytest.approx(0.811, abs=0.0005)


def answered(*comparisons: str) -> list[Game]:
    """One word per comparison, one letter per voter: `w`, `l`, `t`, or `.` who did not see it."""
    scores = {"w": 1.0, "l": 0.0, "t": 0.5}
    return [
        Game("A", "B", scores[letter], f"voter {v}", f"prompt {i}")
        for i, word in enumerate(comparisons)
        for v, letter in enumerate(word)
        if letter != "."
    ]


@pytest.mark.parametrize(
    ("games", "wanted"),
    [
        pytest.param([], Agreement(0, 0, None, None), id="no games"),
        pytest.param(answered("w.", ".l", "t."), Agreement(0, 0, None, None), id="no two saw the same"),
        pytest.param(answered("ww", "ll", "tt"), Agreement(3, 3, 1.0, 1.0), id="all equal"),
        # Nobody could tell this from 0 by chance in one direction only; counted from both sides it is agreement.
        pytest.param(answered("ww", "ww", "ww"), Agreement(3, 3, 1.0, 1.0), id="all equal, and always for the same"),
        pytest.param(answered("tt", "tt"), Agreement(2, 2, 1.0, None), id="ties only"),
        # Values w l l w (from both sides): observed 1, expected 2 * 2 * 2 / (4 * 3) = 2/3.
        pytest.param(answered("wl"), Agreement(1, 1, 0.0, -0.5), id="opposite"),
        # Three pairs, one equal. From both sides, with 3 answers each: observed (2*2/2) * 2 / 6 = 2/3, expected 2*3*3 / (6*5) = 3/5.
        pytest.param(answered("wwl"), Agreement(1, 3, 1 / 3, 1 - 2 / 3 / 0.6), id="three voters"),
        # 1, 1/2 and 0, 1/2: observed 1/4, expected (2 + 4 * 2 * 1/4) / 12 = 1/3.
        pytest.param(answered("wt"), Agreement(1, 1, 0.0, 1 - 0.25 * 3), id="a tie is a quarter of a disagreement"),
    ],
)
def test_agreement(games: list[Game], wanted: Agreement) -> None:
    found = agreement(games)
    assert (found.comparisons, found.pairs) == (wanted.comparisons, wanted.pairs)
    assert (found.equal, found.alpha) == (pytest.approx(wanted.equal), pytest.approx(wanted.alpha))


def test_agreement_does_not_depend_on_names() -> None:
    games = answered("wwl", "wtw", "lww", "ttw")
    turned = [
        Game("Z", "B", g.score, g.voter, g.item) if i % 2 else Game("B", "Z", 1 - g.score, g.voter, g.item)
        for i, g in enumerate(games)
    ]
    assert agreement(turned) == agreement(games)


def test_other_pairs_and_other_items_are_other_comparisons_and_the_last_answer_counts() -> None:
    games = [
        Game("A", "B", 1, "x", "1"),
        Game("A", "C", 1, "y", "1"),
        Game("A", "B", 1, "y", "2"),
        Game("B", "A", 1, "y", "1"),
        Game("B", "A", 0, "y", "1"),
    ]
    assert agreement(games) == Agreement(1, 1, 1.0, 1.0)


def test_voters_who_throw_coins_agree_by_chance() -> None:
    rng = np.random.default_rng(0)
    words = ["".join(row) for row in rng.choice(list("wlt"), p=[0.4, 0.4, 0.2], size=(2000, 3))]
    found = agreement(answered(*words))
    assert found.alpha == pytest.approx(0, abs=0.05)
    assert found.equal == pytest.approx(0.4**2 + 0.4**2 + 0.2**2, abs=0.03)


# -- flags


@pytest.mark.parametrize(
    ("left", "right", "ties", "message"),
    [
        pytest.param(24, 0, 0, "always left: 24 of 24 answers (p < 0.001 by chance)", id="always left"),
        pytest.param(
            0, 24, 6, "always right: 24 of 24 answers, 6 ties aside (p < 0.001 by chance)", id="always right, or a tie"
        ),
        pytest.param(28, 2, 0, "nearly always left: 28 of 30 answers (p < 0.001 by chance)", id="nearly always"),
        pytest.param(11, 0, 0, "always left: 11 of 11 answers (p < 0.001 by chance)", id="the minimum that tell"),
        pytest.param(10, 0, 0, None, id="10 of 10 happen to 2 in 1,000"),
        pytest.param(300, 200, 0, None, id="a lean is no habit"),
        pytest.param(12, 12, 0, None, id="honest"),
        pytest.param(0, 0, 12, "only ties: 12 of 12 answers", id="ties only"),
        pytest.param(0, 0, 9, None, id="few ties only"),
        pytest.param(1, 0, 40, None, id="nearly only ties"),
        pytest.param(
            4000, 100, 0, "nearly always left: 4000 of 4100 answers (p < 0.001 by chance)", id="numbers beyond a float"
        ),
    ],
)
def test_flags(left: int, right: int, ties: int, message: str | None) -> None:
    presses = [("ann", "left")] * left + [("ann", "right")] * right + [("ann", "tie")] * ties
    bob = [("bob", "left"), ("bob", "right")] * 20
    assert flags([*bob, *presses]) == ({"ann": message} if message else {})


def test_a_press_of_something_else() -> None:
    with pytest.raises(ValueError, match="left, right or tie, got 'Left'"):
        flags([("ann", "Left")])


@pytest.mark.parametrize(("more", "answers", "p"), [(5, 5, 1 / 16), (9, 10, 22 / 1024), (5, 10, 1.0), (0, 0, 1.0)])
def test_by_chance(more: int, answers: int, p: float) -> None:
    assert by_chance(more, answers) == pytest.approx(p)


def test_honest_voters_are_seldom_flagged() -> None:
    rng = np.random.default_rng(0)
    sides = np.array(["left", "right"])
    presses = [(f"{voter}", side) for voter in range(5000) for side in sides[rng.integers(2, size=20)].tolist()]
    assert len(flags(presses)) <= 5000 * FLAG_P * 1.5


def test_flagged_voters_are_not_dropped() -> None:
    games = answered("wl", "tl")
    assert {game.voter for game in without(games, ["voter 1"])} == {"voter 0"}
    assert without(games, flags([])) == games
