"""Kept clips of one source as mp4 bytes, all of them in one pass over the file.

`exact` decodes and encodes again as H.264, so a clip holds the frames of its span and no other. `copy` keeps the
source's own packets and shrinks the span inward to keyframes, as SVD does (appendix C): the first keyframe at or after
the start, the last one at or before the end. Times are seconds from the first frame of the source.

Defaults are ours: CRF 18, where x264's loss is hard to see, because a training set should not carry a second
compression's marks; a keyframe every 32 frames, so that a loader which wants a window from the middle decodes about a
second to get there; preset veryfast, because encoding is the dearest part of the pass and CRF holds the quality. No
B-frames: the packets lie in the order of the pictures, so the file needs no edit list, its length is right with a
variable frame rate, and loaders that know neither read the right frames; it costs about a fifth more bytes.
Encoding is repeatable byte by byte on one machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import av
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from curate.errors import ConfigError
from curate.header import open_input, video_stream
from curate.mp4 import Encoder, Mp4, picture_of
from curate.video import Frame, Reader, VideoError, fit, packet_tick

Mode = Literal["exact", "copy"]
Numbered = Iterator[tuple[int, "Cut | CutError"]]

_SEEK_GAP_S = 5.0  # ours: a longer gap between spans is jumped over when a keyframe lies in it
_EDGE_S = 1e-3  # ours: how far a span's edge may lie off a frame's timestamp (a table rounded to milliseconds)


@dataclass
class ClipOptions:
    """How clips are written. Everything but `mode` belongs to `exact`."""

    mode: Mode = "exact"
    short_side_px: int | None = None
    """Scales the picture down to this short side, aspect kept; never enlarges."""
    fps: float | None = None
    """Constant frame rate; each frame is the source's nearest in time (repeated where the source is slower).
    None keeps the source's own timestamps."""
    crf: int = 18
    gop: int = 32
    """Largest distance between keyframes, in frames."""
    preset: str = "veryfast"
    codec: str = "libx264"


@dataclass(frozen=True)
class Span:
    """A piece of a source, [start_s, end_s)."""

    clip_id: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Cut:
    """A clip as written: mp4 bytes without sound, and what they hold when played."""

    clip_id: str
    mp4: bytes
    mode: Mode
    n_frames: int
    fps: float
    width_px: int
    height_px: int
    start_s: float
    """Time of the first frame in the source; differs from the span's in mode `copy`."""
    end_s: float
    """End of the last frame in the source."""
    duration_s: float
    """How long the mp4 plays."""


@dataclass(frozen=True)
class CutError:
    """A span that could not be cut, and why, in one sentence."""

    clip_id: str
    error: str


