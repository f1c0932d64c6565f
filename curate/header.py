"""Opening a video file, and what its header says. What cannot be opened is told in one sentence a user understands.

Local paths, `file://` and every fsspec URL. The demuxer is kept from following a playlist to other files.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast
from urllib.parse import unquote

import av
import fsspec
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

# A picture is not footage, and a list of other files could make the decoder open what the user never named.
_NOT_VIDEO = {
    "image2": "a still image",
    "concat": "a playlist",
    "dash": "a playlist",
    "hls": "a playlist",
    "imf": "a playlist",
    "tty": "a text file",
}
_PROBE_PACKETS = 256  # ours: packets in which `probe` looks for the first picture
DurationFrom = Literal["stream", "tag", "container", "unknown"]


class VideoError(ValueError):
    """A file that is not a usable video, or one whose decode broke off; the message is one sentence for the user."""


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a file says about its first video stream. A claim, no measurement: see `Reader.decoded_s`."""

    duration_s: float | None
    duration_from: DurationFrom
    fps: float | None
    """Average frame rate."""
    n_frames_estimate: int | None
    width_px: int
    """Display width: upright, square pixels."""
    height_px: int
    codec: str
    pix_fmt: str | None
    container: str
    rotation_deg: int
    """Clockwise turn that was applied to show the picture upright: 0, 90, 180 or 270."""
    has_audio: bool
    start_s: float
    """Timestamp of the first frame in the file's own clock."""
    bitrate_bps: int | None


@contextmanager
def open_input(uri: str, storage_options: Mapping[str, Any] | None = None) -> Iterator[InputContainer]:
    """Opens a local path, a `file://` URL or any fsspec URL and closes it at the end.

    Raises VideoError when the file is missing, unreadable, empty or not a video.
    """
    path = local_path(uri)
    handle: BinaryIO | None = None
    container: InputContainer | None = None
    try:
        try:
            if path is None:
                handle = _open_bytes(uri, storage_options)
            # `file:` keeps a colon in a name from being taken for a protocol.
            container = av.open(
                handle if path is None else f"file:{path}",
                mode="r",
                metadata_errors="replace",
                options={"protocol_whitelist": "file"},
            )
        except (OSError, FFmpegError) as error:
            raise VideoError(_why_unreadable(uri, storage_options, error)) from error
        name = container.format.name
        if name in _NOT_VIDEO or name.endswith("_pipe"):
            raise VideoError(f"not a video: {_NOT_VIDEO.get(name, 'a still image')}")
        yield container
    finally:
        if container is not None:
            container.close()
        if handle is not None:
            handle.close()


def probe(uri: str, storage_options: Mapping[str, Any] | None = None) -> VideoInfo:
    """Reads the header, and the first picture for its rotation.

    Raises VideoError when there is no video stream to decode.
    """
    with open_input(uri, storage_options) as container:
        stream = video_stream(container)
        first = None
        with suppress(FFmpegError):  # damage is told by the decode; the header is still worth having
            for packet in islice(container.demux(stream), _PROBE_PACKETS):
                if frames := stream.decode(packet):
                    first = frames[0]
                    break
        return describe(container, stream, first)


def local_path(uri: str) -> Path | None:
    """Returns the path of a local file, given as a path or a `file://` URL; None for any other URL."""
    if uri.startswith("file://"):
        return Path(unquote(uri.removeprefix("file://").removeprefix("localhost")))
    return None if "://" in uri else Path(uri)


def _open_bytes(uri: str, storage_options: Mapping[str, Any] | None) -> BinaryIO:
    path = local_path(uri)
    if path is not None:
        return path.open("rb")
    try:
        return cast(BinaryIO, fsspec.open(uri, "rb", **(storage_options or {})).open())
    except (ValueError, ImportError) as error:
        raise VideoError(f"cannot open {uri}: {error}") from error


def video_stream(container: InputContainer) -> VideoStream:
    """Returns the first video stream that is not a cover picture. Raises VideoError when there is none to decode."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover of a song
            if stream.codec_context is None:
                raise VideoError("no decoder for the codec of the video stream")
            return stream
    raise VideoError("no video stream: the file holds audio only" if container.streams.audio else "no video stream")


def time_base(stream: VideoStream) -> Fraction:
    """Returns the seconds of one tick of the stream's clock."""
    assert stream.time_base is not None  # PyAV: None on streams that are being written only
    return stream.time_base


