"""Video files: what a header says, the frames in order, the keyframes, the pictures at given times. The one door to them.

Two decoders stand behind one small protocol. PyAV decodes in order (`Reader`, what the scan and the clip writer use) and
reads everything that FFmpeg reads. decord fetches pictures at given times where it is installed and can be believed; where
not, PyAV does, and `Sample.fallback` says why. docs/decoders.md lists which handles what.

Times are seconds on one clock: zero is the first frame that a decode from the start of the file gives, whatever the
file's own clock says. A frame is shown from its own time until the next one's, so a variable frame rate is right.
Pictures are upright and have square pixels: the width is multiplied by the sample aspect ratio, the height is kept; the
size is the first frame's to the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from curate.video.container import VideoError, open_input
from curate.video.decord_video import DecordVideo, NotTrustedError
from curate.video.header import VideoInfo, probe
from curate.video.packet_index import packet_tick
from curate.video.reader import Frame, Reader, fit, pixels_of
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
        """Count from the first frame given."""

    @property
    def t_s(self) -> float:
        """When it begins to be shown."""

    @property
    def duration_s(self) -> float:
        """As the container states it; with a variable frame rate the time to the next frame may differ."""

    @property
    def is_keyframe(self) -> bool:
        """Whether it can be decoded on its own."""

    def rgb(self, short_side_px: int | None = None) -> NDArray[np.uint8]:
        """Returns (H, W, 3), red green blue 0..255, scaled down to the short side when one is given."""


class Video(Protocol):
    """One opened file; use as a context manager. Not thread-safe."""

    decoder: str
    """`pyav` or `decord`."""
    info: VideoInfo
    """What the header says. A claim: damage shows when decoding."""

    def __iter__(self) -> Iterator[Picture]:
        """All frames in order, from the start. Raises VideoError where the rest cannot be decoded."""

    def frame_times(self) -> list[float]:
        """When each frame begins to be shown, ascending; for sampling by index."""

    def keyframe_times(self) -> list[float]:
        """When each keyframe begins to be shown, ascending."""

    def frames_at(self, times_s: Sequence[float], short_side_px: int | None = None) -> Sample:
        """See `frames_at`."""

    def close(self) -> None:
        """Closes the file."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_video(uri: str, decoder: Decoder = "auto", storage_options: Mapping[str, Any] | None = None) -> Video:
    """Opens a file for pictures at given times; for a decode in order, `Reader` says more.

    Args:
        uri: A local path, a `file://` URL or any fsspec URL.
        decoder: "auto" takes decord where it is installed and can be believed with this file, PyAV otherwise. "decord"
            insists on it.
        storage_options: For fsspec.

    Raises VideoError when no picture can be decoded, or when decord was insisted on and cannot be believed.
    """
    if decoder == "pyav":
        return PyAVVideo(uri, storage_options)
    try:
        return DecordVideo(uri, storage_options, alone=decoder == "decord")
    except NotTrustedError as reason:
        if decoder == "decord":
            raise VideoError(f"decord is not used: {reason}") from reason
        return PyAVVideo(uri, storage_options, fallback=str(reason))


def frames_at(
    uri: str,
    times_s: Sequence[float],
    short_side_px: int | None = None,
    *,
    decoder: Decoder = "auto",
    storage_options: Mapping[str, Any] | None = None,
) -> Sample:
    """The pictures on show at the given times, in any order and as often as asked.

    A time up to the end of the video gives its last frame. Both decoders give the same pixels, bit for bit: measured over
    docs/decoders.md and real footage, and checked on the first picture of each file, without which decord is not used.
    Pictures are converted before they are scaled, so a small one differs from `Frame.rgb` of the same size, which scales
    first, by 1 of 255 on average (up to 1.4 in real footage). The memory taken is T x H x W x 3 bytes and, with decord,
    256 MiB of pictures of full size.

    A file that is not trusted belongs in a sandbox, decord above all (its FFmpeg is of 2018):
    `Sandbox().call(frames_at, uri, times_s, 256, wall_s=60)`.

    Raises VideoError when the file cannot be read, or when nothing can be shown at one of the times; damage that can be
    decoded around is told in `Sample.errors`.
    """
    with open_video(uri, decoder, storage_options) as video:
        return video.frames_at(times_s, short_side_px)


def keyframe_times(uri: str, storage_options: Mapping[str, Any] | None = None) -> list[float]:
    """Returns the times of all keyframes in seconds, ascending, from the packets alone.

    One picture is decoded to set the clock. Of a file cut short, the keyframes before the damage.

    Raises VideoError when the file cannot be read.
    """
    with PyAVVideo(uri, storage_options) as video:
        return video.keyframe_times()
