"""Where one shot ends and the next begins: detectors that are fed frame by frame from our one decode.

A detector is a dataclass with `short_side_px` (the size of picture it wants), `lag_frames` (how many frames later than a cut it speaks at the
latest) and `push(index, bgr_HWC) -> list[int]`: the indices of frames that are the first of a new shot.
"""

import inspect
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector, HashDetector, HistogramDetector, ThresholdDetector

DETECTORS: dict[str, type] = {
    "adaptive": AdaptiveDetector,
    "content": ContentDetector,
    "hash": HashDetector,
    "histogram": HistogramDetector,
    "threshold": ThresholdDetector,
}


@dataclass
class PySceneDetect:
    """Hard cuts by one of PySceneDetect's detectors (0.7; Brandon Castellano).

    `content` at its own threshold (27) is the default: on the project's three reels, with their 74 known transitions, it has F1 .887 (precision
    .960) where `adaptive` has .668; both find all 42 hard cuts (benchmarks/scan.py). It was chosen on these reels and not confirmed on others.
    `options` go to the detector's constructor as they are. Its minimum scene length is switched off: clip lengths are the scan's business, and
    a short shot must not be glued to its neighbour.
    """

    detector: Literal["adaptive", "content", "hash", "histogram", "threshold"] = "content"
    options: dict[str, Any] = field(default_factory=dict)
    short_side_px: int = 64
    """Size of the pictures compared. Ours: at 256 px, where PySceneDetect's own downscale ends, the scan finds no more and costs over twice
    as much."""
    columns: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        known = inspect.signature(DETECTORS[self.detector]).parameters.keys() - {"min_scene_len"}
        if wrong := sorted(set(self.options) - known):
            raise ValueError(
                f"the {self.detector} detector has no option '{wrong[0]}'; it has {', '.join(sorted(known))}"
            )
        if self.short_side_px < 16:
            raise ValueError("short_side_px must be at least 16")

    @property
    def lag_frames(self) -> int:
        """Frames between a cut and the moment `push` reports it. (`threshold` speaks at the end of a fade: later than any fixed lag.)"""
        return int(self.options.get("window_width", 2)) if self.detector == "adaptive" else 0

    def setup(self) -> None:
        """Begins a new source or window."""
        self._detector: Any = DETECTORS[self.detector](min_scene_len=0, **self.options)

    def push(self, index: int, bgr_HWC: NDArray[np.uint8]) -> list[int]:  # noqa: N803
        """Takes the next frame, BGR 0..255; returns the frames now known to begin a new shot (never frame 0)."""
        found = self._detector.process_frame(FrameTimecode(index, fps=Fraction(25)), bgr_HWC)
        return [frame.frame_num for frame in found if frame.frame_num > 0]
