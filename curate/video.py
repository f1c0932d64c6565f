"""Video files: what a header says, the frames in order, the keyframes. With `curate/clips.py` the one door to PyAV.

Times are seconds on one clock: zero is the first frame that a decode from the start of the file gives. They come from
the stream's timestamps, never from a frame count, so a variable frame rate is right. Frames are turned upright and
given square pixels: the width is multiplied by the sample aspect ratio, the height is kept.

A decode uses one thread and is repeatable. PyAV's log hook stays as it comes, off: with decoder threads it can
deadlock on the interpreter lock. A worker that wants the decoder's words calls
`av.logging.restore_default_callback()` and reads its stderr.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, cast
from urllib.parse import unquote

import av
import fsspec
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

# A picture or a list of other files is not footage; a list could also make the decoder open what the user never named.
_NOT_VIDEO = {
    "image2": "a still image",
    "concat": "a playlist",
    "dash": "a playlist",
    "hls": "a playlist",
    "imf": "a playlist",
    "tty": "a text file",
}
_PROBE_PACKETS = 256  # ours: packets in which `probe` looks for the first picture
_READ_RETRIES = 8  # ours: damaged packets in a row after which the rest of a file counts as lost
_RESET_S = 1.0  # ours: timestamps that step back further than this start again (joined files); smaller steps are noise
_SEEK_BACK_S = (
    0.0,
    1.0,
    4.0,
    16.0,
    64.0,
)  # ours: how far before the target a seek is tried again when it lands behind it
_QUARTER_TURNS = ((False, False, False), (True, True, False), (False, True, True), (True, False, True))

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
        if path is None:
            handle = _open_bytes(uri, storage_options)
        try:
            # `file:` keeps a colon in a name from being taken for a protocol.
            container = av.open(handle if path is None else f"file:{path}", mode="r", metadata_errors="replace")
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
        stream = _video_stream(container)
        first = None
        with suppress(FFmpegError):  # damage is told by the decode; the header is still worth having
            for packet in islice(container.demux(stream), _PROBE_PACKETS):
                if frames := stream.decode(packet):
                    first = frames[0]
                    break
        return _describe(container, stream, first)


def keyframe_times(uri: str, storage_options: Mapping[str, Any] | None = None) -> list[float]:
    """Returns the times of all keyframes in seconds, ascending, from the packets alone.

    One picture is decoded to set the clock.

    Raises VideoError when the file cannot be read.
    """
    ticks: set[int] = set()
    with Reader(uri, storage_options=storage_options) as reader, open_input(uri, storage_options) as container:
        packets = (p for p in container.demux(_video_stream(container)) if p.is_keyframe and not p.is_discard)
        # A file cut short: the keyframes before the damage are what there is.
        with suppress(FFmpegError):
            for packet in packets:
                if (tick := packet_tick(packet)) is not None:
                    ticks.add(tick)
        if not ticks:  # a bare stream without timestamps
            return [frame.t_s for frame in reader if frame.is_keyframe]
        return [t_s for tick in sorted(ticks) if (t_s := reader.time_s(tick)) >= 0]


class Frame:
    """One decoded picture. `raw` is the decoder's own frame (planes, pixel format), neither turned nor scaled."""

    __slots__ = ("_reader", "duration_s", "index", "is_keyframe", "raw", "t_s")

    def __init__(self, reader: Reader, raw: VideoFrame, index: int, t_s: float, duration_s: float):
        self._reader = reader
        self.raw = raw
        self.index = index
        """Count from the first frame that this reader gave."""
        self.t_s = t_s
        self.duration_s = duration_s
        """As the container states it; with a variable frame rate the time to the next frame may differ."""
        self.is_keyframe = raw.key_frame

    def rgb(self, short_side_px: int | None = None) -> NDArray[np.uint8]:
        """Returns the picture as (H, W, 3), red green blue 0..255, at display size.

        `short_side_px` scales it down; nothing is ever enlarged.
        """
        return self._reader.convert(self.raw, "rgb24", short_side_px)

    def bgr(self, short_side_px: int | None = None) -> NDArray[np.uint8]:
        """Returns the picture as (H, W, 3), blue green red, the order OpenCV wants; see `rgb`."""
        return self._reader.convert(self.raw, "bgr24", short_side_px)