def cut(
    uri: str,
    spans: Sequence[Span],
    options: ClipOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[Cut | CutError]:
    """Cuts all spans out of one source and yields one result for each, by start time. Spans may touch or overlap.

    In memory are the clips being written, not the source. A span that fails costs itself alone; a source that cannot
    be opened fails them all, each with its own CutError.

    Raises ConfigError when this build of FFmpeg has no such encoder.
    """
    options = options or ClipOptions()
    if options.mode == "exact" and options.codec not in av.codecs_available:
        raise ConfigError(f"no encoder called '{options.codec}' in this build of FFmpeg; the default is 'libx264'")
    ordered = sorted(spans, key=lambda span: (span.start_s, span.end_s))
    finished: dict[int, Cut | CutError] = {}
    n_given = 0
    results = (_exact if options.mode == "exact" else _copy)(uri, ordered, options, storage_options)
    try:
        for index, result in results:
            finished[index] = result
            while n_given in finished:
                yield finished.pop(n_given)
                n_given += 1
    except VideoError as error:
        for index in range(n_given, len(ordered)):
            yield finished.get(index) or CutError(ordered[index].clip_id, str(error))


def _exact(uri: str, spans: list[Span], options: ClipOptions, storage_options: Mapping[str, Any] | None) -> Numbered:
    """Decodes and encodes again. Yields (index of the span, result) as the clips end."""
    waiting = deque(enumerate(spans))
    writing: list[_Recode] = []
    jumped_for = -1
    key_s = 0.0
    ahead = Reader(uri, spans[0].start_s, storage_options=storage_options) if spans else None
    while (reader := ahead) is not None:
        ahead, why = None, ""
        with reader:
            edge_s = _edge_s(reader)
            try:
                for frame in reader:
                    if frame.is_keyframe:
                        key_s = frame.t_s
                    for clip in [clip for clip in writing if frame.t_s >= clip.span.end_s - edge_s]:
                        writing.remove(clip)
                        yield clip.index, clip.finish(frame.t_s)
                    while waiting and frame.t_s >= waiting[0][1].start_s - edge_s:
                        index, span = waiting.popleft()
                        if frame.t_s < span.end_s - edge_s:
                            writing.append(_Recode(index, span, options, reader, key_s))
                        else:
                            yield index, CutError(span.clip_id, "no frame of the source lies in this span")
                    for clip in writing:
                        clip.add(frame)
                    if writing:
                        continue
                    if not waiting:
                        return
                    index, span = waiting[0]
                    if span.start_s - frame.t_s > _SEEK_GAP_S and index != jumped_for:
                        jumped_for = index
                        ahead = _reader_beyond(uri, span.start_s, frame.t_s, storage_options)
                        if ahead is not None:
                            break
            except VideoError as error:
                why = str(error)
            if ahead is None:  # the file ended, or broke off
                for clip in writing:
                    yield clip.index, clip.finish(None, why)
                writing.clear()
                while waiting and ahead is None:
                    if why:  # there may be sound frames behind the damage
                        ahead = _reader_beyond(uri, waiting[0][1].start_s, reader.decoded_s, storage_options)
                    if ahead is None:
                        index, span = waiting.popleft()
                        yield index, CutError(span.clip_id, why or f"the file ends at {reader.decoded_s:.2f} s")


def _reader_beyond(uri: str, from_s: float, at_s: float, storage_options: Mapping[str, Any] | None) -> Reader | None:
    """Returns a reader that starts between `at_s` and `from_s`, or None when no keyframe lies there."""
    try:
        reader = Reader(uri, from_s, storage_options=storage_options)
    except VideoError:
        return None
    if reader.first_s > at_s:
        return reader
    reader.close()
    return None


def _edge_s(reader: Reader) -> float:
    return min(_EDGE_S, 0.25 / (reader.info.fps or 25.0))


def _fps(reader: Reader, n_frames: int, duration_s: float) -> float:
    """The source's average rate where the clip agrees with it to a frame, its own otherwise."""
    stated = reader.info.fps
    if stated and abs(stated * duration_s - n_frames) < 1:
        return stated
    return n_frames / duration_s


class _Recode:
    """One clip being encoded. A frame is held back until the next one tells how long it is shown."""

    def __init__(self, index: int, span: Span, options: ClipOptions, reader: Reader, key_s: float):
        self.index = index
        self.span = span
        self._options = options
        self._reader = reader
        self._built_from_s = min(key_s, span.start_s)  # damage from the keyframe on shows in the frames
        self._size_px = fit(reader.info.width_px, reader.info.height_px, options.short_side_px)
        self._fps = None if options.fps is None else Fraction(options.fps).limit_denominator(1_000_000)
        self._time_base = reader.time_base if self._fps is None else 1 / self._fps
        self._encoder: Encoder | None = None
        self._held: Frame | None = None
        self._picture: VideoFrame | None = None
        self._start_s = 0.0
        self._error = "" if min(self._size_px) >= 2 else "the picture is less than 2 pixels wide or high"

    def add(self, frame: Frame) -> None:
        if self._held is None:
            self._start_s = frame.t_s
        else:
            self._write(frame.t_s, (self._held.t_s + frame.t_s) / 2)
        self._held, self._picture = frame, None

    def _write(self, until_s: float, nearest_until_s: float) -> None:
        """Encodes the held frame, shown until `until_s`, or at each tick of a fixed rate before `nearest_until_s`."""
        if self._error:
            return
        assert self._held is not None
        try:
            if self._fps is None:
                tick = (self._held.t_s - self._start_s) / self._time_base
                self._encode(round(tick), round((until_s - self._held.t_s) / self._time_base))
                return
            n = 0 if self._encoder is None else self._encoder.n_frames
            while self._start_s + n / self._fps < nearest_until_s:
                self._encode(n, 1)
                n += 1
        except (FFmpegError, ValueError) as error:
            self._error = f"the encoder refuses: {error}"

    def _encode(self, pts: int, duration: int) -> None:
        assert self._held is not None
        if self._picture is None:
            self._picture = picture_of(self._reader, self._held.raw, *self._size_px)
        if self._encoder is None:
            options = self._options
            self._encoder = Encoder(
                self._picture,
                time_base=self._time_base,
                fps=self._fps or Fraction(self._reader.info.fps or 25.0).limit_denominator(100_000),
                codec=options.codec,
                crf=options.crf,
                gop=options.gop,
                preset=options.preset,
            )
        self._encoder.add(self._picture, pts, duration)

    def finish(self, next_s: float | None, why: str = "") -> Cut | CutError:
        """Ends the clip; `next_s` is the time of the first frame after it, None at the end of the file."""
        assert self._held is not None
        step_s = 1.0 / self._reader.info.fps if self._reader.info.fps else self._held.duration_s
        shown_s = self._held.duration_s if next_s is None else next_s - self._held.t_s
        if shown_s > 1.5 * step_s:  # a gap in the source: up to the end of the span, no further
            shown_s = max(step_s, min(shown_s, self.span.end_s - self._held.t_s))
        end_s = self._held.t_s + shown_s
        self._write(end_s, end_s - _edge_s(self._reader))
        damaged = [at_s for at_s in self._reader.damage_s if self._built_from_s <= at_s < end_s]
        error = self._error
        if why and next_s is None:
            error = why
        elif damaged:
            error = self._reader.errors[self._reader.damage_s.index(damaged[0])]
        elif next_s is None and self.span.end_s - end_s > 1.5 * step_s:
            error = f"the file ends at {end_s:.2f} s, {self.span.end_s - end_s:.2f} s before this span does"
        return self._close(error, end_s)

    def _close(self, error: str, end_s: float) -> Cut | CutError:
        encoder = self._encoder
        try:
            if encoder is None or error:
                return CutError(self.span.clip_id, error or "no frame of the source lies in this span")
            mp4 = encoder.finish()
        except FFmpegError as failure:
            return CutError(self.span.clip_id, f"the encoder refuses: {failure}")
        finally:
            if encoder is not None:
                encoder.abandon()
        n_frames = encoder.n_frames
        duration_s = end_s - self._start_s if self._fps is None else float(n_frames / self._fps)
        return Cut(
            clip_id=self.span.clip_id,
            mp4=mp4,
            mode="exact",
            n_frames=n_frames,
            fps=_fps(self._reader, n_frames, duration_s) if self._fps is None else float(self._fps),
            width_px=self._size_px[0] // 2 * 2,
            height_px=self._size_px[1] // 2 * 2,
            start_s=self._start_s,
            end_s=end_s,
            duration_s=duration_s,
        )


def _copy(uri: str, spans: list[Span], options: ClipOptions, storage_options: Mapping[str, Any] | None) -> Numbered:
    """Copies packets between keyframes. Yields (index of the span, result) as the clips end."""
    waiting = deque(enumerate(spans))
    writing: list[_Remux] = []
    with Reader(uri, storage_options=storage_options) as reader, open_input(uri, storage_options) as container:
        stream = video_stream(container)
        edge_s = _edge_s(reader)
        end_s = 0.0
        why = ""
        if reader.guessed_order:
            raise VideoError("an AVI with B-frames does not say when its packets are shown; mode 'exact' can cut it")
        try:
            for packet in container.demux(stream):
                tick = packet_tick(packet)
                if tick is None or packet.is_discard:
                    continue
                t_s = reader.time_s(tick)
                end_s = max(end_s, reader.time_s(tick + (packet.duration or 0)))
                if packet.is_keyframe and t_s >= 0:
                    for clip in list(writing):
                        if t_s <= clip.span.end_s + edge_s:
                            clip.commit()
                        else:
                            writing.remove(clip)
                            yield clip.index, clip.finish()
                    while waiting and t_s >= waiting[0][1].start_s - edge_s:
                        writing.append(_Remux(*waiting.popleft(), reader, stream, tick))
                    if not waiting and not writing:
                        return
                for clip in writing:
                    clip.add(packet)
        except FFmpegError:
            why = f"the file cannot be read on after {end_s:.2f} s"
        for clip in writing:
            if not why and end_s <= clip.span.end_s + edge_s + 1.5 / (reader.info.fps or 25.0):
                clip.commit()  # the end of the file is as good an end as a keyframe
            yield clip.index, clip.finish(why)
        for index, span in waiting:
            yield index, CutError(span.clip_id, why or "no keyframe in this span; mode 'exact' can cut it")


class _Remux:
    """One clip being copied: packets up to the last keyframe inside the span, and those after it, not yet needed."""

    def __init__(self, index: int, span: Span, reader: Reader, stream: VideoStream, tick: int):
        self.index = index
        self.span = span
        self._reader = reader
        self._stream = stream
        self._tick = tick
        self._packets: list[Packet[VideoStream]] = []
        self._open: list[Packet[VideoStream]] = []

    def add(self, packet: Packet[VideoStream]) -> None:
        tick = packet_tick(packet)
        if tick is not None and tick >= self._tick:  # leading pictures lean on frames before the clip
            self._open.append(packet)

    def commit(self) -> None:
        self._packets += self._open
        self._open = []

    def finish(self, why: str = "") -> Cut | CutError:
        if why:
            return CutError(self.span.clip_id, why)
        if not self._packets:
            return CutError(self.span.clip_id, "no two keyframes in this span; mode 'exact' can cut it")
        if any(packet.is_corrupt for packet in self._packets):
            return CutError(self.span.clip_id, "the source is damaged in this span")
        mp4 = Mp4()
        try:
            data = self._mux(mp4)
        except (FFmpegError, ValueError) as error:
            return CutError(
                self.span.clip_id, f"the {self._reader.info.codec} stream does not fit into an mp4: {error}"
            )
        finally:
            mp4.abandon()
        info = self._reader.info
        time_s = self._reader.time_s
        start_s = time_s(self._tick)
        step = round(1 / (info.fps or 25.0) / self._reader.time_base)
        end_s = max(time_s((packet_tick(packet) or 0) + (packet.duration or step)) for packet in self._packets)
        return Cut(
            clip_id=self.span.clip_id,
            mp4=data,
            mode="copy",
            n_frames=len(self._packets),
            fps=_fps(self._reader, len(self._packets), end_s - start_s),
            width_px=info.width_px,
            height_px=info.height_px,
            start_s=start_s,
            end_s=end_s,
            duration_s=end_s - start_s,
        )

    def _mux(self, mp4: Mp4) -> bytes:
        out = mp4.container.add_stream_from_template(self._stream, opaque=True)
        for packet in self._packets:
            pts, dts, duration, clock = packet.pts, packet.dts, packet.duration, packet.time_base
            packet.stream = out
            packet.pts = None if pts is None else pts - self._tick
            packet.dts = None if dts is None else dts - self._tick
            mp4.container.mux_one(packet)
            # Muxing counts the packet in the mp4's ticks; an overlapping clip needs it as it was.
            packet.time_base, packet.pts, packet.dts, packet.duration = clock, pts, dts, duration
        return mp4.finish()
