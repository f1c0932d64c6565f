"""PySceneDetect's detectors (0.7; Brandon Castellano), on the frames of the scan's single decode."""

import inspect
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from curate.cuts.boundary import Boundary
from curate.cuts.signals import Small
from curate.video.open import Frame

Name = Literal["adaptive", "content", "hash", "histogram", "threshold"]


def _detector(name: Name) -> Any:
    """The class of a detector. A lazy import: the package imports tqdm, which warns in a notebook without widgets."""
    from scenedetect import detectors

    return getattr(detectors, f"{name.capitalize()}Detector")


@dataclass
class PySceneDetect:
    """One of PySceneDetect's detectors. It finds hard cuts only; a dissolve that it notices becomes a cut in its middle.

    `options` are passed to the detector's constructor. Its minimum scene length is disabled, because the scan decides on clip lengths, and short
    shots must not be merged with their neighbours.
    """

    detector: Name = "content"
    options: dict[str, Any] = field(default_factory=dict)
    short_side_px: int = 64
    """Size of the compared pictures. Ours: at 256 px, the size of PySceneDetect's own downscaling, the scan finds no more and costs more than
    twice as much."""
    columns: ClassVar[dict[str, Any]] = {}
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        known = inspect.signature(_detector(self.detector)).parameters.keys() - {"min_scene_len"}
        if wrong := sorted(set(self.options) - known):
            raise ValueError(
                f"the {self.detector} detector has no option '{wrong[0]}'; it has {', '.join(sorted(known))}"
            )
        if self.short_side_px < 16:
            raise ValueError("short_side_px must be at least 16")

    def setup(self) -> None:
        """Does nothing: there are no weights."""

    def begin(self, fps: float) -> None:
        """Starts a new source or window."""
        self._detector: Any = _detector(self.detector)(min_scene_len=0, **self.options)
        self._fps = Fraction(fps).limit_denominator(1001) or Fraction(25)
        self._n = 0
        self._cuts: set[int] = set()

    def push(self, frame: Frame, small: Small) -> None:
        """Takes the next frame."""
        self.look(frame.bgr(self.short_side_px))

    def look(self, bgr_HWC: NDArray[np.uint8]) -> None:
        """Takes the next frame as a picture, BGR 0..255."""
        found = self._detector.process_frame(self._timecode(self._n), bgr_HWC)
        self._cuts.update(frame.frame_num for frame in found)
        self._n += 1

    def finish(self) -> list[Boundary]:
        """Returns all cuts, in order. PySceneDetect has no confidence, so it is 1."""
        last = self._detector.post_process(self._timecode(max(0, self._n - 1)))
        self._cuts.update(frame.frame_num for frame in last)
        return [
            Boundary("hard", f, f, 1.0, f"pyscenedetect:{self.detector}") for f in sorted(self._cuts) if 0 < f < self._n
        ]

    def _timecode(self, frame: int) -> Any:
        from scenedetect import FrameTimecode

        return FrameTimecode(frame, fps=self._fps)
