"""What the header of a video file states, and how to turn its pictures upright."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any, Literal, NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from curate.video.container import VideoError, open_input, packets, video_stream
from curate.video.limits import Limits

# Ours: no camera and no slide show has rates outside this range, and a scan of such a file would take for ever.
_MAX_FPS, _MIN_FPS, _DAY_S = 10_000, 0.01, 86_400.0
_PROBE_PACKETS = 256  # ours: packets in which `probe` looks for the first picture
DurationFrom = Literal["stream", "tag", "container", "unknown"]


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a file states about its first video stream. Not measured: see `Reader.decoded_s`."""

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
    """Clockwise rotation that shows the picture upright, already applied: 0, 90, 180 or 270 degrees."""
    has_audio: bool
    start_s: float
    """Timestamp of the first frame on the file's own clock."""
    bitrate_bps: int | None


def probe(uri: str, storage_options: Mapping[str, Any] | None = None, limits: Limits | None = None) -> VideoInfo:
    """Reads the header, and decodes the first picture to get its rotation.

    Raises VideoError when there is no video stream to decode, or when the file exceeds a limit.
    """
    limits = limits or Limits()
    with open_input(uri, storage_options) as container:
        _check_container(container, limits)
        stream = video_stream(container)
        _check_size(stream.codec_context.width, stream.codec_context.height, limits)
        first = None
        with suppress(FFmpegError):  # the full decode reports damage; the header is useful anyway
            for packet in islice(packets(container, [stream]), _PROBE_PACKETS):
                if frames := stream.decode(packet):
                    first = frames[0]
                    break
        if first is not None:
            _check_size(first.width, first.height, limits)
        info = describe(container, stream, first)
        if info.duration_s and info.duration_s > limits.max_hours * 3600:
            raise VideoError(
                f"the header promises {info.duration_s / 3600:.0f} hours, more than scan.max_hours ({limits.max_hours:g})"
            )
        return info


def _check_container(container: InputContainer, limits: Limits) -> None:
    n_streams = len(container.streams)
    if n_streams > limits.max_streams:
        raise VideoError(f"{n_streams} streams, more than scan.max_streams ({limits.max_streams})")
    tags_of_all = [container.metadata, *(stream.metadata for stream in container.streams)]
    size_mb = sum(len(key) + len(value) for tags in tags_of_all for key, value in tags.items()) / 1e6
    if size_mb > limits.max_metadata_mb:
        raise VideoError(f"{size_mb:.0f} MB of metadata, more than scan.max_metadata_mb ({limits.max_metadata_mb:g})")


def _check_size(width_px: int, height_px: int, limits: Limits) -> None:
    if width_px * height_px > limits.max_megapixels * 1e6:
        raise VideoError(
            f"pictures of {width_px} x {height_px} pixels, more than scan.max_megapixels ({limits.max_megapixels:g}) allows"
        )


def time_base(stream: VideoStream) -> Fraction:
    """Returns the seconds of one tick of the stream's clock."""
    assert stream.time_base is not None  # PyAV: None on streams that are being written only
    return stream.time_base


def describe(container: InputContainer, stream: VideoStream, first: VideoFrame | None) -> VideoInfo:
    """Combines the header and the first picture.

    Raises VideoError when the picture size is unknown, or when the timestamps give a frame rate that no video has.
    """
    codec = stream.codec_context
    start = stream.start_time if first is None or first.pts is None else first.pts
    start_s = float((start or 0) * time_base(stream))
    width_px, height_px = _display_size(stream, first)
    duration_s, source = _duration(container, stream, start_s)
    fps = _frame_rate(stream, duration_s)
    if duration_s and fps and container.size and duration_s * fps > container.size:  # less than a byte for each picture
        duration_s, source = None, "unknown"
    n_frames = stream.frames or (round(duration_s * fps) if duration_s and fps else None)
    return VideoInfo(
        duration_s=duration_s,
        duration_from=source,
        fps=float(fps) if fps else None,
        n_frames_estimate=n_frames,
        width_px=width_px,
        height_px=height_px,
        codec=codec.name,
        pix_fmt=codec.pix_fmt,
        container=container.format.name,
        rotation_deg=0 if first is None else round(-first.rotation / 90) % 4 * 90,
        has_audio=bool(container.streams.audio),
        start_s=start_s,
        bitrate_bps=stream.bit_rate or container.bit_rate or None,
    )


def _display_size(stream: VideoStream, first: VideoFrame | None) -> tuple[int, int]:
    """(width, height) in pixels, upright and with square pixels. Raises VideoError when it is unknown."""
    codec = stream.codec_context
    width_px, height_px = (first.width, first.height) if first is not None else (codec.width, codec.height)
    if width_px <= 0 or height_px <= 0:
        raise VideoError("the header gives no picture size and no picture can be decoded")
    aspect = stream.sample_aspect_ratio
    if aspect and 0.125 <= aspect <= 8:  # any other value comes from a damaged header
        width_px = max(1, round(width_px * aspect))
    return (height_px, width_px) if turn_of(first).transpose else (width_px, height_px)


def _frame_rate(stream: VideoStream, duration_s: float | None) -> Fraction | None:
    """Average frames per second, None when unknown. Raises VideoError for a rate that no video has."""
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    fps = next((rate for rate in rates if rate and rate <= _MAX_FPS), None)
    if (stated := stream.average_rate) and stated > _MAX_FPS:
        raise VideoError(f"the timestamps are damaged: {float(stated):.0f} pictures a second")
    if fps and fps < _MIN_FPS and max(float(1 / fps), duration_s or 0.0) > _DAY_S:
        raise VideoError(f"the timestamps are damaged: a picture every {float(1 / fps) / 3600:.1f} hours")
    return fps


def _duration(container: InputContainer, stream: VideoStream, start_s: float) -> tuple[float | None, DurationFrom]:
    """The stated duration in seconds from the first frame on, and where it is stated."""
    if stream.duration:
        stated_s = float(stream.duration * time_base(stream))
        if (
            container.format.name == "avi" and stream.average_rate
        ):  # FFmpeg reduces it to what a truncated file can hold
            stated_s = max(stated_s, float(stream.frames / stream.average_rate))
        elif stream.start_time is not None:  # the duration counts pictures before the first keyframe of a recording
            stated_s -= max(0.0, start_s - float(stream.start_time * time_base(stream)))
        return stated_s, "stream"
    # Matroska counts from zero of the file's clock, other containers from the first frame.
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
    """How to turn a decoded picture upright: swap rows and columns, then mirror."""

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
    """Returns how to turn a picture upright, from its display matrix.

    The matrix maps (x, y) to (a x + c y, b x + d y). Only quarter turns and mirror images are distinguished.
    """
    if first is None:
        return _QUARTER_TURNS[0]
    try:
        matrix = struct.unpack("=9i", bytes(cast(Mapping[str, Any], first.side_data)["DISPLAYMATRIX"]))
    except (KeyError, ValueError, struct.error):  # no matrix, or a kind of side data that PyAV does not know
        return _QUARTER_TURNS[round(-first.rotation / 90) % 4]
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Turn(True, c < 0, b < 0)
    return Turn(False, a < 0, d < 0)
