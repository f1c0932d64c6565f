"""The frames of a file in order, decoded by PyAV: what the scan and the clip writer read.

Times are seconds on the clock of `curate/video/open.py`. They come from the stream's timestamps, never from a frame count, so
a variable frame rate is right. Frames are turned upright and given square pixels: the width is multiplied by the sample
aspect ratio, the height is kept.

A decode uses one thread and is repeatable. PyAV's log hook stays as it comes, off: with decoder threads it can
deadlock on the interpreter lock. In the sandbox's child FFmpeg writes to stderr instead.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from av.codec.context import ThreadType
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from curate.video.clock import Clock
from curate.video.container import VideoError, open_input, packets, video_stream
from curate.video.header import describe, time_base, turn_of
from curate.video.losses import RESYNC, Losses
from curate.video.packet_index import STREAMS, clock_breaks, packet_tick

_READ_RETRIES = 8  # ours: damaged packets in a row after which the rest of a file counts as lost
# Without the flag swscale drops half of the colour across: mean error 1.8 instead of 0.6 of 255, and rgb is not bgr.
_SCALING = Interpolation.AREA | Interpolation.FULL_CHR_H_INT
_SAMPLING = Interpolation.FAST_BILINEAR
_NO_SEEK = ("mpeg",)  # program streams: the first timestamps after a seek belong to other pictures
_BLIND_JUMP_S = 2.0  # ours: a longer way is jumped over in a container that does not say where its keyframes are
_SEEK_BACK_S = (0.0, 1.0, 4.0, 16.0, 64.0)  # ours: how much earlier to aim after a seek that landed behind its target


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

    def planes(self, width_px: int, height_px: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Returns luma (height, width) and two chroma planes (height / 2, width / 2), 0..255 in video range; even sides.

        For looking at every frame: sampled with neighbours blended but not averaged, stretched to the size, not turned upright. Costs a
        tenth of `rgb`.
        """
        small = self._reader.reformat(self.raw, width_px, height_px, "yuv420p", interpolation=_SAMPLING)
        y, u, v = small.planes
        return pixels_of(y), pixels_of(u), pixels_of(v)

    def thumbnail(self, short_side_px: int) -> NDArray[np.uint8]:
        """Returns the picture as (H, W, 3), blue green red, scaled before it is converted: for a JPEG, which halves the colour too.

        Half the cost of `bgr`, and nearer to it after JPEG than `bgr` scaled in one step is.
        """
        return self._reader.convert(self.raw, "bgr24", short_side_px, first="yuv420p")

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

    `from_s` starts at a keyframe at or before it (the last one, where the file has an index), on the same clock as a
    decode from the start. Damage in the middle is skipped and kept in `errors`. When the rest of the file cannot be
    read, the frames before are given and then VideoError is raised. Opening raises VideoError when no picture at all
    can be decoded.
    """

    def __init__(
        self, uri: str, from_s: float = 0.0, *, threads: int = 1, storage_options: Mapping[str, Any] | None = None
    ):
        self.uri = uri
        self.from_s = from_s
        self.errors: list[str] = []
        """One sentence for each piece of damage that was skipped."""
        self.damage_s: list[float] = []
        """Where each of them lies: as long as `errors`."""
        self.decoded_s = 0.0
        """End of the last frame given."""
        self.exhausted = False
        """Whether the file was read to its end."""
        self._heard_s: float | None = None
        self._threads = threads
        self._storage_options = storage_options
        self._reformatters: dict[tuple[str, int, int], VideoReformatter] = {}
        self._zero: int | None = None
        self._promised_s: float | None = None
        self._stack = ExitStack()
        self._frames: Iterator[VideoFrame] = iter(())
        self._n_entries = 0
        self._keys_s: list[float] = []
        try:
            self._open()
            self._frames = self._raw_frames()
            first = next(self._frames, None)
            if first is None:
                raise VideoError("no picture of the video stream can be decoded", log=True)
            self.info = describe(self._container, self._stream, first)
            self._promised_s = self.info.duration_s
            codec = self._stream.codec_context
            self.guessed_order = self._container.format.name == "avi" and codec.has_b_frames
            """Whether the packets' timestamps cannot be trusted, only those of `Frame`: AVI with B-frames."""
            self.stored_px = (first.width, first.height)
            """Size of the first picture as it is stored: neither turned nor with square pixels."""
            self.turn = turn_of(first)
            """What turns a decoder's frame upright."""
            self._zero = self._tick(first) or 0
            self.first_s = 0.0
            """Time of the first frame that iterating gives."""
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

    def jump(self, to_s: float) -> None:
        """Goes on from the last keyframe at or before `to_s`, forwards or backwards; iterate anew after it."""
        self.exhausted = False
        self._frames = self._start_at(to_s, None)

    def pays_to_jump(self, at_s: float, to_s: float) -> bool:
        """Whether `jump(to_s)` would land behind `at_s`, which is earlier, by the container's index; a guess where it has none."""
        if self._container.format.name in _NO_SEEK:
            return False
        entries = self._stream.index_entries
        if len(entries) < 2:  # Matroska reads its index at the first seek
            return to_s - at_s > _BLIND_JUMP_S
        if len(entries) != self._n_entries:
            self._n_entries = len(entries)
            # Times of decoding: with B-frames a few pictures early, which costs time but no truth.
            self._keys_s = sorted(self.time_s(entry.timestamp) for entry in entries if entry.is_keyframe)
        return bisect_right(self._keys_s, to_s) > bisect_right(self._keys_s, at_s)

    def close(self) -> None:
        """Closes the file; frames already given stay valid."""
        self._frames = iter(())  # a running decode holds on to this reader and through it to the decoder
        self._stack.close()

    @property
    def audio_end_s(self) -> float | None:
        """End of the last audio packet met; tells a long sound track from a missing picture."""
        return None if self._heard_s is None else self._heard_s - (self._zero or 0) * self._tick_s

    @property
    def short_read(self) -> str | None:
        """One sentence when the file was read to its end and gave less than its header promised, else None.

        A promise that the sound track keeps does not count. Tolerance (ours): 2 frames, at least 0.25 s and 1 %; half a
        frame where bytes were skipped on the way.
        """
        promised_s = self._promised_s
        if promised_s is None or not self.exhausted:
            return None
        step_s = 1.0 / (self.info.fps or 25.0)
        slack_s = 0.5 * step_s if self._losses.passed_over else max(2.0 * step_s, 0.25, 0.01 * promised_s)
        heard_s = self.audio_end_s or 0.0
        if self.decoded_s >= promised_s - slack_s:
            return None
        if self.info.duration_from == "container" and heard_s >= promised_s - slack_s:
            return None
        return f"the file ends early: {self._progress()}"

    @property
    def trouble(self) -> str | None:
        """One sentence on what is missing or may be wrong in the frames given so far, and how far they go; None when all is well."""
        return self.short_read or self.damage()

    def damage(self, from_s: float = -math.inf, until_s: float = math.inf) -> str | None:
        """One sentence on the damage that lies in [from_s, until_s), and how far the frames given so far go; None when there is none."""
        errors = [error for error, at_s in zip(self.errors, self.damage_s, strict=True) if from_s <= at_s < until_s]
        if not errors:
            return None
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        return f"damaged: {errors[0]}{more}; {self._progress()}"

    def _progress(self) -> str:
        of = "" if self._promised_s is None else f" of {self._promised_s:.2f} s"
        return f"{self.decoded_s:.2f} s decoded{of}"

    def __iter__(self) -> Iterator[Frame]:
        step_s = 1.0 / self.info.fps if self.info.fps else 0.04
        clock = Clock(step_s, self.info.duration_s, self._container.format.name in STREAMS)
        last_s = 0.0
        n_errors = len(self.errors)
        for index, raw in enumerate(self._frames):
            tick = self._tick(raw)
            shown = clock.show(None if tick is None else self.time_s(tick), raw.duration * self._tick_s)
            if shown.broke is not None:
                self._note(None, shown.broke, last_s)
            suspected = self._losses.suspected() or len(self.errors) > n_errors
            if index and ((suspected and shown.steps > 1.5) or (shown.even and shown.steps > 1.75)):
                self._note(None, "pictures are missing", shown.t_s - step_s)
            n_errors = len(self.errors)
            last_s = shown.t_s
            self.decoded_s = shown.t_s + shown.duration_s
            yield Frame(self, raw, index, shown.t_s, shown.duration_s)
        self.exhausted = True

    def convert(
        self, raw: VideoFrame, pixel_format: str, short_side_px: int | None = None, *, first: str | None = None
    ) -> NDArray[np.uint8]:
        """Returns (H, W, 3): scaled by area averaging straight to the target size, then turned upright.

        `first` is a pixel format in which to scale, with a conversion to `pixel_format` after that.
        """
        width_px, height_px = fit(self.info.width_px, self.info.height_px, short_side_px)
        if self.turn.transpose:
            width_px, height_px = height_px, width_px
        if first is not None:
            raw = self.reformat(raw, width_px, height_px, first, interpolation=Interpolation.AREA)
        scaled = cast(NDArray[np.uint8], self.reformat(raw, width_px, height_px, pixel_format).to_ndarray())
        return np.ascontiguousarray(self.turn.apply(scaled))

    def reformat(self, raw: VideoFrame, width_px: int, height_px: int, pixel_format: str, **options: Any) -> VideoFrame:
        """Scales a decoder's frame, not turned. The scalers are kept: PyAV would set a new one up for each frame."""
        key = (pixel_format, width_px, height_px)
        scaler = self._reformatters.get(key)
        if scaler is None:
            scaler = self._reformatters[key] = VideoReformatter()
        if pixel_format.startswith("yuv") and raw.format.is_rgb:
            # Its tag says RGB, which is no colour matrix for the other side.
            options["dst_colorspace"] = Colorspace.ITU601
        options.setdefault("interpolation", _SCALING)
        return scaler.reformat(raw, width_px, height_px, pixel_format, threads=1, **options)

    def _open(self) -> None:
        self._container = self._stack.enter_context(open_input(self.uri, self._storage_options))
        self._stream = video_stream(self._container)
        self._stream.thread_count = self._threads
        self._stream.thread_type = ThreadType.AUTO if self._threads > 1 else ThreadType.NONE
        self.time_base = time_base(self._stream)
        self._tick_s = float(self.time_base)
        # AVI knows no presentation times; those that FFmpeg guesses for B-frames step back and forth. The decoder gives
        # pictures in order, so the time at which each comes out is right but for a constant, which the zero takes up.
        self._clock_is_dts = self._container.format.name == "avi"

    def time_s(self, tick: int) -> float:
        """Returns the time of a timestamp of the video stream."""
        return (tick - (self._zero or 0)) * self.time_base.numerator / self.time_base.denominator

    @property
    def zero_s(self) -> float:
        """Time of the first frame on the file's own clock."""
        return float((self._zero or 0) * self.time_base)

    def _tick(self, raw: VideoFrame) -> int | None:
        return raw.dts if self._clock_is_dts else raw.pts

    def _start_at(self, from_s: float, from_zero: Iterator[VideoFrame] | None) -> Iterator[VideoFrame]:
        """Returns the frames from the last keyframe at or before `from_s`, or all where seeking does not lead there."""
        if from_zero is not None and (from_s <= 0 or not self.seekable):
            return from_zero
        n_errors = len(self.errors)
        for back_s in _SEEK_BACK_S if self.seekable else ():
            if from_s - back_s <= 0:
                break
            try:
                self._container.seek(round((from_s - back_s) / self._tick_s) + (self._zero or 0), stream=self._stream)
                frames = self._raw_frames(from_key=True)
                first = next(frames, None)
            except MemoryError:
                raise
            except (FFmpegError, VideoError):
                continue
            finally:
                del self.errors[n_errors:], self.damage_s[n_errors:]  # what a wrong landing cannot decode is no damage
            tick = None if first is None else self._tick(first)
            if first is None or tick is None:
                continue
            first_s = self.time_s(tick)
            if 0 <= first_s <= from_s + self._tick_s / 2:
                self.first_s = first_s
                return chain([first], frames)
        self.close()
        self._open()
        self.first_s = 0.0
        return self._raw_frames()

    @property
    def seekable(self) -> bool:
        """Whether `from_s` and `jump` lead to a keyframe near the time; else they decode from the start of the file.

        False for program streams, and for streams whose clock breaks (which reads a transport stream once to its end).
        """
        name = self._container.format.name
        return name not in _NO_SEEK and not (name in STREAMS and clock_breaks(self.uri, self._storage_options))

    def _raw_frames(self, from_key: bool = False) -> Iterator[VideoFrame]:
        """Decodes from where the container stands; `from_key` leaves out what comes before the first keyframe."""
        key: int | None = None
        failures = 0
        streams: list[Stream] = [self._stream, *self._container.streams.audio[:1]]
        if self._container.format.name in RESYNC:
            streams = list(self._container.streams)
        self._losses = Losses(self._container.format.name, self._stream.codec_context.name)
        while True:
            try:
                for packet in packets(self._container, streams):
                    failures = 0
                    stream = packet.stream
                    if self._losses.watches:
                        self._losses.packet(packet, stream is self._stream)
                    if stream is not self._stream:
                        if stream.type == "audio":
                            self._hear(packet)
                        continue
                    if from_key and key is None:
                        if not packet.is_keyframe:
                            continue
                        key = packet_tick(packet)
                    for raw in self._decode(cast("Packet[VideoStream]", packet)):
                        tick = self._tick(raw)
                        if key is None or tick is None or tick >= key:
                            yield raw
                return
            except MemoryError:
                raise
            except FFmpegError as error:
                failures += 1
                if failures == 1:
                    self._note(None, "the file cannot be read on")
                if failures == _READ_RETRIES:
                    yield from self._decode(None)
                    raise VideoError(f"the rest of the file cannot be read: {self._progress()}", log=True) from error

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            frames = self._stream.decode(packet)
        except EOFError:
            return []
        except MemoryError:
            raise
        except FFmpegError:
            self._note(None if packet is None else packet_tick(packet), "a packet cannot be decoded")
            return []
        for frame in frames:
            if self._losses.watches:
                self._losses.picture(self._tick(frame))
            if frame.is_corrupt:
                self._note(self._tick(frame), "a picture is damaged")
        return frames

    def _note(self, tick: int | None, what: str, at_s: float | None = None) -> None:
        """Notes damage at a timestamp, at a time, or where the decode stands."""
        if self._zero is None:
            self.errors.append(f"{what} before the first picture")
            self.damage_s.append(0.0)
            return
        if at_s is None:
            at_s = self.decoded_s if tick is None else self.time_s(tick)
        self.errors.append(f"{what} at {at_s:.2f} s")
        self.damage_s.append(at_s)

    def _hear(self, packet: Packet[Stream]) -> None:
        if packet.pts is not None and packet.time_base:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._heard_s = end_s if self._heard_s is None else max(end_s, self._heard_s)


def pixels_of(plane: Any) -> NDArray[np.uint8]:
    """Returns a plane of 8 bits as a view, (H, W)."""
    return np.ndarray((plane.height, plane.width), np.uint8, plane, strides=(plane.line_size, 1))


def fit(width_px: int, height_px: int, short_side_px: int | None) -> tuple[int, int]:
    """Returns (width_px, height_px) scaled to the given short side with the aspect kept; never larger than given."""
    short_px = min(width_px, height_px)
    if short_side_px is None or short_side_px >= short_px:
        return width_px, height_px
    scale = short_side_px / short_px
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))