def describe(container: InputContainer, stream: VideoStream, first: VideoFrame | None) -> VideoInfo:
    """Puts together what the header and the first picture say. Raises VideoError when there is no picture size."""
    codec = stream.codec_context
    start = stream.start_time if first is None or first.pts is None else first.pts
    start_s = float((start or 0) * time_base(stream))
    transpose = turn_of(first).transpose
    width_px, height_px = (first.width, first.height) if first is not None else (codec.width, codec.height)
    if width_px <= 0 or height_px <= 0:
        raise VideoError("the header gives no picture size and no picture can be decoded")
    aspect = stream.sample_aspect_ratio
    if aspect and 0.125 <= aspect <= 8:  # anything else is a damaged header
        width_px = max(1, round(width_px * aspect))
    duration_s, source = _duration(container, stream, start_s)
    fps = stream.average_rate or stream.guessed_rate or stream.base_rate
    n_frames = stream.frames or (round(duration_s * fps) if duration_s and fps else None)
    return VideoInfo(
        duration_s=duration_s,
        duration_from=source,
        fps=float(fps) if fps else None,
        n_frames_estimate=n_frames,
        width_px=height_px if transpose else width_px,
        height_px=width_px if transpose else height_px,
        codec=codec.name,
        pix_fmt=codec.pix_fmt,
        container=container.format.name,
        rotation_deg=0 if first is None else round(-first.rotation / 90) % 4 * 90,
        has_audio=bool(container.streams.audio),
        start_s=start_s,
        bitrate_bps=stream.bit_rate or container.bit_rate or None,
    )


def _duration(container: InputContainer, stream: VideoStream, start_s: float) -> tuple[float | None, DurationFrom]:
    if stream.duration:
        stated_s = float(stream.duration * time_base(stream))
        if container.format.name == "avi" and stream.average_rate:  # FFmpeg shortens it to what a cut file can hold
            stated_s = max(stated_s, float(stream.frames / stream.average_rate))
        return stated_s, "stream"
    # Matroska counts from zero of the file's clock, the others from the first frame.
    offset_s = max(start_s, 0.0) if "matroska" in container.format.name else 0.0
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        tag_s = sum(float(part) * 60**i for i, part in enumerate(reversed(parts)))
    except ValueError:
        tag_s = 0.0
    if tag_s > offset_s:
        return tag_s - offset_s, "tag"
    if container.duration and container.duration > 0:
        return container.duration / av.time_base - offset_s, "container"
    return None, "unknown"


class Turn(NamedTuple):
    """What turns a decoded picture upright: rows and columns swapped first, then mirrored."""

    transpose: bool
    flip_x: bool
    flip_y: bool

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns a view of an (H, W) or (H, W, C) picture, turned."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


_QUARTER_TURNS = (Turn(False, False, False), Turn(True, True, False), Turn(False, True, True), Turn(True, False, True))


def turn_of(first: VideoFrame | None) -> Turn:
    """Returns how to show a picture upright, from its display matrix.

    The matrix sends (x, y) to (a x + c y, b x + d y); only quarter turns and mirrors are told apart.
    """
    if first is None:
        return _QUARTER_TURNS[0]
    try:
        matrix = struct.unpack("=9i", bytes(cast(Mapping[str, Any], first.side_data)["DISPLAYMATRIX"]))
    except (KeyError, ValueError, struct.error):  # none, or PyAV does not know another kind of side data
        return _QUARTER_TURNS[round(-first.rotation / 90) % 4]
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Turn(True, c < 0, b < 0)
    return Turn(False, a < 0, d < 0)


def _why_unreadable(uri: str, storage_options: Mapping[str, Any] | None, error: Exception) -> str:
    """Returns one sentence that says why a file could not be opened, from its first bytes."""
    path = local_path(uri)
    if path is not None and path.is_dir():
        return "a directory, not a video file"
    try:
        with _open_bytes(uri, storage_options) as handle:
            head = handle.read(4096)
            if not head:
                return "the file is empty (0 bytes)"
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") and not _has_moov(handle):
                return "the mp4 header (moov) is missing: the file is cut short or was never finished"
    except FileNotFoundError:
        return f"no such file: {uri}"
    except PermissionError:
        return "no permission to read the file"
    except OSError as reason:
        return f"the file cannot be read: {reason}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<" and b"<html" in head.lower():
        return "not a video: an HTML page"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        return "not a video: a text file"
    return f"not a video, or its header is damaged ({getattr(error, 'strerror', None) or error})"


def _has_moov(handle: BinaryIO) -> bool:
    """Walks the top level boxes of an mp4."""
    end = handle.seek(0, os.SEEK_END)
    at = 0
    while at + 8 <= end:
        handle.seek(at)
        size, kind = struct.unpack(">I4s", handle.read(8))
        if size == 1:
            size = int.from_bytes(handle.read(8))
        if kind == b"moov":
            return bool(at + size <= end)
        if size < 8:  # 0: to the end of the file
            return False
        at += size
    return False
