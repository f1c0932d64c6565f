"""Video files: what a header says, the frames in order, the keyframes. With `curate/clips.py` the one door to PyAV.

Times are seconds on one clock: zero is the first frame that a decode from the start of the file gives. They come from
the stream's timestamps, never from a frame count, so a variable frame rate is right. Frames are turned upright and
given square pixels: the width is multiplied by the sample aspect ratio, the height is kept.

A decode uses one thread and is repeatable. PyAV's log hook stays as it comes, off: with decoder threads it can
deadlock on the interpreter lock. A worker that wants the decoder's words calls
`av.logging.restore_default_callback()` and reads its stderr.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
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

from curate.header import VideoError, VideoInfo, describe, open_input, probe, time_base, turn_of, video_stream

__all__ = ["Frame", "Reader", "VideoError", "VideoInfo", "fit", "keyframe_times", "open_input", "packet_tick", "probe"]

_READ_RETRIES = 8  # ours: damaged packets in a row after which the rest of a file counts as lost
# Without the flag swscale drops half of the colour across: mean error 1.8 instead of 0.6 of 255, and rgb is not bgr.
_SCALING = Interpolation.AREA | Interpolation.FULL_CHR_H_INT
_RESET_S = 1.0  # ours: timestamps that step back further than this start again (joined files); smaller steps are noise
_NO_SEEK = ("mpeg",)  # program streams: the first timestamps after a seek belong to other pictures
_SEEK_BACK_S = (0.0, 1.0, 4.0, 16.0, 64.0)  # ours: how much earlier to aim after a seek that landed behind its target


def keyframe_times(uri: str, storage_options: Mapping[str, Any] | None = None) -> list[float]:
    """Returns the times of all keyframes in seconds, ascending, from the packets alone.

    One picture is decoded to set the clock.

    Raises VideoError when the file cannot be read.
    """
    ticks: set[int] = set()
    with Reader(uri, storage_options=storage_options) as reader, open_input(uri, storage_options) as container:
        packets = (p for p in container.demux(video_stream(container)) if p.is_keyframe and not p.is_discard)
        # A file cut short: the keyframes before the damage are what there is.
        with suppress(FFmpegError):
            for packet in packets:
                if (tick := packet_tick(packet)) is not None:
                    ticks.add(tick)
        if reader.guessed_order or not ticks:  # packets do not say when they are shown: decode
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
        self._zero = 0
        self._stack = ExitStack()
        self._frames: Iterator[VideoFrame] = iter(())
        try:
            self._open()
            self._frames = self._raw_frames()
            first = next(self._frames, None)
            if first is None:
                raise VideoError("no picture of the video stream can be decoded")
            self.info = describe(self._container, self._stream, first)
            codec = self._stream.codec_context
            self.guessed_order = self._container.format.name == "avi" and codec.has_b_frames
            """Whether the packets' timestamps cannot be trusted, only those of `Frame`: AVI with B-frames."""
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

    def close(self) -> None:
        """Closes the file; frames already given stay valid."""
        self._frames = iter(())  # a running decode holds on to this reader and through it to the decoder
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
        last_s = -step_s
        n_errors = 0
        reset_s = 0.0  # added to every timestamp after the file's clock began anew
        for index, raw in enumerate(self._frames):
            duration_s = raw.duration * tick_s if raw.duration else step_s
            tick = self._tick(raw)
            t_s = last_s + duration_s if tick is None else self.time_s(tick) + reset_s
            if t_s <= last_s:
                if t_s < last_s - _RESET_S:
                    reset_s += last_s + duration_s - t_s
                    t_s = last_s + duration_s
                    self._note(last_s, "the timestamps start again")
                else:
                    t_s = last_s + duration_s / 8  # keeps the order; falls back in step as soon as the timestamps do
            if len(self.errors) > n_errors and t_s - last_s > 1.5 * step_s:
                self._note(t_s - step_s, "pictures are missing")
            n_errors = len(self.errors)
            last_s = t_s
            self.decoded_s = t_s + duration_s
            yield Frame(self, raw, index, t_s, duration_s)
        self.exhausted = True

    def convert(self, raw: VideoFrame, pixel_format: str, short_side_px: int | None = None) -> NDArray[np.uint8]:
        """Returns (H, W, 3): scaled by area averaging straight to the target size, then turned upright."""
        width_px, height_px = fit(self.info.width_px, self.info.height_px, short_side_px)
        if self.turn.transpose:
            width_px, height_px = height_px, width_px
        scaled = cast(NDArray[np.uint8], self.reformat(raw, width_px, height_px, pixel_format).to_ndarray())
        return np.ascontiguousarray(self.turn.apply(scaled))

    def reformat(self, raw: VideoFrame, width_px: int, height_px: int, pixel_format: str, **options: Any) -> VideoFrame:
        """Scales a decoder's frame, not turned. The scalers are kept: PyAV would set a new one up for each frame."""
        key = (pixel_format, width_px, height_px)
        scaler = self._reformatters.setdefault(key, VideoReformatter())
        if raw.format.is_rgb and pixel_format.startswith(
            "yuv"
        ):  # its tag says RGB, which is no colour matrix for the other side
            options["dst_colorspace"] = Colorspace.ITU601
        return scaler.reformat(raw, width_px, height_px, pixel_format, interpolation=_SCALING, threads=1, **options)

    def _open(self) -> None:
        self._container = self._stack.enter_context(open_input(self.uri, self._storage_options))
        self._stream = video_stream(self._container)
        self._stream.thread_count = self._threads
        self._stream.thread_type = ThreadType.AUTO if self._threads > 1 else ThreadType.NONE
        self.time_base = time_base(self._stream)
        self._tick_s = float(self.time_base)

    def time_s(self, tick: int) -> float:
        """Returns the time of a timestamp of the video stream."""
        return (tick - self._zero) * self.time_base.numerator / self.time_base.denominator

    def _tick(self, raw: VideoFrame) -> int | None:
        # AVI knows no presentation times; those that FFmpeg guesses for B-frames step back and forth. The decoder gives
        # pictures in order, so the time at which each comes out is right but for a constant, which the zero takes up.
        return raw.dts if self._container.format.name == "avi" else raw.pts

    def _start_at(self, from_s: float, from_zero: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Returns the frames from the last keyframe at or before `from_s`, or all where seeking does not lead there."""
        if from_s <= 0 or self._container.format.name in _NO_SEEK:
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
                        tick = self._tick(raw)
                        if key is None or tick is None or tick >= key:
                            yield raw
                return
            except FFmpegError as error:
                failures += 1
                if failures == 1:
                    self._note(self.decoded_s, "the file cannot be read on")
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
            tick = None if packet is None else packet_tick(packet)
            self._note(self.decoded_s if tick is None else self.time_s(tick), "a packet cannot be decoded")
            return []
        for frame in frames:
            if frame.is_corrupt:
                tick = self._tick(frame)
                self._note(self.decoded_s if tick is None else self.time_s(tick), "a picture is damaged")
        return frames

    def _note(self, at_s: float, what: str) -> None:
        self.errors.append(f"{what} at {at_s:.2f} s")
        self.damage_s.append(at_s)

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
