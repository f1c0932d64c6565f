"""The score of boundaries against a truth: which count as found, which as false alarms."""

import pytest

from curate.cuts.boundary import Boundary, score


def hard(f: int) -> Boundary:
    return Boundary("hard", f, f, 1.0, "test")


def gradual(start: int, end: int) -> Boundary:
    return Boundary("dissolve", start, end, 1.0, "test")


CUT = [{"type": "cut", "start": 100, "end": 100}]
DISSOLVE = [{"type": "dissolve", "start": 100, "end": 120}]


@pytest.mark.parametrize(
    ("found", "truth", "hits", "false"),
    [
        pytest.param([hard(100)], CUT, 1, 0, id="cut on the frame"),
        pytest.param([hard(102)], CUT, 1, 0, id="cut 2 frames off"),
        pytest.param([hard(103)], CUT, 0, 1, id="cut 3 frames off"),
        pytest.param([gradual(95, 105)], CUT, 1, 0, id="a cut that is taken for a dissolve"),
        pytest.param([gradual(110, 120)], CUT, 0, 1, id="a dissolve elsewhere"),
        pytest.param([gradual(102, 118)], DISSOLVE, 1, 0, id="dissolve inside"),
        pytest.param([gradual(119, 140)], DISSOLVE, 1, 0, id="dissolve that overlaps by a frame"),
        pytest.param([gradual(120, 140)], DISSOLVE, 0, 1, id="dissolve that only touches"),
        pytest.param([hard(110)], DISSOLVE, 1, 0, id="a cut inside a dissolve"),
        pytest.param([hard(105), hard(115)], DISSOLVE, 1, 1, id="a second boundary on one transition"),
        pytest.param([hard(100), gradual(100, 120)], DISSOLVE, 1, 1, id="two of two kinds on one transition"),
        pytest.param([], DISSOLVE, 0, 0, id="nothing reported"),
        pytest.param([hard(5)], [], 0, 1, id="nothing there"),
    ],
)
def test_matches_and_false_alarms(found: list[Boundary], truth: list[dict[str, object]], hits: int, false: int) -> None:
    result = score(found, truth)
    assert sum(result.found.values()) == hits
    assert len(result.false_alarms) == false
    assert len(result.missed) == len(truth) - hits


def test_rates_and_sums() -> None:
    one = score([hard(100), hard(300)], [*CUT, {"type": "wipeleft", "start": 400, "end": 410}])
    assert (one.precision, one.recall, one.f1) == (0.5, 0.5, 0.5)
    assert one.made == {"hard": 1, "wipe": 1}
    both = one + score([gradual(1, 9)], [{"type": "fadeblack", "start": 0, "end": 8}])
    assert (both.n_reported, both.made) == (3, {"hard": 1, "wipe": 1, "fade": 1})
    assert both.precision == pytest.approx(2 / 3)
    assert both.recall == pytest.approx(2 / 3)
    assert score([], []).f1 == 1.0


def test_two_cuts_close_together_each_take_the_nearer_boundary() -> None:
    truth = [{"type": "cut", "start": f, "end": f} for f in (100, 103)]
    result = score([hard(101), hard(103)], truth)
    assert result.false_alarms == ()
    assert result.found == {"hard": 2}