class Reader:
    """The frames of one file in order, once. Use as a context manager; iterating decodes.

        with Reader("a.mp4") as reader:
            for frame in reader:
                small = frame.rgb(short_side_px=64)
            if reader.short_read:
                print(reader.short_read)

    `from_s` starts at the last keyframe at or before it, on the same clock as a decode from the start. Damage in the
    middle is skipped and kept in `errors`. When the rest of the file cannot be read, the frames before are given and
    then VideoError is raised. Opening raises VideoError when no picture at all can be decoded.
    """

    def __init__(
        self, uri: str, from_s: float = 0.0, *, threads: int = 1, storage_options: Mapping[str, Any] | None = None
    ):
        self.uri = uri
        self.from_s = from_s
        self.errors: list[str] = []
        """One sentence for each piece of damage that was skipped."""
        self.decoded_s = 0.0
        """End of the last frame given."""
        self.exhausted = False
        """Whether the file was read to its end."""
        self._heard_s: float | None = None
        self._threads = threads
        self._storage_options = storage_options
        self._reformatters: dict[tuple[str, int, int], VideoReformatter] = {}
        self._stack = ExitStack()
        try:
            self._open()
            self._frames = self._raw_frames()
            first = next(self._frames, None)
            if first is None:
                raise VideoError("no picture of the video stream can be decoded")
            self.info = _describe(self._container, self._stream, first)
            self._turn = _turn(first)
            self._zero = first.pts or 0
            self._frames = self._start_at(from_s, chain([first], self._frames))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; frames already given stay valid."""
        self._stack.close()

    @property
    def audio_end_s(self) -> float | None:
        """End of the last audio packet met; tells a long sound track from a missing picture."""
        return None if self._heard_s is None else self._heard_s - self._zero * self._tick_s

    @property
    def short_read(self) -> str | None:
        """One sentence when the file was read to its end and gave less than its header promised, else None.

        A promise that the sound track keeps does not count. Tolerance (ours): 2 frames, at least 0.25 s and 1 %.
        """
        promised_s = self.info.duration_s
        if promised_s is None or not self.exhausted:
            return None
        slack_s = max(2.0 / (self.info.fps or 25.0), 0.25, 0.01 * promised_s)
        heard_s = self.audio_end_s or 0.0
        if self.decoded_s >= promised_s - slack_s:
            return None
        if self.info.duration_from == "container" and heard_s >= promised_s - slack_s:
            return None
        return f"the file ends early: {self.decoded_s:.2f} s decoded of {promised_s:.2f} s"

    def __iter__(self) -> Iterator[Frame]:
        tick_s = self._tick_s
        step_s = 1.0 / self.info.fps if self.info.fps else 0.04
        last_s: float | None = None
        reset_s = 0.0  # added to every timestamp after the file's clock began anew
        for index, raw in enumerate(self._frames):
            duration_s = raw.duration * tick_s if raw.duration else step_s
            if raw.pts is None:
                t_s = 0.0 if last_s is None else last_s + duration_s
            else:
                t_s = self.time_s(raw.pts) + reset_s
            if last_s is not None and t_s <= last_s:
                if t_s < last_s - _RESET_S:
                    reset_s += last_s + duration_s - t_s
                    t_s = last_s + duration_s
                    self.errors.append(f"timestamps start again at {last_s:.2f} s")
                else:
                    t_s = last_s + duration_s / 8  # keeps the order; falls back in step as soon as the timestamps do
            last_s = t_s
            self.decoded_s = t_s + duration_s
            yield Frame(self, raw, index, t_s, duration_s)
        self.exhausted = True

    def convert(self, raw: VideoFrame, pixel_format: str, short_side_px: int | None = None) -> NDArray[np.uint8]:
        """Returns (H, W, 3): scaled by area averaging straight to the target size, then turned upright."""
        width_px, height_px = fit(self.info.width_px, self.info.height_px, short_side_px)
        transpose, flip_x, flip_y = self._turn
        if transpose:
            width_px, height_px = height_px, width_px
        scaled = cast(NDArray[np.uint8], self.reformat(raw, width_px, height_px, pixel_format).to_ndarray())
        return np.ascontiguousarray(_upright(scaled, transpose, flip_x, flip_y))

    def reformat(self, raw: VideoFrame, width_px: int, height_px: int, pixel_format: str, **options: Any) -> VideoFrame:
        """Scales a decoder's frame, not turned. The scalers are kept: PyAV would set a new one up for each frame."""
        key = (pixel_format, width_px, height_px)
        scaler = self._reformatters.setdefault(key, VideoReformatter())
        return scaler.reformat(
            raw, width_px, height_px, pixel_format, interpolation=Interpolation.AREA, threads=1, **options
        )

    def _open(self) -> None:
        self._container = self._stack.enter_context(open_input(self.uri, self._storage_options))
        self._stream = _video_stream(self._container)
        self._stream.thread_count = self._threads
        self._stream.thread_type = ThreadType.AUTO if self._threads > 1 else ThreadType.NONE
        self._base = _time_base(self._stream)
        self._tick_s = float(self._base)

    def time_s(self, tick: int) -> float:
        """Returns the time of a timestamp of the video stream."""
        return (tick - self._zero) * self._base.numerator / self._base.denominator

    def _start_at(self, from_s: float, from_zero: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Returns the frames from the last keyframe at or before `from_s`, or all where seeking does not lead there."""
        if from_s <= 0:
            return from_zero
        n_errors = len(self.errors)
        for back_s in _SEEK_BACK_S:
            if from_s - back_s <= 0:
                break
            try:
                self._container.seek(round((from_s - back_s) / self._tick_s) + self._zero, stream=self._stream)
                frames = self._raw_frames(from_key=True)
                first = next(frames, None)
            except (FFmpegError, VideoError):
                continue
            finally:
                del self.errors[n_errors:]  # what a wrong landing could not decode is no damage
            if first is not None and first.pts is not None and self.time_s(first.pts) <= from_s + self._tick_s / 2:
                return chain([first], frames)
        self.close()
        self._open()
        return self._raw_frames()

    def _raw_frames(self, from_key: bool = False) -> Iterator[VideoFrame]:
        """Decodes from where the container stands; `from_key` leaves out what comes before the first keyframe."""
        key: int | None = None
        failures = 0
        streams: list[Stream] = [self._stream, *self._container.streams.audio[:1]]
        while True:
            try:
                for packet in self._container.demux(streams):
                    failures = 0
                    if packet.stream is not self._stream:
                        self._hear(packet)
                        continue
                    if from_key and key is None:
                        if not packet.is_keyframe:
                            continue
                        key = packet_tick(packet)
                    for raw in self._decode(cast("Packet[VideoStream]", packet)):
                        if key is None or raw.pts is None or raw.pts >= key:
                            yield raw
                return
            except FFmpegError as error:
                failures += 1
                if failures == 1:
                    self.errors.append(f"the file cannot be read on after {self.decoded_s:.2f} s")
                if failures == _READ_RETRIES:
                    yield from self._decode(None)
                    raise VideoError(
                        f"the rest of the file cannot be read: {self.decoded_s:.2f} s were decoded"
                    ) from error

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            frames = self._stream.decode(packet)
        except EOFError:
            return []
        except FFmpegError:
            self.errors.append(f"a damaged packet after {self.decoded_s:.2f} s was skipped")
            return []
        self.errors.extend(f"a damaged picture after {self.decoded_s:.2f} s" for frame in frames if frame.is_corrupt)
        return frames

    def _hear(self, packet: Packet[Stream]) -> None:
        if packet.pts is not None and packet.time_base:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._heard_s = end_s if self._heard_s is None else max(end_s, self._heard_s)


def fit(width_px: int, height_px: int, short_side_px: int | None) -> tuple[int, int]:
    """Returns (width_px, height_px) scaled to the given short side with the aspect kept; never larger than given."""
    short_px = min(width_px, height_px)
    if short_side_px is None or short_side_px >= short_px:
        return width_px, height_px
    scale = short_side_px / short_px
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def packet_tick(packet: Packet[Any]) -> int | None:
    """Returns the timestamp at which the packet's picture is shown (or decoded, where that is all there is)."""
    return packet.dts if packet.pts is None else packet.pts


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


def _video_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover of a song
            if stream.codec_context is None:
                raise VideoError("no decoder for the codec of the video stream")
            return stream
    raise VideoError("no video stream: the file holds audio only" if container.streams.audio else "no video stream")


def _time_base(stream: VideoStream) -> Fraction:
    assert stream.time_base is not None  # PyAV: None on streams that are being written only
    return stream.time_base


def _describe(container: InputContainer, stream: VideoStream, first: VideoFrame | None) -> VideoInfo:
    codec = stream.codec_context
    start = stream.start_time if first is None or first.pts is None else first.pts
    start_s = float((start or 0) * _time_base(stream))
    transpose, _, _ = _turn(first)
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
        return float(stream.duration * _time_base(stream)), "stream"
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


def _turn(first: VideoFrame | None) -> tuple[bool, bool, bool]:
    """Returns (transpose, flip_x, flip_y) that turn a decoded picture upright, from its display matrix.

    The matrix sends (x, y) to (a x + c y, b x + d y); only quarter turns and mirrors are told apart.
    """
    if first is None:
        return False, False, False
    try:
        matrix = struct.unpack("=9i", bytes(cast(Mapping[str, Any], first.side_data)["DISPLAYMATRIX"]))
    except (KeyError, ValueError, struct.error):  # none, or PyAV does not know another kind of side data
        return _QUARTER_TURNS[round(-first.rotation / 90) % 4]
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


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


def _upright(image: NDArray[np.uint8], transpose: bool, flip_x: bool, flip_y: bool) -> NDArray[np.uint8]:
    if transpose:
        image = image.swapaxes(0, 1)
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
