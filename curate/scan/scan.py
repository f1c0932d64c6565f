"""One window of one source becomes spans: the one full decode. Clips carry thumbnails; what is left out or failed is a row as well.

A window starts at the first keyframe at or after `window * window_s` and ends where the next one starts; both sides work that out alone, from
the same timestamps. Some seconds before and after it are decoded too, so that a transition at its edge is seen whole by both; its own frames,
from its first to its last, belong to exactly one span each (curate/scan/spans.py).
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.config.config import ScanConfig
from curate.cuts.boundary import Boundary
from curate.cuts.cascade import Detector
from curate.cuts.signals import HEIGHT, WIDTH, small_of
from curate.scan import ids
from curate.scan.spans import Span, spans
from curate.stages import stage
from curate.stages.stage import StageSpec
from curate.video.frame_hash import as_text, frame_hashes
from curate.video.letterbox import Box, common_box, lit_box
from curate.video.open import Frame, Reader, VideoError

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("source_id", pa.string()),
        ("window", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("first_frame", pa.int32()),
        ("n_frames", pa.int32()),
        ("fps", pa.float64()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("start_kind", pa.string()),
        ("start_confidence", pa.float32()),
        ("start_detector", pa.string()),
        ("end_kind", pa.string()),
        ("end_confidence", pa.float32()),
        ("end_detector", pa.string()),
        ("first_hash", pa.string()),
        ("last_hash", pa.string()),
        ("crop_x_px", pa.int32()),
        ("crop_y_px", pa.int32()),
        ("crop_width_px", pa.int32()),
        ("crop_height_px", pa.int32()),
        ("thumbs", pa.list_(pa.binary())),
        ("thumb_times_s", pa.list_(pa.float64())),
        ("skip", pa.string()),
        ("error", pa.string()),
    ]
)
"""`first_frame`: counted from the window's first frame.
`start_*`, `end_*`: what lies at the span's ends, how sure the detector is and which one spoke. Kinds: edge (of the source), window, length (a
long shot was divided), keyframe (alignment), or the boundary's: hard, dissolve, fade, wipe.
`first_hash`, `last_hash`: fingerprints of the first and last frame (curate/video/frame_hash.py). `crop_*`: the box without black bars.
`skip`: null for a clip, else why the span is none: transition, too_short, unaligned, or nothing (a window without a keyframe; zero seconds)."""

CONTEXT_S = 4.0
"""Seconds that are decoded on both sides of a window, for the cut detector alone. The longest transition looked for lasts about as long."""


def n_windows(duration_s: float | None, window_s: float) -> int:
    """Windows of a source: its length in windows, rounded, at least one (so a window is between 0.5 and 1.5 times `window_s`)."""
    return max(1, round(duration_s / window_s)) if duration_s and math.isfinite(duration_s) else 1


@dataclass
class Sight:
    """What the decode of a window saw of its own frames."""

    times_s: list[float] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    thumbs: list[tuple[float, bytes, Box]] = field(default_factory=list)
    thumb_px: tuple[int, int] = (0, 0)
    end_s: float = 0.0
    end_kind: str = "edge"
    error: str | None = None
    context: int = 0
    """Frames that the detector was shown before the first own one."""


def scan_window(
    uri: str, source_id: str, window: int, last_window: int, config: ScanConfig, cuts: StageSpec
) -> list[dict[str, Any]]:
    """All rows of one window. Runs in the sandbox.

    Raises VideoError only when nothing at all can be decoded; damage further on is a row with an `error` beside the clips before it.
    """
    cv2.setNumThreads(1)  # a worker has one core
    from_s = window * config.window_s if window else -math.inf
    until_s = math.inf if window == last_window else (window + 1) * config.window_s
    with Reader(uri, from_s=max(0.0, from_s - CONTEXT_S)) as reader:
        sight, boundaries = _look(reader, from_s, until_s, config, cuts)
        info = reader.info
        common = {
            "source_id": source_id,
            "window": window,
            "fps": info.fps,
            "width_px": info.width_px,
            "height_px": info.height_px,
        }
        if not sight.times_s and sight.error and window == 0:
            raise VideoError(sight.error)
        ends = ("window" if window else "edge", sight.end_kind)
        hashes = np.concatenate(sight.hashes) if sight.hashes else np.empty(0, np.uint64)
        times_s = [*sight.times_s, sight.end_s]
        rows = [
            {**common, **_row(source_id, span, sight, times_s, hashes, (info.width_px, info.height_px))}
            for span in (spans(times_s, sight.keys, boundaries, ends, config) if sight.times_s else ())
        ]
        if sight.error is not None:
            end_s = max(sight.end_s, min(until_s, info.duration_s or sight.end_s))
            rows.append({**common, **_empty_row(source_id, sight.end_s, end_s, error=sight.error)})
        elif not sight.times_s:
            at_s = max(0.0, from_s)
            rows.append({**common, **_empty_row(source_id, at_s, at_s, skip="nothing")})
        return rows


def find_cuts(uri: str, cuts: StageSpec) -> dict[str, Any]:
    """The boundaries of a whole file, nothing else. Runs in the sandbox.

    Returns `fps`, `times_s` (when each frame begins, and when the last one ends), `boundaries` (between two shots; as dicts, frames count from
    0), `edges` (fades at the very start or end, which are cut away too) and `error` (what is damaged, else None).

    Raises VideoError when nothing at all can be decoded.
    """
    cv2.setNumThreads(1)
    with Reader(uri) as reader:
        detector = _detector(cuts)
        detector.begin(reader.info.fps or 25.0)
        times_s: list[float] = []
        error = None
        try:
            for frame in reader:
                detector.push(frame, small_of(frame))
                times_s.append(frame.t_s)
            error = reader.trouble
        except VideoError as broken:
            if not times_s:
                raise
            error = str(broken)
        found = detector.finish()
        between = [b.start > 0 and b.end < len(times_s) for b in found]
        return {
            "fps": reader.info.fps,
            "times_s": [*times_s, max(reader.decoded_s, times_s[-1])],
            "boundaries": [asdict(b) for b, inner in zip(found, between, strict=True) if inner],
            "edges": [asdict(b) for b, inner in zip(found, between, strict=True) if not inner],
            "error": error,
        }


def _look(
    reader: Reader, from_s: float, until_s: float, config: ScanConfig, cuts: StageSpec
) -> tuple[Sight, list[Boundary]]:
    """Decodes the window once: times, boundaries (counted from its first frame), fingerprints and thumbnails."""
    detector = _detector(cuts)
    detector.begin(reader.info.fps or 25.0)
    sight = Sight()
    thumbs = _Thumbnails(config, sight)
    hashes = _Hashes(reader, sight)
    ended = False
    try:
        for frame in reader:
            if not sight.times_s:
                if frame.t_s < from_s - CONTEXT_S:
                    continue
                if from_s > -math.inf and not (frame.is_keyframe and frame.t_s >= from_s):
                    detector.push(frame, small_of(frame))
                    sight.context += 1
                    continue
                if frame.t_s >= until_s:
                    return sight, []  # the first keyframe at or after this window's start belongs to the next one
            elif not ended and frame.is_keyframe and frame.t_s >= until_s:
                sight.end_kind, sight.end_s, ended = "window", frame.t_s, True
            small = small_of(frame)
            detector.push(frame, small)
            if ended:
                if frame.t_s > sight.end_s + CONTEXT_S:
                    break
                continue
            if frame.is_keyframe:
                sight.keys.append(len(sight.times_s))
            sight.times_s.append(frame.t_s)
            sight.end_s = frame.t_s + frame.duration_s
            hashes.take(small.y)
            thumbs.take(frame)
        if not ended:
            sight.error = reader.short_read
    except VideoError as error:
        if not ended:
            sight.error = str(error)
    hashes.settle()
    if sight.error is None:
        # Where the damage lies beside the window, another one tells it.
        begins_s = sight.times_s[0] if sight.times_s and from_s > -math.inf else -math.inf
        sight.error = reader.damage(begins_s, sight.end_s if ended else math.inf)
    shift = sight.context
    boundaries = [Boundary(b.kind, b.start - shift, b.end - shift, b.confidence, b.detector) for b in detector.finish()]
    return sight, boundaries


_detectors: dict[str, Detector] = {}


def _detector(spec: StageSpec) -> Detector:
    """The detector of a spec, set up once per worker."""
    key = f"{spec.use} {dict(spec.options)}"
    if key not in _detectors:
        _detectors[key] = stage.ready(spec)
    return _detectors[key]


class _Hashes:
    """Fingerprints of all frames, upright, worked out for many at once."""

    BATCH = 256

    def __init__(self, reader: Reader, sight: Sight) -> None:
        self.turn, self.sight = reader.turn, sight
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
            self.sight.hashes.append(frame_hashes(upright_HWN.transpose(2, 0, 1)))
            self.n = 0


class _Thumbnails:
    """Takes the frames nearest to every 1/thumb_fps seconds of the source's clock, whatever the cuts."""

    def __init__(self, config: ScanConfig, sight: Sight) -> None:
        self.config, self.sight = config, sight
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
        self.sight.thumb_px = (picture.shape[1], picture.shape[0])
        self.sight.thumbs.append((frame.t_s, jpeg.tobytes(), lit_box(picture)))


