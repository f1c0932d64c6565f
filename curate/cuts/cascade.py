"""The default detector of shot boundaries, and the interface of detectors: they receive the frames of the scan's single decode.

A detector is a dataclass whose fields are its options, with these methods:

    setup()                 loads weights, once per worker
    begin(fps)              starts a new source or window
    push(frame, small)      takes the next frame: the decoder's, and a small version (curate/cuts/signals.py)
    finish() -> boundaries  returns the boundaries in order; frames count from the first one pushed

`Cascade` is the default; `PySceneDetect` uses that package's detectors only.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from curate.cuts.boundary import Boundary
from curate.cuts.fade import all_blank, fades, is_blank
from curate.cuts.gradual import gradual_cuts
from curate.cuts.hard import hard_cuts
from curate.cuts.pyscenedetect import Name, PySceneDetect
from curate.cuts.signals import Recorder, Small, Stretch, pictures_of
from curate.cuts.transnet import REACH, TransNetV2, rgb_of
from curate.video.open import Frame

__all__ = ["Cascade", "Detector", "PySceneDetect"]

SLAB = 8192
"""Frames after which the cascade decides on boundaries and drops the frames, which limits its memory to 40 MB. Ours."""
OVERLAP = 512
"""Frames that two slabs share, so that a transition at their border is complete in one of them."""
BESIDE = 2
"""Maximum distance, in frames, at which a hard cut beside a fade counts as part of it."""
NO_SHOT = 4
"""Two boundaries, one of them gradual, with at most this many frames between them are merged. Ours."""
DOUBT = (0.1, 0.9)
"""Between these confidences a boundary is doubtful, and the optional detectors are asked."""
EVEN_ODDS = 0.25
"""TransNetV2's output that counts as undecided: it gives low values to real cuts between similar pictures. Ours."""


class Detector(Protocol):
    """The interface of a cut detector."""

    def setup(self) -> None:
        """Loads weights, once per worker."""

    def begin(self, fps: float) -> None:
        """Starts a new source or window."""

    def push(self, frame: Frame, small: Small) -> None:
        """Takes the next frame."""

    def finish(self) -> list[Boundary]:
        """Returns all boundaries, in order."""


