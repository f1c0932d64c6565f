"""The clipping rules: the boundaries of a window divide it into spans, which are clips or skipped.

Each frame of the window belongs to exactly one span, so the ledger can account for every second. A transition is a span of its own; none of its
frames is in a clip.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from curate.config.config import ScanConfig
from curate.cuts.boundary import Boundary

GUARD_FRAMES = 1
"""Frames skipped on each side of a gradual transition, whose first and last frames differ too little from the shot to be detected. Ours."""


@dataclass(frozen=True)
class End:
    """One end of a span. `kind`: edge (of the source), window, length (a long shot was divided), keyframe, or a boundary's kind."""

    kind: str
    confidence: float | None = None
    detector: str | None = None


@dataclass(frozen=True)
class Span:
    """Frames [first, stop) of a window. `skip`: None for a clip, else why the span is not a clip: transition, too_short, or unaligned."""

    first: int
    stop: int
    start: End
    end: End
    skip: str | None = None


def spans(
    times_s: Sequence[float],
    keys: Sequence[int],
    boundaries: Sequence[Boundary],
    ends: tuple[str, str],
    config: ScanConfig,
) -> Iterator[Span]:
    """Divides a window of n frames into spans.

    Args:
        times_s: n + 1 times: the start of each frame, and the end of the last one.
        keys: indices of the keyframes, ascending.
        boundaries: in order, with frames counted from the window's first; they may extend beyond the window.
        ends: the kinds of the window's two ends.
        config: minimum and maximum length, division of long shots, alignment.
    """
    n = len(times_s) - 1
    first, start = 0, End(ends[0])
    for boundary in boundaries:
        guard = GUARD_FRAMES if boundary.end > boundary.start else 0
        a, b = max(first, boundary.start - guard), min(n, boundary.end + guard)
        if b < a or (a == b and not 0 < a < n):
            continue
        here = End(boundary.kind, boundary.confidence, boundary.detector)
        if a > first:
            yield from _shot(times_s, keys, first, a, start, here, config)
        if b > a:
            yield Span(a, b, here, here, "transition")
        first, start = b, here
    if first < n:
        yield from _shot(times_s, keys, first, n, start, End(ends[1]), config)


def _shot(
    times_s: Sequence[float], keys: Sequence[int], first: int, stop: int, start: End, end: End, config: ScanConfig
) -> Iterator[Span]:
    """Divides one shot into clips: shrinks it to keyframes if `align` says so, and splits it when it is too long."""
    low, high = first, stop
    inside = keys[bisect_left(keys, first) : bisect_right(keys, stop)]
    if config.align == "keyframe":
        # A clip may end at the end of the source as well as at a keyframe.
        outs = [*inside, stop] if end.kind == "edge" and stop not in inside else inside
        if len(outs) < 2 or not inside or inside[0] >= outs[-1]:
            yield Span(first, stop, start, end, "unaligned")
            return
        low, high = inside[0], outs[-1]
    inner = _divided(times_s, inside if config.align == "keyframe" else None, low, high, config)
    edges = sorted({low, *inner, high})
    if low > first:
        yield Span(first, low, start, End("keyframe"), "unaligned")
    for a, b in pairwise(edges):
        length_s = times_s[b] - times_s[a]
        skip = "too_short" if length_s < config.min_clip_s - 1e-6 else None
        if config.align == "keyframe" and length_s > config.max_clip_s + 1e-6:
            skip = "unaligned"  # no keyframe at which it could be divided
        yield Span(
            a,
            b,
            start if a == first else End("keyframe" if a == low else "length"),
            end if b == stop else End("keyframe" if b == high else "length"),
            skip,
        )
    if high < stop:
        yield Span(high, stop, End("keyframe"), end, "unaligned")


def _divided(
    times_s: Sequence[float], keys: Sequence[int] | None, low: int, high: int, config: ScanConfig
) -> list[int]:
    """Frames at which to divide a shot longer than the maximum: into equal parts, or every `max_clip_s`; only at the frames `keys`, if given."""
    length_s = times_s[high] - times_s[low]
    parts = math.ceil(length_s / config.max_clip_s - 1e-6)
    step_s = length_s / parts if config.long_shots == "even" else config.max_clip_s
    if parts < 2:
        return []
    if keys is None:
        aims = [times_s[low] + step_s * k - 1e-6 for k in range(1, parts)]
        return [bisect_left(times_s, aim) for aim in aims]
    found, at = [], low
    while times_s[high] - times_s[at] > config.max_clip_s + 1e-6:
        later = [k for k in keys if k > at and k < high]
        near = [k for k in later if times_s[k] - times_s[at] <= config.max_clip_s + 1e-6]
        if not later:
            break
        at = min(near, key=lambda k: abs(times_s[k] - times_s[at] - step_s)) if near else later[0]
        found.append(at)
    return found
