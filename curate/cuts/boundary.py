"""A shot boundary, with its evidence, and how well boundaries agree with a known truth.

Frames count from 0. A hard cut at f: frame f is the first of the new shot (start == end == f). A gradual transition covers the frames
[start, end): none of them belongs to either shot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["hard", "dissolve", "fade", "wipe"]
NEAR_FRAMES = 2
"""A hard cut counts as found within so many frames."""
TRUTH_KINDS = {"cut": "hard", "dissolve": "dissolve", "fadeblack": "fade", "fadewhite": "fade", "wipeleft": "wipe"}
"""How the reels' truth (make_reel.py) names the kinds; any other `wipe...` is a wipe, any other name stands for itself."""


@dataclass(frozen=True)
class Boundary:
    """Where one shot ends and the next begins."""

    kind: Kind
    start: int
    """First frame that is no longer purely the old shot."""
    end: int
    """First frame of the new shot."""
    confidence: float
    """[0, 1]: how sure the detector is; what it reports is at least .5 sure."""
    detector: str
    """Which detector spoke."""


@dataclass(frozen=True)
class Score:
    """Agreement of found boundaries with a truth. `found` and `made` are counted per kind of the truth; `false_alarms` fit no transition."""

    found: dict[str, int]
    made: dict[str, int]
    said: int
    false_alarms: tuple[Boundary, ...]
    missed: tuple[tuple[str, int, int], ...]

    def __add__(self, other: "Score") -> "Score":
        kinds = sorted(self.made.keys() | other.made.keys())
        return Score(
            {kind: self.found.get(kind, 0) + other.found.get(kind, 0) for kind in kinds},
            {kind: self.made.get(kind, 0) + other.made.get(kind, 0) for kind in kinds},
            self.said + other.said,
            self.false_alarms + other.false_alarms,
            self.missed + other.missed,
        )

    @property
    def precision(self) -> float:
        """Share of what was said that is true; 1 when nothing was said."""
        return 1 - len(self.false_alarms) / self.said if self.said else 1.0

    @property
    def recall(self) -> float:
        """Share of the transitions that were found; 1 when there was none."""
        made = sum(self.made.values())
        return sum(self.found.values()) / made if made else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def score(found: Sequence[Boundary], truth: Sequence[dict[str, Any]]) -> Score:
    """Compares boundaries with a truth of `{"type", "start", "end"}`, one to one.

    A hard cut is found by a boundary that begins or ends within 2 frames of it or covers it, a gradual transition by one that overlaps it (a
    hard cut inside it, too). A second boundary on the same transition is a false alarm.
    """
    left = sorted(found, key=lambda b: (b.start, b.end))
    hits: dict[str, int] = {}
    made: dict[str, int] = {}
    missed: list[tuple[str, int, int]] = []
    for item in sorted(truth, key=lambda t: (t["start"], t["end"])):
        kind = TRUTH_KINDS.get(item["type"], "wipe" if item["type"].startswith("wipe") else item["type"])
        made[kind] = made.get(kind, 0) + 1
        near = [b for b in left if _distance(b, item["start"], item["end"]) is not None]
        if near:
            left.remove(min(near, key=lambda b: _distance(b, item["start"], item["end"]) or 0.0))
        else:
            missed.append((item["type"], item["start"], item["end"]))
        hits[kind] = hits.get(kind, 0) + bool(near)
    return Score(hits, made, len(found), tuple(left), tuple(missed))


def _distance(boundary: Boundary, start: int, end: int) -> float | None:
    """None when the boundary does not fit the transition [start, end), else how far apart their middles are."""
    slack = NEAR_FRAMES if start == end else 0
    if boundary.start == boundary.end:
        fits = start - slack <= boundary.start <= end + slack
    else:
        fits = boundary.start <= end + slack and boundary.end >= start - slack
        fits = fits and (start == end or (boundary.start < end and boundary.end > start))
    return abs(boundary.start + boundary.end - start - end) / 2 if fits else None
