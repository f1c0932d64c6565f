"""Pictures at given times by PyAV: it seeks to the keyframe before each group of times and decodes forward; no picture is decoded twice.

`Sample` is the result of both decoders. Both convert the whole picture to RGB and then scale it with the same code, so a data set does not
depend on the decoder that was installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from curate.video.container import VideoError
from curate.video.frame import Frame, fit
from curate.video.header import VideoInfo
from curate.video.packet_index import PacketIndex, index_packets
from curate.video.reader import Reader

EDGE_S = 1e-3
"""Tolerance for a time just before its frame, in seconds (tables may be rounded to milliseconds); at most a quarter of a frame. Ours."""


@dataclass(frozen=True)
class Sample:
    """The requested pictures, in the requested order."""

    frames_THWC: NDArray[np.uint8]  # noqa: N815
    """(T, H, W, 3), red green blue 0..255, upright, square pixels."""
    times_s: list[float]
    """Start time of each picture: at or before the requested time."""
    decoder: str
    """`pyav` or `decord`."""
    errors: list[str] = field(default_factory=list)
    """One sentence for each damaged place found while decoding. Pictures there may be wrong or replaced by a neighbour."""


@dataclass(frozen=True)
class _Decoded:
    frame: Frame
    key_s: float
    """Time of the keyframe that the frame depends on."""


class PyAVVideo:
    """One file, opened with PyAV; see `curate.video.open.Video`."""

    decoder = "pyav"

    def __init__(self, uri: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.uri = uri
        self.storage_options = storage_options
        self.reader = Reader(uri, storage_options=storage_options)
        self.info: VideoInfo = self.reader.info
        self.edge_s = min(EDGE_S, 0.25 / (self.info.fps or 25.0))
        self._frames: Iterator[Frame] = iter(self.reader)
        self._before: _Decoded | None = None
        self._at: _Decoded | None = None
        """The latest decoded frame, one after the frame last returned: a frame lasts until the next one begins."""
        self._broken = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self.reader.close()

    def __iter__(self) -> Iterator[Frame]:
        with Reader(self.uri, storage_options=self.storage_options) as reader:
            yield from reader

    @cached_property
    def index(self) -> PacketIndex:
        """The times of the packets, read once."""
        return index_packets(self.uri, self.storage_options)

    def frame_times(self) -> list[float]:
        """Start times of all frames, ascending: from the packets when they are reliable, from a decode otherwise."""
        if self.index.doubt is None:
            return [t_s for tick in self.index.ticks if (t_s := self.reader.time_s(tick)) >= 0]
        return [frame.t_s for frame in self]

    def keyframe_times(self) -> list[float]:
        """Start times of all keyframes, ascending."""
        if self.reader.guessed_order or not self.index.key_ticks:  # packets without presentation times: decode
            return [frame.t_s for frame in self if frame.is_keyframe]
        return [t_s for tick in self.index.key_ticks if (t_s := self.reader.time_s(tick)) >= 0]

    def frames_at(self, times_s: Sequence[float], short_side_px: int | None = None) -> Sample:
        """See `curate.video.open.frames_at`."""
        pictures: dict[float, tuple[float, NDArray[np.uint8]]] = {}
        errors: dict[str, None] = {}
        for wanted_s in sorted(set(times_s)):
            shown = self._shown_at(wanted_s)
            pictures[wanted_s] = (shown.frame.t_s, small_rgb(self.reader, shown.frame.raw, short_side_px))
            errors |= dict.fromkeys(self._damage(shown))
        return Sample(
            stacked([pictures[t_s][1] for t_s in times_s], self.info, short_side_px),
            [pictures[t_s][0] for t_s in times_s],
            "pyav",
            list(errors),
        )

    def frame_at(self, t_s: float) -> Frame:
        """The frame shown at a time. Raises VideoError when there is no frame, or when it is damaged."""
        shown = self._shown_at(t_s)
        for error in self._damage(shown):
            raise VideoError(error)
        return shown.frame

    def _shown_at(self, wanted_s: float) -> _Decoded:
        """The last frame that begins at or before `wanted_s`."""
        if wanted_s < -self.edge_s:
            raise VideoError(f"no frame at {wanted_s:.2f} s: the first one is at 0.00 s")
        limit_s = wanted_s + self.edge_s
        at_s = self._at.frame.t_s if self._at else 0.0
        if self._before and self._before.frame.t_s <= limit_s < at_s:
            return self._before
        if at_s > limit_s or self.reader.pays_to_jump(at_s, limit_s):
            self.reader.jump(wanted_s)
            self._frames = iter(self.reader)
            self._at = self._before = None
            self._broken = ""
        while self._at is None or self._at.frame.t_s <= limit_s:
            try:
                frame = next(self._frames, None)
            except VideoError as error:
                frame, self._broken = None, str(error)
            if frame is None:
                return self._last(wanted_s)
            key_s = frame.t_s if frame.is_keyframe or self._at is None else self._at.key_s
            self._before, self._at = self._at, _Decoded(frame, key_s)
        if self._before is None:
            raise VideoError(f"no frame at {wanted_s:.2f} s: the frames around it cannot be decoded")
        return self._before

    def _last(self, wanted_s: float) -> _Decoded:
        """The last frame of the file. Raises VideoError when the time is beyond it."""
        if self._at is None:
            raise VideoError(f"no frame at {wanted_s:.2f} s: {self._broken or 'nothing can be decoded there'}")
        end_s = self.reader.decoded_s
        if reason := self._broken or self.reader.short_read:
            if wanted_s > end_s + self.edge_s:
                raise VideoError(f"no frame at {wanted_s:.2f} s: {reason}")
        elif wanted_s > max(end_s, self.info.duration_s or 0.0) + self.edge_s:
            raise VideoError(f"no frame at {wanted_s:.2f} s: the video ends at {end_s:.2f} s")
        return self._at

    def _damage(self, shown: _Decoded) -> list[str]:
        """The known damage between the keyframe that a picture depends on and the next picture."""
        end_s = self._at.frame.t_s if self._at is not None and self._at is not shown else math.inf
        found = zip(self.reader.damage_s, self.reader.errors, strict=True)
        return [error for at_s, error in found if shown.key_s - self.edge_s <= at_s < end_s]


def small_rgb(reader: Reader, raw: VideoFrame, short_side_px: int | None) -> NDArray[np.uint8]:
    """Returns a decoder's frame as an upright RGB picture, converted first and then scaled down to the short side."""
    whole = reader.scaler.reformat(raw, *reader.stored_px, "rgb24").to_ndarray()
    upright = np.ascontiguousarray(reader.turn.apply(cast(NDArray[np.uint8], whole)))
    return scaled(reader, upright, short_side_px)


def scaled(reader: Reader, upright_HWC: NDArray[np.uint8], short_side_px: int | None) -> NDArray[np.uint8]:
    """Returns an RGB picture at display size, or scaled down to the short side, by area averaging."""
    width_px, height_px = fit(reader.info.width_px, reader.info.height_px, short_side_px)
    if upright_HWC.shape[:2] == (height_px, width_px):
        return upright_HWC
    raw = VideoFrame.from_ndarray(np.ascontiguousarray(upright_HWC), "rgb24")
    return cast(NDArray[np.uint8], reader.scaler.reformat(raw, width_px, height_px, "rgb24").to_ndarray())


def stacked(pictures: list[NDArray[np.uint8]], info: VideoInfo, short_side_px: int | None) -> NDArray[np.uint8]:
    """Returns (T, H, W, 3); T may be 0."""
    width_px, height_px = fit(info.width_px, info.height_px, short_side_px)
    return np.stack(pictures) if pictures else np.empty((0, height_px, width_px, 3), np.uint8)