@dataclass
class Cascade:
    """Hard cuts, dissolves, fades through black or white, and wipes, from one pass over small pictures.

    It detects fades first, then hard cuts between them, then dissolves and wipes between those; a "cut" inside a gradual transition is part of
    it. benchmarks/scan.py compares its quality and cost with PySceneDetect and TransNetV2.
    """

    least_confidence: float = 0.5
    """Minimum confidence of a boundary. A lower value gives more boundaries, and more false ones."""
    gradual: bool = True
    """Whether to detect dissolves, fades and wipes."""
    voice: Name | None = None
    """A PySceneDetect detector that is asked about doubtful hard cuts. Costs more than the rest of the cascade."""
    weights: str | None = None
    """Weights of TransNetV2 (`curate.cuts.transnet.WEIGHTS`), which is asked about doubtful boundaries. Needs torch."""
    weights_share: float = 0.02
    """Maximum share of the frames that TransNetV2 processes; the most doubtful boundaries come first."""
    columns: ClassVar[dict[str, Any]] = {}
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not DOUBT[0] <= self.least_confidence <= DOUBT[1]:
            raise ValueError(f"least_confidence must be between {DOUBT[0]} and {DOUBT[1]}")
        self._net: TransNetV2 | None = None

    def setup(self) -> None:
        """Loads TransNetV2, if `weights` is set."""
        if self.weights is not None:
            self._net = TransNetV2(self.weights)

    def begin(self, fps: float) -> None:
        """Starts a new source or window."""
        self._fps = fps
        self._recorder = Recorder()
        self._settled = 0
        self._found: list[Boundary] = []
        self._blank_since: int | None = None

    def push(self, frame: Frame, small: Small) -> None:
        """Takes the next frame."""
        self._recorder.push(small)
        if self._recorder.n == SLAB:
            self._settle(SLAB - OVERLAP // 2)
            self._recorder.drop(SLAB - OVERLAP)

    def finish(self) -> list[Boundary]:
        """Returns all boundaries, in order."""
        self._settle(self._recorder.n)
        return self._found

    def _settle(self, upto: int) -> None:
        """Accepts the boundaries that end in the kept frames up to `upto`. Later ones are detected again with the next slab."""
        first, n = self._recorder.first, self._recorder.n
        blank_since, self._blank_since = self._blank_since, None
        stretch = self._recorder.stretch()
        found = self.detect(stretch, self._fps)
        if blank_since is not None and not (found and found[0].start == 0) and all_blank(stretch):
            found = [Boundary("fade", 0, n, 1.0, "blank")]  # all blank, and it was blank before
        for b in found:
            start, end = b.start + first, b.end + first
            if b.start == 0 and blank_since is not None:
                start = blank_since  # the blank began in an earlier slab
            if b.end > upto:
                if b.end == n:
                    self._blank_since = start
            elif end > self._settled:
                self._found.append(replace(b, start=start, end=end))
        self._settled = first + upto

    def detect(self, stretch: Stretch, fps: float) -> list[Boundary]:
        """Returns all boundaries of a stretch of small pictures."""
        if len(stretch) < 2:
            return []
        cells = stretch.cells()
        asked = self.voice is not None or self._net is not None
        least = DOUBT[0] if asked else self.least_confidence
        faded = fades(stretch, cells, fps) if self.gradual else []
        hard = [b for b in hard_cuts(stretch, cells, least) if not _beside(b, faded)]
        if asked:
            hard = self._with_votes(hard, stretch, fps)
        if not self.gradual:
            return hard
        walls = sorted((b.start, b.end) for b in [*faded, *hard])
        stride = max(1, round(fps / 30))
        mixed = gradual_cuts(stretch, cells, walls, stride, self.least_confidence)
        if asked:
            walls = sorted((b.start, b.end) for b in [*faded, *hard, *mixed])
            mixed += self._with_votes(gradual_cuts(stretch, cells, walls, stride, least), stretch, fps)
        # A dissolve into a lasting black picture, which may have a title on it, is a fade.
        edges = [(max(0, b.start - 1), min(b.end, len(cells) - 1)) for b in mixed]
        mixed = [
            replace(b, kind="fade") if is_blank(cells[before]) or is_blank(cells[after]) else b
            for b, (before, after) in zip(mixed, edges, strict=True)
        ]
        return _merged([*faded, *mixed], hard)

    def _with_votes(self, candidates: Sequence[Boundary], stretch: Stretch, fps: float) -> list[Boundary]:
        """The candidates above the minimum confidence, after the votes of the optional detectors on the doubtful ones."""
        doubtful = [b for b in candidates if DOUBT[0] <= b.confidence <= DOUBT[1]]
        votes: dict[Boundary, tuple[float, str]] = {}
        doubtful_cuts = [b for b in doubtful if b.kind == "hard"]
        if doubtful_cuts and self.voice is not None:
            cuts = self._voice_cuts(stretch, fps)
            for b in doubtful_cuts:
                yes = any(b.start - BESIDE <= f <= b.end + BESIDE for f in cuts)
                votes[b] = (1.5 if yes else -0.5, f"pyscenedetect:{self.voice}")
        if self._net is not None:
            left = self.weights_share * len(stretch)
            for b in sorted(doubtful, key=lambda b: abs(b.confidence - 0.5)):
                low, high = max(0, b.start - REACH), min(len(stretch), b.end + REACH)
                left -= high - low
                if left < 0:
                    break
                part = Stretch(stretch.y[low:high], stretch.u[low:high], stretch.v[low:high])
                near = slice(max(0, b.start - BESIDE - 1 - low), b.end + BESIDE - low)
                probability = float(self._net(rgb_of(part))[near].max())
                before = votes.get(b, (0.0, ""))
                vote = min(3.0, max(-3.0, _logit(probability) - _logit(EVEN_ODDS)))
                votes[b] = (before[0] + vote, f"{before[1]}+transnetv2".lstrip("+"))
        accepted = []
        for b in candidates:
            if b in votes:
                vote, detector = votes[b]
                confidence = 1 / (1 + math.exp(-_logit(b.confidence) - vote))
                b = replace(b, confidence=round(confidence, 3), detector=f"{b.detector}+{detector}")
            if b.confidence >= self.least_confidence:
                accepted.append(b)
        return accepted

    def _voice_cuts(self, stretch: Stretch, fps: float) -> list[int]:
        voice = PySceneDetect(self.voice or "content")
        voice.begin(fps)
        for bgr_HWC in pictures_of(stretch, "bgr"):
            voice.look(bgr_HWC)
        return [b.start for b in voice.finish()]


def _logit(p: float) -> float:
    p = min(1 - 1e-6, max(1e-6, p))
    return math.log(p / (1 - p))


def _beside(cut: Boundary, gradual: Iterable[Boundary]) -> bool:
    return any(g.start - BESIDE <= cut.start <= g.end + BESIDE for g in gradual)


def _merged(gradual: Iterable[Boundary], hard: Iterable[Boundary]) -> list[Boundary]:
    """Merges a gradual transition with boundaries next to it; the part with the highest confidence gives the kind."""
    found: list[Boundary] = []
    for b in sorted([*gradual, *hard], key=lambda b: (b.start, b.end)):
        before = found[-1] if found else None
        if before is None or b.start - before.end > NO_SHOT or (before.kind == "hard" == b.kind):
            found.append(b)
            continue
        parts = [p for p in (before, b) if p.kind != "hard"]
        surest = max(parts, key=lambda p: p.confidence)
        found[-1] = replace(surest, start=before.start, end=max(before.end, b.end))
    return found
