"""Pictures at given times by decord 0.6, on request only (`decoder="decord"`): PyAV gives the same pictures for less.

Measured, CPU seconds of decord over those of PyAV:

- 20 pictures through `open_video`: 1.3 to 1.6 (`python benchmarks/random_access.py`), and over 3 for a single picture or for all of a file. So
  contact sheets and thumbnails come from PyAV.
- the training feed, clips of 5 s: 0.88 (`python benchmarks/feed.py`), and less the later the window begins in the clip: there decord decodes
  from the keyframe before the window, PyAV from the start of the clip. So `train_hooks/decode.py` uses decord first.

decord addresses frames by number and reports few errors. So it is used only for a file whose packets were checked, and only while its FFmpeg
logs no error:

- open groups of pictures, skipped pictures, pictures with the same time, containers without an index: it returns other frames than requested, or
  retries at the end of the file for minutes;
- a second video stream: it may choose another stream than PyAV;
- damage: it repeats the last good frame (`fault_tol` makes that an error) or returns smeared pictures (its FFmpeg logs an error);
- AV1, GIF and others: its FFmpeg of 2018 cannot open them, or fails at the first read;
- it decodes ahead in the background without a limit, so a seek to the start after each call stops it;
- all other differences (rotation, colour matrix, pixel format) show in the first picture, which must equal PyAV's bit for bit.

It uses one thread, which makes it reproducible.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.video.container import VideoError, local_path
from curate.video.packet_index import PacketIndex
from curate.video.seek import PyAVVideo, Sample, scaled, stacked

MAX_BYTES = 512 * 2**20
"""Maximum size of a file: decord reads all of it before the first picture, PyAV only what it needs. Ours."""
MAX_PX = 4096 * 2304
"""Maximum pixels of one picture: the larger ones that decord decodes ahead take gigabytes. Ours."""
_BATCH_BYTES = 256 * 2**20  # ours: full-size pictures in memory at a time
_AV_LOG_ERROR = 16


class NotTrustedError(Exception):
    """decord cannot be trusted with this file. The message is a clause whose "it" is decord."""


class DecordVideo(PyAVVideo):
    """One file whose pictures at given times come from decord. PyAV gives its clock and its frames in order.

    Raises NotTrustedError when decord cannot be used with the file.
    """

    decoder = "decord"

    def __init__(self, uri: str, storage_options: Mapping[str, Any] | None = None) -> None:
        path = local_path(uri)
        if path is None:
            raise NotTrustedError("it reads local files only")
        decord = _decord()
        super().__init__(uri, storage_options)
        self._by_number: Any = None
        """decord's reader."""
        try:
            if path.stat().st_size > MAX_BYTES:
                raise NotTrustedError(f"it would read the whole file, which is larger than {MAX_BYTES >> 20} MiB")
            if self.info.width_px * self.info.height_px > MAX_PX:
                raise NotTrustedError("the picture is larger than 4K, and it decodes ahead without a limit")
            self._times_s = self._times(self.index)
            self._by_number = self._opened(decord, path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file and ends decord's threads."""
        self._by_number = None
        super().close()

    def frames_at(self, times_s: Sequence[float], short_side_px: int | None = None) -> Sample:
        """See `curate.video.open.frames_at`. Raises VideoError when decord fails."""
        numbers = [self._number(t_s) for t_s in times_s]
        wanted = sorted(set(numbers))
        size = max(1, _BATCH_BYTES // (self.info.width_px * self.info.height_px * 3))
        pictures: dict[int, NDArray[np.uint8]] = {}
        try:
            for first in range(0, len(wanted), size):
                part = wanted[first : first + size]
                for number, picture in zip(part, self._batch(part), strict=True):
                    pictures[number] = scaled(self.reader, picture, short_side_px)
        except NotTrustedError as reason:
            raise VideoError(f"decord fails: {reason}") from reason
        frames_THWC = stacked([pictures[number] for number in numbers], self.info, short_side_px)
        return Sample(frames_THWC, [self._times_s[number] for number in numbers], "decord")

    def _times(self, index: PacketIndex) -> list[float]:
        """The times of the frames by number. Raises NotTrustedError when decord would number the frames differently."""
        if index.doubt is not None:
            raise NotTrustedError(index.doubt)
        if index.n_video_streams > 1:
            raise NotTrustedError("there is more than one video stream, and it may choose another")
        if not index.closed:
            raise NotTrustedError("some groups of pictures are open, and it miscounts their pictures")
        clock = self.reader
        if not index.ticks or clock.time_s(index.ticks[0]) != 0.0:
            raise NotTrustedError("the first picture cannot be decoded")
        if (self.info.duration_s or 0.0) > clock.time_s(index.end_tick) + max(0.25, 2.0 / (self.info.fps or 25.0)):
            raise NotTrustedError("the file ends before its header says")
        return [clock.time_s(tick) for tick in index.ticks]

    def _opened(self, decord: Any, path: Path) -> Any:
        _logged.clear()
        try:
            # fault_tol: the share of frames that may be copies of their neighbours. Here a single one is an error.
            reader = decord.VideoReader(f"file:{path}", ctx=decord.cpu(0), num_threads=1, fault_tol=1e-9)
        except Exception as error:  # decord raises six kinds, two of them without a common base
            raise NotTrustedError(f"it cannot open the file ({_sentence(error)})") from error
        if len(reader) != len(self._times_s):
            raise NotTrustedError(f"it counts {len(reader)} frames instead of {len(self._times_s)}")
        keys = set(self.index.key_ticks)
        if reader.get_key_indices() != [number for number, tick in enumerate(self.index.ticks) if tick in keys]:
            raise NotTrustedError("it takes other pictures as keyframes")
        self._by_number = reader
        (first,) = self._batch([0])
        expected = super().frames_at([0.0]).frames_THWC[0]
        given = scaled(self.reader, first, None)
        if not np.array_equal(given, expected):
            raise NotTrustedError("its first picture differs from PyAV's")
        return reader

    def _number(self, wanted_s: float) -> int:
        """The number of the frame shown at a time. Raises VideoError outside the video."""
        edge_s = self.edge_s
        if wanted_s < -edge_s:
            raise VideoError(f"no frame at {wanted_s:.2f} s: the first one is at 0.00 s")
        end_s = self.reader.time_s(self.index.end_tick)
        if wanted_s > max(end_s, self.info.duration_s or 0.0) + edge_s:
            raise VideoError(f"no frame at {wanted_s:.2f} s: the video ends at {end_s:.2f} s")
        return bisect_right(self._times_s, wanted_s + edge_s) - 1

    def _batch(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """Frames by ascending number, (T, H, W, 3), upright, not scaled. Raises NotTrustedError when decord fails or logs an error."""
        with _one_at_a_time:
            _logged.clear()
            try:
                pictures: NDArray[np.uint8] = self._by_number.get_batch(list(numbers)).asnumpy()
                self._by_number.seek(0)
            except Exception as error:
                raise NotTrustedError(f"it fails to read ({_sentence(error)})") from error
            if _logged:
                raise NotTrustedError(f"its decoder logs an error ({_logged[0]})")
        return pictures


_one_at_a_time = threading.Lock()
_logged: list[str] = []
"""Lines that decord's FFmpeg logged at level error or worse since the list was last cleared."""


@cache
def _decord() -> Any:
    """The package, with the log of its FFmpeg captured. Raises NotTrustedError when it is not installed.

    PyAV must be imported first: decord loads its old libraries for the whole process, and a PyAV imported later would bind to the wrong libvpx.
    """
    # The default is 10240. decord counts in a busy loop, so on a busy machine it gives up on good files before its decoder has run.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "40960")
    try:
        import decord
        from decord._ffi.base import _LIB
    except (ImportError, OSError) as error:
        raise NotTrustedError("it is not installed") from error
    try:
        _LIB.av_log_set_callback(_listener)
    except AttributeError as error:
        raise NotTrustedError("the log of its decoder cannot be captured on this system") from error
    return decord


def _listen(_source: int | None, level: int, message: bytes, _values: int | None) -> None:
    if level <= _AV_LOG_ERROR and len(_logged) < 8:
        _logged.append(re.sub(r"%[-#0-9.*lhz]*[a-zA-Z]", "…", message.decode(errors="replace")).strip())


_listener = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_listen)


def _sentence(error: Exception) -> str:
    """The first line of decord's exception, without the time and the source position."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\[[\d:]+\] \S+: |\[file:.*?\] ?", "", line).split(". ")[0][:160]
