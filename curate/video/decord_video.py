"""Pictures at given times by decord 0.6, where it is installed and can be believed with the file; PyAV otherwise.

decord finds a frame by its number among the packets and says little about what goes wrong. So it is given a file only
after its packets were looked at, and only while it stays silent:

- open groups of pictures, pictures left out or sharing a time, containers without an index: it gives other frames than
  asked for, or retries at the end of the file for minutes;
- a second video stream: it may take another one than PyAV;
- damage: it repeats the last good frame (`fault_tol` turns that into an error) or smears (its FFmpeg says so in the log);
- AV1, GIF and others: its FFmpeg of 2018 cannot open them, or fails at the first read;
- it decodes ahead in the background as far as it has read, without a bound: a seek to the start after each call stops it;
- what else may differ (rotation, colour matrix, pixel format) shows in the first picture, which must equal PyAV's bit for bit.

One thread, so that it is repeatable.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from curate.video.container import VideoError, local_path
from curate.video.packet_index import PacketIndex, index_packets
from curate.video.seek import PyAVVideo, Sample, scaled, stacked

MAX_BYTES = 512 * 2**20
"""decord reads a file from end to end before its first picture; PyAV reads what it needs. Ours."""
MAX_PX = 4096 * 2304
"""Of one picture; with larger ones what it decodes ahead takes gigabytes. Ours."""
_BATCH_BYTES = 256 * 2**20  # ours: full-size pictures held at a time
_AV_LOG_ERROR = 16


class NotTrustedError(Exception):
    """decord is not believed with this file; the message is a clause that says why."""


class DecordVideo:
    """One file, opened with decord, and with PyAV for its clock and for whatever decord fails at; see `curate.video.open.Video`.

    `alone` raises VideoError instead of falling back to PyAV. Raises NotTrustedError when decord cannot be used from the start.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, Any] | None = None, *, alone: bool = False) -> None:
        path = local_path(uri)
        if path is None:
            raise NotTrustedError("it reads local files only")
        decord = _decord()
        self.decoder = "decord"
        self._alone = alone
        self._pyav = PyAVVideo(uri, storage_options)
        self.info = self._pyav.info
        try:
            if path.stat().st_size > MAX_BYTES:
                raise NotTrustedError(f"it would read the whole file, which is larger than {MAX_BYTES >> 20} MiB")
            if self.info.width_px * self.info.height_px > MAX_PX:
                raise NotTrustedError("the picture is larger than 4K, and it decodes ahead without a bound")
            self._index = index_packets(uri, storage_options)
            self._times_s = self._times(self._index)
            self._reader: Any = self._opened(decord, path)
        except BaseException:
            self._pyav.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and ends decord's threads."""
        self._reader = None
        self._pyav.close()

    def __iter__(self) -> Iterator[DecordPicture]:
        keys = set(self._index.key_ticks)
        ends_s = [*self._times_s[1:], self._pyav.reader.time_s(self._index.end_tick)]
        size = max(1, _BATCH_BYTES // (self.info.width_px * self.info.height_px * 3))
        for first in range(0, len(self._times_s), size):
            numbers = range(first, min(first + size, len(self._times_s)))
            try:
                pictures = self._batch(numbers)
            except NotTrustedError as reason:
                raise VideoError(f"decord fails: {reason}") from reason
            for number, picture in zip(numbers, pictures, strict=True):
                t_s = self._times_s[number]
                is_keyframe = self._index.ticks[number] in keys
                yield DecordPicture(self._pyav, picture, number, t_s, ends_s[number] - t_s, is_keyframe)

    def frame_times(self) -> list[float]:
        """When each frame begins to be shown, ascending."""
        return list(self._times_s)

    def keyframe_times(self) -> list[float]:
        """When each keyframe begins to be shown, ascending."""
        return [self._pyav.reader.time_s(tick) for tick in self._index.key_ticks]

    def frames_at(self, times_s: Sequence[float], short_side_px: int | None = None) -> Sample:
        """See `curate.video.open.frames_at`."""
        if self._reader is None:
            return self._pyav.frames_at(times_s, short_side_px)
        numbers = [self._number(t_s) for t_s in times_s]
        wanted = sorted(set(numbers))
        size = max(1, _BATCH_BYTES // (self.info.width_px * self.info.height_px * 3))
        pictures: dict[int, NDArray[np.uint8]] = {}
        try:
            for first in range(0, len(wanted), size):
                part = wanted[first : first + size]
                for number, picture in zip(part, self._batch(part), strict=True):
                    pictures[number] = scaled(self._pyav.reader, picture, short_side_px)
        except NotTrustedError as reason:
            if self._alone:
                raise VideoError(f"decord fails: {reason}") from reason
            self._reader = None
            self.decoder = "pyav"
            self._pyav.fallback = str(reason)
            return self._pyav.frames_at(times_s, short_side_px)
        frames_THWC = stacked([pictures[number] for number in numbers], self.info, short_side_px)
        return Sample(frames_THWC, [self._times_s[number] for number in numbers], "decord")

    def _times(self, index: PacketIndex) -> list[float]:
        """The clock of the frames. Raises NotTrustedError where decord's numbering would not follow it."""
        if index.doubt is not None:
            raise NotTrustedError(index.doubt)
        if index.n_video_streams > 1:
            raise NotTrustedError("there is more than one video stream, and it may take another")
        if not index.closed:
            raise NotTrustedError(
                "not all keyframes start anew (open groups of pictures), and it miscounts the pictures"
            )
        clock = self._pyav.reader
        if not index.ticks or clock.time_s(index.ticks[0]) != 0.0:
            raise NotTrustedError("the first picture cannot be decoded")
        if (self.info.duration_s or 0.0) > clock.time_s(index.end_tick) + max(0.25, 2.0 / (self.info.fps or 25.0)):
            raise NotTrustedError("the file ends before its header says")
        return [clock.time_s(tick) for tick in index.ticks]

    def _opened(self, decord: Any, path: Path) -> Any:
        _complaints.clear()
        try:
            # Any frame made up from its neighbours is an error: so many in so many frames are allowed.
            reader = decord.VideoReader(f"file:{path}", ctx=decord.cpu(0), num_threads=1, fault_tol=1e-9)
        except Exception as error:  # decord raises six kinds, two of them without a common base
            raise NotTrustedError(f"it cannot open the file ({_sentence(error)})") from error
        if len(reader) != len(self._times_s):
            raise NotTrustedError(f"it counts {len(reader)} frames where there are {len(self._times_s)}")
        keys = set(self._index.key_ticks)
        if reader.get_key_indices() != [number for number, tick in enumerate(self._index.ticks) if tick in keys]:
            raise NotTrustedError("it takes other pictures for keyframes")
        self._reader = reader
        (first,) = self._batch([0])
        expected = self._pyav.frames_at([0.0], None).frames_THWC[0]
        seen = scaled(self._pyav.reader, first, None)
        if not np.array_equal(seen, expected):
            raise NotTrustedError("its first picture is not PyAV's")
        return reader

    def _number(self, wanted_s: float) -> int:
        edge_s = self._pyav.edge_s
        if wanted_s < -edge_s:
            raise VideoError(f"no frame at {wanted_s:.2f} s: the first one is at 0.00 s")
        end_s = self._pyav.reader.time_s(self._index.end_tick)
        if wanted_s > max(end_s, self.info.duration_s or 0.0) + edge_s:
            raise VideoError(f"no frame at {wanted_s:.2f} s: the video ends at {end_s:.2f} s")
        return bisect_right(self._times_s, wanted_s + edge_s) - 1

    def _batch(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """Frames by ascending number, (T, H, W, 3), upright, not scaled. Raises NotTrustedError."""
        with _one_at_a_time:
            _complaints.clear()
            try:
                pictures: NDArray[np.uint8] = self._reader.get_batch(list(numbers)).asnumpy()
                self._reader.seek(0)
            except Exception as error:
                raise NotTrustedError(f"it fails at reading ({_sentence(error)})") from error
            if _complaints:
                raise NotTrustedError(f"its decoder complains ({_complaints[0]})")
        return pictures


class DecordPicture:
    """One frame of an iteration; see `curate.video.open.Picture`."""

    __slots__ = ("_video", "_whole", "duration_s", "index", "is_keyframe", "t_s")

    def __init__(
        self, video: PyAVVideo, whole: NDArray[np.uint8], index: int, t_s: float, duration_s: float, is_keyframe: bool
    ) -> None:
        self._video, self._whole = video, whole
        self.index, self.t_s, self.duration_s, self.is_keyframe = index, t_s, duration_s, is_keyframe

    def rgb(self, short_side_px: int | None = None) -> NDArray[np.uint8]:
        """Returns (H, W, 3), red green blue 0..255, scaled down to the short side when one is given."""
        return scaled(self._video.reader, self._whole, short_side_px)


_one_at_a_time = threading.Lock()
_complaints: list[str] = []
"""What decord's FFmpeg logged at level error or worse since the list was last cleared."""


@cache
def _decord() -> Any:
    """The package, listening to its FFmpeg. Raises NotTrustedError where it is not installed.

    PyAV is imported before it, as everywhere in this project: decord opens its old libraries for all the process to
    see, and a PyAV that comes later binds to the wrong libvpx.
    """
    # 10240 by default. It counts in a busy loop, so with 2048 it gives up on sound files on a busy machine: its decoder has not run yet.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "40960")
    try:
        import decord
        from decord._ffi.base import _LIB
    except (ImportError, OSError) as error:
        raise NotTrustedError("it is not installed") from error
    try:
        _LIB.av_log_set_callback(_listener)
    except AttributeError as error:
        raise NotTrustedError("what its decoder says cannot be heard on this system") from error
    return decord


def _listen(_source: int | None, level: int, message: bytes, _values: int | None) -> None:
    if level <= _AV_LOG_ERROR and len(_complaints) < 8:
        _complaints.append(re.sub(r"%[-#0-9.*lhz]*[a-zA-Z]", "…", message.decode(errors="replace")).strip())


_listener = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_listen)


def _sentence(error: Exception) -> str:
    """The first line of what decord raised, without the time and the place in its source."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\[[\d:]+\] \S+: |\[file:.*?\] ?", "", line).split(". ")[0][:160]
