"""The frames of a file in order, decoded by PyAV, for the scan and the clip writer.

Times are seconds on the clock of `curate/video/open.py`. They come from the stream's timestamps, never from a frame count, so they are right
with a variable frame rate. Frames are turned upright and have square pixels: the width is multiplied by the sample aspect ratio, the height
is kept.

A decode uses one thread and is reproducible. PyAV's log hook stays off (its default), because with decoder threads it can deadlock on the
interpreter lock. In the sandbox's child, FFmpeg writes to stderr instead.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import Any, Self, cast

from av.codec.context import ThreadType
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from curate.video.clock import Clock
from curate.video.container import VideoError, open_input, packets, video_stream
from curate.video.frame import Frame, Scaler
from curate.video.header import describe, time_base, turn_of
from curate.video.losses import RESYNC, Losses
from curate.video.packet_index import STREAMS, clock_breaks, packet_tick

_READ_RETRIES = 8  # ours: number of consecutive damaged packets after which the rest of a file counts as lost
_NO_SEEK = ("mpeg",)  # program streams: the first timestamps after a seek belong to other pictures
_BLIND_JUMP_S = 2.0  # ours: minimum distance of a seek in a container without an index of keyframes
_SEEK_BACK_S = (0.0, 1.0, 4.0, 16.0, 64.0)  # ours: how much earlier to seek after a seek that landed after its target


class Reader:
    """The frames of one file in order, once. Use as a context manager; iterating decodes.

        with Reader("a.mp4") as reader:
            for frame in reader:
                small = frame.rgb(short_side_px=64)
            if reader.short_read:
                print(reader.short_read)

    `from_s` starts at a keyframe at or before that time (the last one, when the file has an index), on the same clock as a decode from the
    start. Damage in the middle is skipped and recorded in `errors`. When the rest of the file cannot be read, the frames before it are
    returned, then VideoError is raised. Opening raises VideoError when no picture can be decoded.
    """

    def __init__(
        self, uri: str, from_s: float = 0.0, *, threads: int = 1, storage_options: Mapping[str, Any] | None = None
    ):
        self.uri = uri
        self.from_s = from_s
        self.errors: list[str] = []
        """One sentence for each damaged place that was skipped."""
        self.damage_s: list[float] = []
        """The time of each entry of `errors`."""
        self.decoded_s = 0.0
        """End of the last frame returned."""
        self.exhausted = False
        """Whether the file was read to its end."""
        self._audio_end_s: float | None = None
        self._threads = threads
        self._storage_options = storage_options
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
            """Whether the timestamps of packets are unreliable and only those of `Frame` are right: AVI with B-frames."""
            self.stored_px = (first.width, first.height)
            """Stored size of the first picture, neither turned nor with square pixels."""
            self.turn = turn_of(first)
            """How to turn a decoder's frame upright."""
            self.scaler = Scaler(self.info, self.turn)
            """Converts the decoder's frames."""
            self._zero = self._tick(first) or 0
            self.first_s = 0.0
            """Time of the first frame of the iteration."""
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
        """Seeks to the last keyframe at or before `to_s`, forwards or backwards. Start a new iteration after it."""
        self.exhausted = False
        self._frames = self._start_at(to_s, None)

    def pays_to_jump(self, at_s: float, to_s: float) -> bool:
        """Whether `jump(to_s)` would land after the earlier time `at_s`, by the container's index; a guess when there is no index."""
        if self._container.format.name in _NO_SEEK:
            return False
        entries = self._stream.index_entries
        if len(entries) < 2:  # Matroska loads its index at the first seek
            return to_s - at_s > _BLIND_JUMP_S
        if len(entries) != self._n_entries:
            self._n_entries = len(entries)
            # Decoding times: with B-frames a few pictures early, which is slower but not wrong.
            self._keys_s = sorted(self.time_s(entry.timestamp) for entry in entries if entry.is_keyframe)
        return bisect_right(self._keys_s, to_s) > bisect_right(self._keys_s, at_s)

    def close(self) -> None:
        """Closes the file; frames already returned stay valid."""
        self._frames = iter(())  # a running decode keeps a reference to this reader and its decoder
        self._stack.close()

    @property
    def audio_end_s(self) -> float | None:
        """End of the last audio packet read. Distinguishes a long sound track from missing pictures."""
        return None if self._audio_end_s is None else self._audio_end_s - (self._zero or 0) * self._tick_s

    @property
    def short_read(self) -> str | None:
        """One sentence when the file was read to its end and is shorter than its header states, else None.

        A stated length that the sound track reaches does not count. Tolerance (ours): 2 frames, at least 0.25 s and 1 %; half a frame when
        bytes were skipped.
        """
        promised_s = self._promised_s
        if promised_s is None or not self.exhausted:
            return None
        step_s = 1.0 / (self.info.fps or 25.0)
        slack_s = 0.5 * step_s if self._losses.skipped_bytes else max(2.0 * step_s, 0.25, 0.01 * promised_s)
        audio_s = self.audio_end_s or 0.0
        if self.decoded_s >= promised_s - slack_s:
            return None
        if self.info.duration_from == "container" and audio_s >= promised_s - slack_s:
            return None
        return f"the file ends early: {self._progress()}"

    @property
    def trouble(self) -> str | None:
        """One sentence on missing or damaged frames so far, and the decoded length; None without any."""
        return self.short_read or self.damage()

    def damage(self, from_s: float = -math.inf, until_s: float = math.inf) -> str | None:
        """One sentence on the damage in [from_s, until_s), and the decoded length; None without any."""
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
            yield Frame(self.scaler, raw, index, shown.t_s, shown.duration_s)
        self.exhausted = True

    def _open(self) -> None:
        self._container = self._stack.enter_context(open_input(self.uri, self._storage_options))
        self._stream = video_stream(self._container)
        self._stream.thread_count = self._threads
        self._stream.thread_type = ThreadType.AUTO if self._threads > 1 else ThreadType.NONE
        self.time_base = time_base(self._stream)
        self._tick_s = float(self.time_base)
        # AVI has no presentation times, and those that FFmpeg guesses for B-frames are not monotonic. The decoder returns pictures
        # in display order, so their decoding times are right except for a constant offset, which `_zero` removes.
        self._clock_is_dts = self._container.format.name == "avi"

    def time_s(self, tick: int) -> float:
        """Returns the time of a timestamp of the video stream."""
        return (tick - (self._zero or 0)) * self.time_base.numerator / self.time_base.denominator

    @property
    def zero_s(self) -> float:
        """Time of the first frame on the file's own clock, in seconds."""
        return float((self._zero or 0) * self.time_base)

    def _tick(self, raw: VideoFrame) -> int | None:
        return raw.dts if self._clock_is_dts else raw.pts

    def _start_at(self, from_s: float, from_zero: Iterator[VideoFrame] | None) -> Iterator[VideoFrame]:
        """Returns the frames from the last keyframe at or before `from_s`, or all frames when a seek does not work."""
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
                del (
                    self.errors[n_errors:],
                    self.damage_s[n_errors:],
                )  # errors after a seek to a wrong place are not damage
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
        """Whether `from_s` and `jump` seek to a keyframe near the time; otherwise they decode from the start of the file.

        False for program streams, and for streams whose clock breaks (the check reads a transport stream once to its end).
        """
        name = self._container.format.name
        return name not in _NO_SEEK and not (name in STREAMS and clock_breaks(self.uri, self._storage_options))

    def _raw_frames(self, from_key: bool = False) -> Iterator[VideoFrame]:
        """Decodes from the container's position; `from_key` skips pictures before the first keyframe."""
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
                            self._take_audio(packet)
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
                    self._note(None, "the file cannot be read")
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
        """Records damage at a timestamp, at a time, or at the current position of the decode."""
        if self._zero is None:
            self.errors.append(f"{what} before the first picture")
            self.damage_s.append(0.0)
            return
        if at_s is None:
            at_s = self.decoded_s if tick is None else self.time_s(tick)
        self.errors.append(f"{what} at {at_s:.2f} s")
        self.damage_s.append(at_s)

    def _take_audio(self, packet: Packet[Stream]) -> None:
        if packet.pts is not None and packet.time_base:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._audio_end_s = end_s if self._audio_end_s is None else max(end_s, self._audio_end_s)
