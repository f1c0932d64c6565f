"""The decode of one window of a source: frame times, keyframes, boundaries, frame hashes and thumbnails.

A window begins at the first keyframe at or after its start and ends where the next window begins. Workers compute both from the timestamps,
independently of each other. Some seconds before and after the window are decoded too, so that both windows see a transition at their common
edge completely.
"""

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.config.config import ScanConfig
from curate.cuts.boundary import Boundary
from curate.cuts.cascade import Detector
from curate.cuts.signals import HEIGHT, WIDTH, small_of
from curate.stages import stage
from curate.stages.stage import StageSpec
from curate.video.frame_hash import frame_hashes
from curate.video.letterbox import Box, lit_box
from curate.video.open import Frame, Reader, VideoError

CONTEXT_S = 4.0
"""Seconds decoded on both sides of a window, for the cut detector only. The longest transition that it finds lasts about as long."""


@dataclass
class WindowScan:
    """The results of decoding the frames of one window, without the context on both sides."""

    times_s: list[float] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    thumbs: list[tuple[float, bytes, Box]] = field(default_factory=list)
    thumb_px: tuple[int, int] = (0, 0)
    end_s: float = 0.0
    end_kind: str = "edge"
    error: str | None = None
    context: int = 0
    """Number of frames that the detector received before the window's first frame."""


def decode_window(
    reader: Reader, from_s: float, until_s: float, config: ScanConfig, cuts: StageSpec
) -> tuple[WindowScan, list[Boundary]]:
    """Decodes the window once. Returns its frames' data, and the boundaries, with frames counted from the window's first."""
    detector = detector_of(cuts)
    detector.begin(reader.info.fps or 25.0)
    seen = WindowScan()
    thumbs = _Thumbnails(config, seen)
    hashes = _Hashes(reader, seen)
    ended = False
    try:
        for frame in reader:
            if not seen.times_s:
                if frame.t_s < from_s - CONTEXT_S:
                    continue
                if from_s > -math.inf and not (frame.is_keyframe and frame.t_s >= from_s):
                    detector.push(frame, small_of(frame))
                    seen.context += 1
                    continue
                if frame.t_s >= until_s:
                    return seen, []  # no keyframe in this window: its frames belong to the previous one
            elif not ended and frame.is_keyframe and frame.t_s >= until_s:
                seen.end_kind, seen.end_s, ended = "window", frame.t_s, True
            small = small_of(frame)
            detector.push(frame, small)
            if ended:
                if frame.t_s > seen.end_s + CONTEXT_S:
                    break
                continue
            if frame.is_keyframe:
                seen.keys.append(len(seen.times_s))
            seen.times_s.append(frame.t_s)
            seen.end_s = frame.t_s + frame.duration_s
            hashes.take(small.y)
            thumbs.take(frame)
        if not ended:
            seen.error = reader.short_read
    except VideoError as error:
        if not ended:
            seen.error = str(error)
    hashes.settle()
    if seen.error is None:
        # Damage outside this window is reported by another window.
        begins_s = seen.times_s[0] if seen.times_s and from_s > -math.inf else -math.inf
        seen.error = reader.damage(begins_s, seen.end_s if ended else math.inf)
    shift = seen.context
    boundaries = [Boundary(b.kind, b.start - shift, b.end - shift, b.confidence, b.detector) for b in detector.finish()]
    return seen, boundaries


_detectors: dict[str, Detector] = {}


def detector_of(spec: StageSpec) -> Detector:
    """The detector of a stage specification, set up once per worker."""
    key = f"{spec.use} {dict(spec.options)}"
    if key not in _detectors:
        _detectors[key] = stage.ready(spec)
    return _detectors[key]


class _Hashes:
    """Hashes of all frames, upright, computed in batches."""

    BATCH = 256

    def __init__(self, reader: Reader, seen: WindowScan) -> None:
        self.turn, self.seen = reader.turn, seen
        self.luma_NHW = np.empty((self.BATCH, HEIGHT, WIDTH), np.uint8)
        self.n = 0

    def take(self, luma_HW: NDArray[np.uint8]) -> None:
        self.luma_NHW[self.n] = luma_HW
        self.n += 1
        if self.n == self.BATCH:
            self.settle()

    def settle(self) -> None:
        if self.n:
            upright_HWN = self.turn.apply(self.luma_NHW[: self.n].transpose(1, 2, 0))
            self.seen.hashes.append(frame_hashes(upright_HWN.transpose(2, 0, 1)))
            self.n = 0


class _Thumbnails:
    """Keeps a thumbnail every 1/thumb_fps seconds of the source's clock, from the nearest frame, independently of cuts."""

    def __init__(self, config: ScanConfig, seen: WindowScan) -> None:
        self.config, self.seen = config, seen
        self.next_s = -math.inf

    def take(self, frame: Frame) -> None:
        middle_s = frame.t_s + frame.duration_s / 2
        if middle_s < self.next_s:
            return
        self.next_s = (math.floor(middle_s * self.config.thumb_fps + 1e-9) + 1) / self.config.thumb_fps
        picture = frame.thumbnail(self.config.thumb_short_side_px)
        ok, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self.config.thumb_quality])
        if not ok:
            raise VideoError(f"the frame at {frame.t_s:.2f} s cannot be stored as a thumbnail")
        self.seen.thumb_px = (picture.shape[1], picture.shape[0])
        self.seen.thumbs.append((frame.t_s, jpeg.tobytes(), lit_box(picture)))
