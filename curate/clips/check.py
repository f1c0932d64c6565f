"""Checks that a written clip begins and ends with the right frames: frames of the next shot would teach a video model to cut.

The mp4's first and last frame are decoded. When the clip begins (or ends) where its span does, the frame's hash must match the hash that the
scan stored. Otherwise, or when the hashes differ (hash bits of flat or small pictures are unreliable), the frame must look like the source's
frame at that time. Cropped black bars are restored before the comparison.
"""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import av
import cv2
import fsspec
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from curate.clips.records import EDGE_S, Cut, Shares, Span
from curate.cuts.signals import small_of
from curate.video.container import video_stream
from curate.video.frame_hash import COLUMNS, ROWS, bits_apart, frame_hash
from curate.video.open import Frame, Reader, VideoError
from curate.video.seek import PyAVVideo, small_rgb

MOST_BITS = 6
"""Maximum number of differing bits of matching hashes. Ours: over the project's footage the same frame, encoded at full size, differs in up to
3 bits of 64, the frame after a cut in 32 on average."""
MOST_LEVELS = 8.0
"""Maximum mean difference of matching pictures of 9 x 8 cells, out of 255. Ours: over the project's footage the same frame differs by up to
3.6 (also when scaled to 64 lines at CRF 30), the frame after a hard cut by 20 or more."""
LINES = 72
"""Short side at which pictures are compared."""
WHOLE_PX = (144, 128)
"""Size of a picture with restored bars: a multiple of the hash's cells."""


class Check:
    """Checks the clips of one source. Use as a context manager; the source is opened only when the hashes do not match."""

    def __init__(self, uri: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self._uri, self._storage_options = uri, storage_options
        self._stack = ExitStack()
        self._source: PyAVVideo | None = None

    def __enter__(self) -> Check:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, span: Span, clip: Cut) -> str:
        """Returns the fault of the clip written for a span, in one sentence; empty when it is right."""
        edge_s = min(EDGE_S, 0.25 / clip.fps)
        if clip.start_s < span.start_s - edge_s or clip.last_s >= span.end_s - edge_s:
            return f"the clip covers {clip.start_s:.3f} to {clip.end_s:.3f} s, beyond its span"
        try:
            first, last = end_frames(clip.mp4, clip.n_frames)
        except VideoError as error:
            return f"the written clip cannot be decoded: {error}"
        ends = (
            ("first", first, span.first_hash if abs(clip.start_s - span.start_s) <= edge_s else None, clip.start_s),
            ("last", last, span.last_hash if abs(clip.end_s - span.end_s) <= edge_s else None, clip.last_s),
        )
        for name, picture, wanted, t_s in ends:
            if wanted is not None and bits_apart(frame_hash(framed(picture.luma_HW, clip.shows)), wanted) <= MOST_BITS:
                continue
            try:
                levels = levels_apart(framed(picture.grey_HW, clip.shows), self._shown(t_s + edge_s).grey_HW)
            except VideoError as error:
                return f"the {name} frame cannot be compared with the source's at {t_s:.3f} s: {error}"
            if levels > MOST_LEVELS:
                return f"the {name} frame is not the source's at {t_s:.3f} s ({levels:.0f} of 255 levels apart)"
        return ""

    def _shown(self, t_s: float) -> Look:
        """The source's frame at a time."""
        if self._source is None:
            self._source = self._stack.enter_context(PyAVVideo(self._uri, self._storage_options))
        return look(self._source.frame_at(t_s), self._source.reader)


class Look(NamedTuple):
    """A frame, scaled down: luma as in the scan's hashes, and grey from RGB, which does not depend on colour range or matrix; both (H, W)."""

    luma_HW: NDArray[np.uint8]  # noqa: N815
    grey_HW: NDArray[np.uint8]  # noqa: N815


def end_frames(mp4: bytes, n_frames: int) -> tuple[Look, Look]:
    """The first and the last frame of an mp4.

    Raises VideoError when it cannot be decoded or does not hold `n_frames` frames.
    """
    try:
        with av.open(io.BytesIO(mp4), "r") as container:
            packets = [packet for packet in container.demux(video_stream(container)) if packet.size]
    except FFmpegError as error:
        raise VideoError(f"it cannot be read: {error}") from error
    key_s = max((float((p.pts or 0) * p.time_base) for p in packets if p.is_keyframe and p.time_base), default=0.0)
    if len(packets) != n_frames:
        raise VideoError(f"it holds {len(packets)} frames, not {n_frames}")
    memory, path = fsspec.filesystem("memory"), f"/rushes-check-{os.getpid()}-{threading.get_ident()}.mp4"
    memory.pipe_file(path, mp4)
    try:
        with Reader(f"memory:/{path}") as reader:
            first = next(iter(reader))
            reader.jump(key_s)
            rest = deque(reader, maxlen=1)
            if reader.trouble or not rest:
                raise VideoError(reader.trouble or "it has no last frame")
            return look(first, reader), look(rest.pop(), reader)
    finally:
        memory.rm_file(path)


def look(frame: Frame, reader: Reader) -> Look:
    """Returns a frame upright, in the two forms that are compared."""
    luma = np.asarray(reader.turn.apply(small_of(frame).y[:, :, None])[:, :, 0], np.uint8)
    return Look(luma, np.asarray(cv2.cvtColor(small_rgb(reader, frame.raw, LINES), cv2.COLOR_RGB2GRAY), np.uint8))


def framed(grey_HW: NDArray[np.uint8], shows: Shares | None) -> NDArray[np.uint8]:
    """Returns the picture with its black bars restored."""
    if shows is None:
        return grey_HW
    x, y, width, height = (round(share * side) for share, side in zip(shows, 2 * WHOLE_PX, strict=True))
    whole = np.zeros(WHOLE_PX[::-1], np.uint8)
    whole[y : y + height, x : x + width] = cv2.resize(grey_HW, (width, height), interpolation=cv2.INTER_AREA)
    return whole


def levels_apart(a_HW: NDArray[np.uint8], b_HW: NDArray[np.uint8]) -> float:
    """Mean absolute difference, 0 to 255, of two pictures scaled down to 9 x 8 cells."""
    small = [cv2.resize(p, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA).astype(np.int16) for p in (a_HW, b_HW)]
    return float(np.abs(small[0] - small[1]).mean())
