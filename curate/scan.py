"""One window of one source becomes spans: the one full decode. Clips carry thumbnails; what is left out or failed is a row as well.

Every frame from the window's first to its last belongs to exactly one span, so the rows of a source tile its length and the ledger can
account for every second. A window starts at the first keyframe at or after `window * window_s` and ends where the next one starts; both
sides work that out alone, from the same timestamps.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from curate import ids, stage
from curate.config import ScanConfig
from curate.stage import StageSpec
from curate.video import Frame, Reader, VideoError

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("source_id", pa.string()),
        ("window", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("fps", pa.float64()),
        ("n_frames", pa.int32()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("start_kind", pa.string()),
        ("end_kind", pa.string()),
        ("thumbs", pa.list_(pa.binary())),
        ("thumb_times_s", pa.list_(pa.float64())),
        ("skip", pa.string()),
        ("error", pa.string()),
    ]
)
"""`start_kind`, `end_kind`: what lies at the span's ends: edge (of the source), hard (cut), length (a long shot was divided), window.
`skip`: null for a clip, else why the span is none: too_short, or nothing (a window without a keyframe of its own; zero seconds)."""


def n_windows(duration_s: float | None, window_s: float) -> int:
    """Windows of a source: its length in windows, rounded, at least one (so a window is between 0.5 and 1.5 times `window_s`)."""
    return max(1, round(duration_s / window_s)) if duration_s and math.isfinite(duration_s) else 1


@dataclass
class Sight:
    """What the decode of a window saw."""

    times_s: list[float] = field(default_factory=list)
    cuts: set[int] = field(default_factory=set)
    thumbs: list[tuple[float, bytes]] = field(default_factory=list)
    end_s: float = 0.0
    end_kind: str = "edge"
    error: str | None = None


def scan_window(
    uri: str, source_id: str, window: int, last_window: int, config: ScanConfig, cuts: StageSpec
) -> list[dict[str, Any]]:
    """All rows of one window. Runs in the sandbox.

    Raises VideoError only when nothing at all can be decoded; damage further on is a row with an `error` beside the clips before it.
    """
    from_s = window * config.window_s
    until_s = math.inf if window == last_window else (window + 1) * config.window_s
    with Reader(uri, from_s=from_s) as reader:
        sight = _look(reader, from_s if window else -math.inf, until_s, config, cuts)
        common = {
            "source_id": source_id,
            "window": window,
            "fps": reader.info.fps,
            "width_px": reader.info.width_px,
            "height_px": reader.info.height_px,
        }
        if not sight.times_s and sight.error and window == 0:
            raise VideoError(sight.error)
        rows = [{**common, **row} for row in _spans(sight, source_id, "edge" if window == 0 else "window", config)]
        if sight.error is not None:
            end_s = max(sight.end_s, min(until_s, reader.info.duration_s or sight.end_s))
            rows.append({**common, **_row(source_id, sight.end_s, end_s, 0, error=sight.error)})
        elif not sight.times_s:
            rows.append({**common, **_row(source_id, from_s, from_s, 0, skip="nothing")})
        return rows


def _look(reader: Reader, from_s: float, until_s: float, config: ScanConfig, cuts: StageSpec) -> Sight:
    """Decodes the window once: times, cuts and thumbnails."""
    detector = stage.build(cuts)
    detector.setup()
    sight = Sight()
    waiting: deque[tuple[int, Frame]] = deque()
    thumbs = _Thumbnails(config, sight)
    try:
        for frame in reader:
            if not sight.times_s:
                if not (from_s == -math.inf or (frame.is_keyframe and frame.t_s >= from_s)):
                    continue
                if frame.t_s >= until_s:
                    return (
                        sight  # the first keyframe at or after this window's start belongs to the next window already
                    )
            elif frame.is_keyframe and frame.t_s >= until_s:
                sight.end_kind = "window"
                sight.end_s = frame.t_s
                break
            index = len(sight.times_s)
            sight.times_s.append(frame.t_s)
            sight.end_s = frame.t_s + frame.duration_s
            sight.cuts.update(detector.push(index, frame.bgr(detector.short_side_px)))
            waiting.append((index, frame))
            if len(waiting) > detector.lag_frames:
                thumbs.take(*waiting.popleft())
        else:
            sight.error = reader.short_read
        if reader.errors and sight.error is None:
            more = f" and {len(reader.errors) - 1} more" if len(reader.errors) > 1 else ""
            sight.error = f"damaged: {reader.errors[0]}{more}; what could be decoded is kept"
    except VideoError as error:
        sight.error = str(error)
    for index, frame in waiting:
        thumbs.take(index, frame)
    return sight


class _Thumbnails:
    """Takes a thumbnail at the first frame of each shot and every 1/thumb_fps seconds after it (the frame nearest in time)."""

    def __init__(self, config: ScanConfig, sight: Sight) -> None:
        self.config, self.sight = config, sight
        self.anchor_s, self.taken = 0.0, 0

    def take(self, index: int, frame: Frame) -> None:
        if index == 0 or index in self.sight.cuts:
            self.anchor_s, self.taken = frame.t_s, 0
        if frame.t_s + frame.duration_s / 2 < self.anchor_s + self.taken / self.config.thumb_fps:
            return
        ok, jpeg = cv2.imencode(
            ".jpg", frame.bgr(self.config.thumb_short_side_px), [cv2.IMWRITE_JPEG_QUALITY, self.config.thumb_quality]
        )
        if not ok:
            raise VideoError(f"the frame at {frame.t_s:.2f} s cannot be stored as a thumbnail")
        self.sight.thumbs.append((frame.t_s, jpeg.tobytes()))
        self.taken = math.floor((frame.t_s + frame.duration_s / 2 - self.anchor_s) * self.config.thumb_fps) + 1


def _spans(sight: Sight, source_id: str, first_kind: str, config: ScanConfig) -> Iterator[dict[str, Any]]:
    """Shots between cuts; long ones divided into even parts, short ones left out."""
    n = len(sight.times_s)
    edges = [0, *sorted(cut for cut in sight.cuts if 0 < cut < n), n]
    at_s = [*sight.times_s, sight.end_s]
    stamps = np.asarray([t_s for t_s, _ in sight.thumbs])
    for first, stop in pairwise(edges):
        if first == stop:
            continue
        length_s = at_s[stop] - at_s[first]
        parts = math.ceil(length_s / config.max_clip_s - 1e-6)
        inner = np.searchsorted(
            sight.times_s, [at_s[first] + length_s * k / parts - 1e-6 for k in range(1, parts)]
        ).tolist()
        bounds = sorted({first, *inner, stop})
        for a, b in pairwise(bounds):
            start_kind = "length" if a != first else first_kind if a == 0 else "hard"
            end_kind = "length" if b != stop else sight.end_kind if b == n else "hard"
            short = at_s[b] - at_s[a] < config.min_clip_s - 1e-6
            row = _row(source_id, at_s[a], at_s[b], b - a, skip="too_short" if short else None)
            row |= {"start_kind": start_kind, "end_kind": end_kind}
            if not short:
                inside = (
                    range(*np.searchsorted(stamps, [at_s[a] - 1e-6, at_s[b] - 1e-6]).tolist())
                    if len(stamps)
                    else range(0)
                )
                row["thumbs"] = [sight.thumbs[i][1] for i in inside]
                row["thumb_times_s"] = [sight.thumbs[i][0] for i in inside]
            yield row


def _row(
    source_id: str, start_s: float, end_s: float, n_frames: int, skip: str | None = None, error: str | None = None
) -> dict[str, Any]:
    kind = "error" if error else skip or "clip"
    return {
        "clip_id": ids.span_id(source_id, start_s, end_s, kind),
        "start_s": start_s,
        "end_s": end_s,
        "n_frames": n_frames,
        "start_kind": None,
        "end_kind": None,
        "thumbs": None,
        "thumb_times_s": None,
        "skip": skip,
        "error": error,
    }


def failed_row(source: Mapping[str, Any], window: int, config: ScanConfig, error: str) -> dict[str, Any]:
    """The row of a window of which nothing could be decoded."""
    start_s = window * config.window_s
    end_s = max(start_s, min(start_s + config.window_s, source["duration_s"] or start_s))
    row = _row(source["source_id"], start_s, end_s, 0, error=error)
    return {**row, "source_id": source["source_id"], "window": window, "fps": None, "width_px": None, "height_px": None}
