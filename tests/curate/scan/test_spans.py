"""The clipping rules on windows at 25 fps: which spans are clips, which are skipped and why; no frame is lost."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config.config import ScanConfig
from curate.cuts.boundary import Boundary
from curate.scan.spans import Span, spans

FPS = 25


def divided(
    n: int,
    boundaries: list[Boundary],
    keys: list[int] | None = None,
    ends: tuple[str, str] = ("edge", "edge"),
    **options: object,
) -> list[Span]:
    times_s = [i / FPS for i in range(n + 1)]
    return list(spans(times_s, keys or [0], boundaries, ends, ScanConfig(**options)))  # type: ignore[arg-type]


def as_tuples(found: list[Span]) -> list[tuple[int, int, str, str, str | None]]:
    return [(s.first, s.stop, s.start.kind, s.end.kind, s.skip) for s in found]


def hard(f: int) -> Boundary:
    return Boundary("hard", f, f, 0.9, "ratio")


def fade(a: int, b: int) -> Boundary:
    return Boundary("fade", a, b, 0.8, "blank")


@pytest.mark.parametrize(
    ("n", "boundaries", "options", "expected"),
    [
        pytest.param(100, [], {}, [(0, 100, "edge", "edge", None)], id="one shot"),
        pytest.param(
            200,
            [hard(75)],
            {},
            [(0, 75, "edge", "hard", None), (75, 200, "hard", "edge", None)],
            id="a hard cut leaves nothing out",
        ),
        pytest.param(
            200,
            [fade(80, 100)],
            {},
            [(0, 79, "edge", "fade", None), (79, 101, "fade", "fade", "transition"), (101, 200, "fade", "edge", None)],
            id="a transition is cut away, a frame more on both sides",
        ),
        pytest.param(
            130,
            [hard(60), hard(80)],
            {},
            [(0, 60, "edge", "hard", None), (60, 80, "hard", "hard", "too_short"), (80, 130, "hard", "edge", None)],
            id="too short",
        ),
        pytest.param(
            625,
            [],
            {},
            [(0, 209, "edge", "length", None), (209, 417, "length", "length", None), (417, 625, "length", "edge", None)],
            id="even parts",
        ),
        pytest.param(
            625,
            [],
            {"long_shots": "stride"},
            [(0, 250, "edge", "length", None), (250, 500, "length", "length", None), (500, 625, "length", "edge", None)],
            id="stride",
        ),
        pytest.param(
            520,
            [],
            {"long_shots": "stride"},
            [(0, 250, "edge", "length", None), (250, 500, "length", "length", None), (500, 520, "length", "edge", "too_short")],
            id="stride with a short rest",
        ),
        pytest.param(
            100,
            [fade(-30, 10), fade(90, 140)],
            {},
            [(0, 11, "fade", "fade", "transition"), (11, 89, "fade", "fade", None), (89, 100, "fade", "fade", "transition")],
            id="transitions across the window's edges",
        ),
        pytest.param(100, [hard(-5), hard(0), hard(100), hard(120)], {}, [(0, 100, "edge", "edge", None)], id="beyond"),
    ],
)  # fmt: skip
def test_boundaries_and_lengths_divide_a_window(
    n: int, boundaries: list[Boundary], options: dict[str, object], expected: list[tuple[object, ...]]
) -> None:
    assert as_tuples(divided(n, boundaries, **options)) == expected


@pytest.mark.parametrize(
    ("n", "boundaries", "keys", "options", "expected"),
    [
        pytest.param(
            200,
            [hard(90)],
            [0, 50, 100, 150],
            {},
            [
                (0, 50, "edge", "keyframe", None),
                (50, 90, "keyframe", "hard", "unaligned"),
                (90, 100, "hard", "keyframe", "unaligned"),
                (100, 200, "keyframe", "edge", None),
            ],
            id="shrunk inwards; the end of the source is as good as a keyframe",
        ),
        pytest.param(
            200,
            [hard(100)],
            [0, 50, 100, 150],
            {},
            [(0, 100, "edge", "hard", None), (100, 200, "hard", "edge", None)],
            id="a cut on a keyframe loses nothing",
        ),
        pytest.param(
            200,
            [hard(60), hard(140)],
            [0, 100],
            {},
            [
                (0, 60, "edge", "hard", "unaligned"),
                (60, 140, "hard", "hard", "unaligned"),
                (140, 200, "hard", "edge", "unaligned"),
            ],
            id="no two keyframes",
        ),
        pytest.param(
            600,
            [],
            [0, 100, 200, 300, 400, 500],
            {},
            [
                (0, 200, "edge", "length", None),
                (200, 400, "length", "length", None),
                (400, 600, "length", "edge", None),
            ],
            id="long shots are divided at keyframes",
        ),
        pytest.param(
            600,
            [],
            [0, 300],
            {},
            [(0, 300, "edge", "length", "unaligned"), (300, 600, "length", "edge", "unaligned")],
            id="keyframes too far apart",
        ),
    ],
)
def test_alignment_to_keyframes(
    n: int, boundaries: list[Boundary], keys: list[int], options: dict[str, object], expected: list[tuple[object, ...]]
) -> None:
    assert as_tuples(divided(n, boundaries, keys, align="keyframe", **options)) == expected


def test_spans_carry_the_evidence_of_their_boundaries() -> None:
    first, transition, second = divided(200, [fade(80, 100)])
    assert first.end == transition.start == transition.end == second.start
    assert (first.end.confidence, first.end.detector) == (0.8, "blank")
    assert (first.start.confidence, first.start.detector) == (None, None)


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 900),
    cuts=st.lists(st.tuples(st.integers(-40, 940), st.integers(0, 60)), max_size=12),
    gop=st.integers(1, 200),
    align=st.sampled_from(["exact", "keyframe"]),
    long_shots=st.sampled_from(["even", "stride"]),
    ends=st.sampled_from([("edge", "edge"), ("window", "window"), ("window", "edge")]),
)
def test_every_frame_is_in_exactly_one_span(
    n: int, cuts: list[tuple[int, int]], gop: int, align: str, long_shots: str, ends: tuple[str, str]
) -> None:
    boundaries, at = [], -100
    for start, length in sorted(cuts):
        start = max(start, at + 1)
        at = start + length
        boundaries.append(Boundary("hard" if length == 0 else "dissolve", start, at, 0.9, "test"))
    keys = list(range(0, n, gop))
    found = divided(n, boundaries, keys, ends, align=align, long_shots=long_shots)
    assert found[0].first == 0
    assert found[-1].stop == n
    assert all(a.stop == b.first and a.first < a.stop for a, b in pairwise(found))
    for span in (s for s in found if s.skip is None):
        assert 2.0 - 1e-6 <= (span.stop - span.first) / FPS <= 10.0 + 1.0 / FPS
        for b in boundaries:
            inside = range(max(span.first, b.start), min(span.stop, b.end)) if b.end > b.start else ()
            assert not len(inside), "no frame of a transition is in a clip"
            if b.start == b.end:
                assert not span.first < b.start < span.stop, "no clip crosses a cut"
        if align == "keyframe":
            assert span.first in keys
            assert span.stop in keys or (span.stop == n and ends[1] == "edge")
