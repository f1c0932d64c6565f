"""The public functions for video files: the header, the frames in order, the keyframes, the pictures at given times.

PyAV is the decoder: for frames in order (`Reader`, used by the scan and the clip writer) and for pictures at given times. decord gives the same
pictures when it is requested, but costs 1.3 to 1.6 times the CPU for 20 pictures of a file (`python benchmarks/random_access.py`). It is the
faster one for short clips in memory, where the training feed uses it (train_hooks/decode.py, 0.88 times PyAV's CPU by `python
benchmarks/feed.py`). docs/decoders.md lists the files that each of them reads.

Times are seconds on one clock. Zero is the first frame of a decode from the start of the file, independently of the file's own clock. A frame
is shown from its own time until the time of the next frame, so times are right with a variable frame rate. Pictures are upright and have square
pixels: the width is multiplied by the sample aspect ratio, the height is kept. All pictures of a file have the size of the first frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from curate.video.container import VideoError, open_input
from curate.video.decord_video import DecordVideo, NotTrustedError
from curate.video.frame import Frame, fit, pixels_of
from curate.video.header import VideoInfo, probe
from curate.video.packet_index import packet_tick
from curate.video.reader import Reader
from curate.video.seek import PyAVVideo, Sample

__all__ = [
    "Decoder",
    "Frame",
    "Picture",
    "Reader",
    "Sample",
    "Video",
    "VideoError",
    "VideoInfo",
    "fit",
    "frames_at",
    "keyframe_times",
    "open_input",
    "open_video",
    "packet_tick",
    "pixels_of",
    "probe",
]

Decoder = Literal["auto", "pyav", "decord"]


class Picture(Protocol):
    """One frame while iterating."""

    @property
    def index(self) -> int:
        """Number of frames before this one."""

    @property
    def t_s(self) -> float:
        """Start time, in seconds."""

    @property
    def duration_s(self) -> float:
        """Duration that the container states; with a variable frame rate the time to the next frame may differ."""

    @property
    def is_keyframe(self) -> bool:
        """Whether it can be decoded without other frames."""

    def rgb(self, short_side_px: int | None = None) -> NDArray[np.uint8]:
        """Returns (H, W, 3), red green blue 0..255, scaled down to the short side when one is given."""


class Video(Protocol):
    """One opened file; use as a context manager. Not thread-safe."""

    decoder: str
    """`pyav` or `decord`."""
    info: VideoInfo
    """The header. Not measured: damage is found when decoding."""

    def __iter__(self) -> Iterator[Picture]:
        """All frames in order, from the start, by PyAV. Raises VideoError when the rest cannot be decoded."""

    def frame_times(self) -> list[float]:
        """Start times of all frames, ascending; for sampling by index."""

    def keyframe_times(self) -> list[float]:
        """Start times of all keyframes, ascending."""

    def frames_at(self, times_s: Sequence[float], short_side_px: int | None = None) -> Sample:
        """See `frames_at`."""

    def close(self) -> None:
        """Closes the file."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_video(uri: str, decoder: Decoder = "auto", storage_options: Mapping[str, Any] | None = None) -> Video:
    """Opens a file for pictures at given times. For a decode in order, use `Reader`.

    Args:
        uri: A local path, a `file://` URL or any fsspec URL.
        decoder: "auto" is PyAV, the faster one. "decord" gives the same pictures, for local files that decord reads correctly.
        storage_options: For fsspec.

    Raises VideoError when no picture can be decoded, or when decord was requested and cannot be trusted with the file.
    """
    if decoder != "decord":
        return PyAVVideo(uri, storage_options)
    try:
        return DecordVideo(uri, storage_options)
    except NotTrustedError as reason:
        raise VideoError(f"decord is not used: {reason}") from reason


def frames_at(
    uri: str,
    times_s: Sequence[float],
    short_side_px: int | None = None,
    *,
    decoder: Decoder = "auto",
    storage_options: Mapping[str, Any] | None = None,
) -> Sample:
    """The pictures shown at the given times, which may be in any order and repeat.

    A time up to the end of the video gives its last frame. Both decoders give the same pixels, bit for bit: measured on docs/decoders.md and
    real footage, and checked on the first picture of each file before decord is used. Pictures are converted before they are scaled, so a small
    one differs from `Frame.rgb` of the same size, which scales first, by 1 of 255 on average (up to 1.4 in real footage). Memory: T x H x W x 3
    bytes and, with decord, 256 MiB of full-size pictures.

    Read untrusted files in a sandbox, especially with decord, whose FFmpeg is of 2018:
    `Sandbox().call(frames_at, uri, times_s, 256, wall_s=60)`.

    Raises VideoError when the file cannot be read, or when there is no picture at one of the times. Other damage is listed in `Sample.errors`.
    """
    with open_video(uri, decoder, storage_options) as video:
        return video.frames_at(times_s, short_side_px)


def keyframe_times(uri: str, storage_options: Mapping[str, Any] | None = None) -> list[float]:
    """Returns the times of all keyframes in seconds, ascending, from the packets.

    One picture is decoded to set the clock. Of a truncated file, the keyframes before the damage.

    Raises VideoError when the file cannot be read.
    """
    with PyAVVideo(uri, storage_options) as video:
        return video.keyframe_times()
