"""Shot boundaries, and a score of detected boundaries against a known truth.

Frames count from 0. A hard cut at f: frame f is the first of the new shot (start == end == f). A gradual transition covers the frames
[start, end), none of which belongs to either shot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["hard", "dissolve", "fade", "wipe"]
NEAR_FRAMES = 2
"""Maximum distance, in frames, at which a hard cut counts as found."""
TRUTH_KINDS = {"cut": "hard", "dissolve": "dissolve", "fadeblack": "fade", "fadewhite": "fade", "wipeleft": "wipe"}
"""Kinds by their names in the truth of the reels (make_reel.py). Other names that begin with `wipe` are wipes; all others stay as they are."""


@dataclass(frozen=True)
class Boundary:
    """The boundary between two shots."""

    kind: Kind
    start: int
    """First frame that is not purely the old shot."""
    end: int
    """First frame of the new shot."""
    confidence: float
    """[0, 1]. Reported boundaries have at least 0.5 by default."""
    detector: str
    """Name of the detector."""


@dataclass(frozen=True)
class Score:
    """Agreement of detected boundaries with a truth.

    `found` and `made`: detected and existing transitions of each kind of the truth. `n_reported`: number of detected boundaries. `false_alarms`:
    boundaries that match no transition. `missed`: (kind, start, end) of transitions that were not detected.
    """

    found: dict[str, int]
    made: dict[str, int]
    n_reported: int
    false_alarms: tuple[Boundary, ...]
    missed: tuple[tuple[str, int, int], ...]

    def __add__(self, other: "Score") -> "Score":
        kinds = sorted(self.made.keys() | other.made.keys())
        return Score(
            {kind: self.found.get(kind, 0) + other.found.get(kind, 0) for kind in kinds},
            {kind: self.made.get(kind, 0) + other.made.get(kind, 0) for kind in kinds},
            self.n_reported + other.n_reported,
            self.false_alarms + other.false_alarms,
            self.missed + other.missed,
        )

    @property
    def precision(self) -> float:
        """Share of the reported boundaries that are true; 1 when none was reported."""
        return 1 - len(self.false_alarms) / self.n_reported if self.n_reported else 1.0

    @property
    def recall(self) -> float:
        """Share of the transitions that were found; 1 when there is no transition."""
        made = sum(self.made.values())
        return sum(self.found.values()) / made if made else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def score(found: Sequence[Boundary], truth: Sequence[dict[str, Any]]) -> Score:
    """Matches boundaries one to one with a truth of `{"type", "start", "end"}`.

    A hard cut matches a boundary that covers it, or that begins or ends within 2 frames of it. A gradual transition matches a boundary that
    overlaps it, also a hard cut inside it. A second boundary on the same transition is a false alarm.
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
    """Distance in frames between the middles of a boundary and the transition [start, end); None when they do not match."""
    slack = NEAR_FRAMES if start == end else 0
    if boundary.start == boundary.end:
        fits = start - slack <= boundary.start <= end + slack
    else:
        fits = boundary.start <= end + slack and boundary.end >= start - slack
        fits = fits and (start == end or (boundary.start < end and boundary.end > start))
    return abs(boundary.start + boundary.end - start - end) / 2 if fits else None
