"""The clock of a decode, as a table: timestamps in, times and durations out."""

import pytest

from curate.video.clock import Clock

STEP_S = 0.04


def shown(
    times_s: list[float | None],
    durations_s: float | list[float] = STEP_S,
    promised_s: float | None = None,
    is_stream: bool = False,
) -> list[tuple[float, float, str | None]]:
    clock = Clock(STEP_S, promised_s, is_stream)
    stated = durations_s if isinstance(durations_s, list) else [durations_s] * len(times_s)
    pictures = [clock.show(t_s, d_s) for t_s, d_s in zip(times_s, stated, strict=True)]
    return [(round(p.t_s, 4), round(p.duration_s, 4), p.broke) for p in pictures]


@pytest.mark.parametrize(
    ("options", "times_s", "ends_s"),
    [
        pytest.param({"times_s": [0, 0.04, 0.08]}, [0, 0.04, 0.08], 0.12, id="even"),
        pytest.param({"times_s": [0, 0.5, 0.54]}, [0, 0.5, 0.54], 0.58, id="a gap is kept"),
        pytest.param({"times_s": [None, None, None]}, [0, 0.04, 0.08], 0.12, id="without timestamps"),
        pytest.param({"times_s": [0, 0.04, 0.04, 0.12]}, [0, 0.04, 0.045, 0.12], 0.16, id="a time twice"),
        pytest.param({"times_s": [0, 0.04, 0.03, 0.12]}, [0, 0.04, 0.045, 0.12], 0.16, id="a small step back"),
        pytest.param(
            {"times_s": [0, 0.04, 0.08], "durations_s": 1.0}, [0, 0.04, 0.08], 0.12, id="a wrong rate in the header"
        ),
        pytest.param(
            {"times_s": [0, 1, 2], "durations_s": [1.0, 1.0, 5.0]}, [0, 1, 2], 7.0, id="a last picture that stays"
        ),
        pytest.param(
            {"times_s": [0, 1], "durations_s": [1.0, 1e6], "promised_s": 2.5},
            [0, 1],
            2.5,
            id="a last picture without an end",
        ),
        pytest.param({"times_s": [0, 0.04, 50.0]}, [0, 0.04, 50.0], 50.04, id="a long gap, in a file"),
    ],
)
def test_times_are_monotonic(options: dict[str, object], times_s: list[float], ends_s: float) -> None:
    pictures = shown(**options)  # type: ignore[arg-type]
    assert [t_s for t_s, _, _ in pictures] == pytest.approx(times_s)
    assert sum(pictures[-1][:2]) == pytest.approx(ends_s)
    assert {broke for _, _, broke in pictures} == {None}


@pytest.mark.parametrize(
    ("times_s", "broke"),
    [
        pytest.param([7.0, 7.04, 0.0, 0.04], "the timestamps restart", id="restart"),
        pytest.param([0.0, 0.04, 5000.0, 5000.04], "the timestamps jump", id="jump"),
    ],
)
def test_a_broken_clock_continues_without_a_gap(times_s: list[float | None], broke: str) -> None:
    pictures = shown(times_s, is_stream=True)
    begin_s = times_s[0] or 0.0
    assert [t_s for t_s, _, _ in pictures] == pytest.approx([begin_s + STEP_S * i for i in range(4)])
    assert [what for _, _, what in pictures] == [None, None, broke, None]


def test_a_gap_after_regular_steps_is_detected_in_streams_only() -> None:
    times_s = [STEP_S * i for i in range(20)] + [STEP_S * 23]
    for is_stream in (True, False):
        clock = Clock(STEP_S, None, is_stream)
        *_, last = [clock.show(t_s, STEP_S) for t_s in times_s]
        assert (last.steps, last.even) == (pytest.approx(4.0), is_stream)