def _row(
    source_id: str,
    span: Span,
    sight: Sight,
    times_s: list[float],
    hashes: NDArray[np.uint64],
    full_px: tuple[int, int],
) -> dict[str, Any]:
    start_s, end_s = times_s[span.first], times_s[span.stop]
    first_hash, last_hash = as_text(hashes[[span.first, span.stop - 1]])
    row = _empty_row(source_id, start_s, end_s, skip=span.skip) | {
        "first_frame": span.first,
        "n_frames": span.stop - span.first,
        "start_kind": span.start.kind,
        "start_confidence": span.start.confidence,
        "start_detector": span.start.detector,
        "end_kind": span.end.kind,
        "end_confidence": span.end.confidence,
        "end_detector": span.end.detector,
        "first_hash": first_hash,
        "last_hash": last_hash,
    }
    if span.skip is None:
        low, high = (bisect_left(sight.thumbs, t_s - 1e-6, key=lambda thumb: thumb[0]) for t_s in (start_s, end_s))
        thumbs = sight.thumbs[low:high]
        box = common_box([box for _, _, box in thumbs], sight.thumb_px, full_px)
        row |= dict(zip(("crop_x_px", "crop_y_px", "crop_width_px", "crop_height_px"), box, strict=True))
        row["thumbs"] = [jpeg for _, jpeg, _ in thumbs]
        row["thumb_times_s"] = [t_s for t_s, _, _ in thumbs]
    return row


def _empty_row(
    source_id: str, start_s: float, end_s: float, skip: str | None = None, error: str | None = None
) -> dict[str, Any]:
    kind = "error" if error else skip or "clip"
    row: dict[str, Any] = {**dict.fromkeys(SCHEMA.names), "clip_id": ids.span_id(source_id, start_s, end_s, kind)}
    for name in ("source_id", "window", "fps", "width_px", "height_px"):
        del row[name]
    return row | {"start_s": start_s, "end_s": end_s, "n_frames": 0, "skip": skip, "error": error}


def failed_row(source: Mapping[str, Any], window: int, config: ScanConfig, error: str) -> dict[str, Any]:
    """The row of a window of which nothing could be decoded."""
    start_s = window * config.window_s
    end_s = max(start_s, min(start_s + config.window_s, source["duration_s"] or start_s))
    row = _empty_row(source["source_id"], start_s, end_s, error=error)
    return {**row, "source_id": source["source_id"], "window": window, "fps": None, "width_px": None, "height_px": None}
