"""The rows of the clips table: one window of one source is decoded once (curate/scan/window.py) and divided into spans.

Window w starts at the first keyframe at or after `w * window_s` and ends where window w + 1 starts. Each of its frames belongs to exactly one
span (curate/scan/spans.py). A clip has thumbnails; skipped spans and failures are rows too.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.config.config import ScanConfig
from curate.cuts.signals import small_of
from curate.scan import ids
from curate.scan.spans import Span, spans
from curate.scan.window import CONTEXT_S, WindowScan, decode_window, detector_of
from curate.stages.stage import StageSpec
from curate.video.frame_hash import as_text
from curate.video.letterbox import common_box
from curate.video.open import Reader, VideoError

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
`start_*`, `end_*`: the kind of the span's end, the confidence, and the detector. Kinds: edge (of the source), window, length (a long shot was
divided), keyframe (alignment), or the boundary's: hard, dissolve, fade, wipe.
`first_hash`, `last_hash`: hashes of the first and last frame (curate/video/frame_hash.py). `crop_*`: the box without black bars.
`skip`: null for a clip, else why the span is not a clip: transition, too_short, unaligned, or nothing (a window without a keyframe; zero
seconds)."""


def n_windows(duration_s: float | None, window_s: float) -> int:
    """Number of windows of a source: its length in windows, rounded, at least 1. So the last window lasts 0.5 to 1.5 times `window_s`."""
    return max(1, round(duration_s / window_s)) if duration_s and math.isfinite(duration_s) else 1


def scan_window(
    uri: str, source_id: str, window: int, last_window: int, config: ScanConfig, cuts: StageSpec
) -> list[dict[str, Any]]:
    """All rows of one window. Runs in the sandbox.

    Raises VideoError only when no frame can be decoded; later damage becomes a row with an `error`, after the clips before it.
    """
    cv2.setNumThreads(1)  # a worker has one core
    from_s = window * config.window_s if window else -math.inf
    until_s = math.inf if window == last_window else (window + 1) * config.window_s
    with Reader(uri, from_s=max(0.0, from_s - CONTEXT_S)) as reader:
        seen, boundaries = decode_window(reader, from_s, until_s, config, cuts)
        info = reader.info
        common = {
            "source_id": source_id,
            "window": window,
            "fps": info.fps,
            "width_px": info.width_px,
            "height_px": info.height_px,
        }
        if not seen.times_s and seen.error and window == 0:
            raise VideoError(seen.error)
        ends = ("window" if window else "edge", seen.end_kind)
        hashes = np.concatenate(seen.hashes) if seen.hashes else np.empty(0, np.uint64)
        times_s = [*seen.times_s, seen.end_s]
        rows = [
            {**common, **_row(source_id, span, seen, times_s, hashes, (info.width_px, info.height_px))}
            for span in (spans(times_s, seen.keys, boundaries, ends, config) if seen.times_s else ())
        ]
        if seen.error is not None:
            end_s = max(seen.end_s, min(until_s, info.duration_s or seen.end_s))
            rows.append({**common, **_empty_row(source_id, seen.end_s, end_s, error=seen.error)})
        elif not seen.times_s:
            at_s = max(0.0, from_s)
            rows.append({**common, **_empty_row(source_id, at_s, at_s, skip="nothing")})
        return rows


def find_cuts(uri: str, cuts: StageSpec) -> dict[str, Any]:
    """The boundaries of a whole file. Runs in the sandbox.

    Returns `fps`, `times_s` (start of each frame, and end of the last one), `boundaries` (between two shots; dicts whose frames count from 0),
    `edges` (fades at the start or end of the file, which are skipped too) and `error` (a sentence on the damage, else None).

    Raises VideoError when no frame can be decoded.
    """
    cv2.setNumThreads(1)
    with Reader(uri) as reader:
        detector = detector_of(cuts)
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


def _row(
    source_id: str,
    span: Span,
    seen: WindowScan,
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
        low, high = (bisect_left(seen.thumbs, t_s - 1e-6, key=lambda thumb: thumb[0]) for t_s in (start_s, end_s))
        thumbs = seen.thumbs[low:high]
        box = common_box([box for _, _, box in thumbs], seen.thumb_px, full_px)
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
    """The row of a window that could not be decoded."""
    start_s = window * config.window_s
    end_s = max(start_s, min(start_s + config.window_s, source["duration_s"] or start_s))
    row = _empty_row(source["source_id"], start_s, end_s, error=error)
    return {**row, "source_id": source["source_id"], "window": window, "fps": None, "width_px": None, "height_px": None}
