"""Clips cut to the very frame: decoded and encoded again as H.264, so that a clip holds the frames of its span and no other.

Defaults are ours: CRF 18, where x264's loss is hard to see, because a training set should not carry a second compression's marks; a keyframe
every 32 frames, so that a loader which wants a window from the middle decodes about a second to get there; preset veryfast, because encoding
is the dearest part of the pass and CRF holds the quality. No B-frames: the packets lie in the order of the pictures, so the file needs no
edit list, its length is right with a variable frame rate, and loaders that know neither read the right frames; it costs about a fifth more
bytes. Encoding is repeatable byte by byte on one machine.
"""

from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from av.error import FFmpegError
from av.video.frame import VideoFrame

from curate.clips.mp4 import Encoder, picture_of
from curate.clips.records import ClipOptions, Cut, CutError, Numbered, Shares, Span, edge_s_of, fps_of
from curate.video.letterbox import Box
from curate.video.open import Frame, Reader, VideoError, fit

SEEK_GAP_S = 5.0
"""A longer gap between spans is jumped over when a keyframe lies in it. Ours."""


def exact(uri: str, spans: list[Span], options: ClipOptions, storage_options: Mapping[str, Any] | None) -> Numbered:
    """Decodes and encodes again. Yields (index of the span, result) as the clips end."""
    waiting = deque(enumerate(spans))
    writing: list[_Recode] = []
    jumped_for = -1
    key_s = 0.0
    ahead = Reader(uri, spans[0].start_s, storage_options=storage_options) if spans else None
    while (reader := ahead) is not None:
        ahead, why = None, ""
        with reader:
            edge_s = edge_s_of(reader)
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
                    if span.start_s - frame.t_s > SEEK_GAP_S and index != jumped_for:
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


class _Recode:
    """One clip being encoded. A frame is held back until the next one tells how long it is shown."""

    def __init__(self, index: int, span: Span, options: ClipOptions, reader: Reader, key_s: float):
        self.index = index
        self.span = span
        self._options = options
        self._reader = reader
        self._built_from_s = min(key_s, span.start_s)  # damage from the keyframe on shows in the frames
        whole_px = (reader.info.width_px, reader.info.height_px)
        box = span.box if options.crop and span.box is not None else Box(0, 0, *whole_px)
        self._size_px = fit(box.width, box.height, options.short_side_px)
        scale = self._size_px[0] / box.width, self._size_px[1] / box.height
        self._scaled_px = round(whole_px[0] * scale[0]), round(whole_px[1] * scale[1])
        self._corner_px = round(box.x * scale[0] / 2) * 2, round(box.y * scale[1] / 2) * 2  # chroma has half the rows
        self._fps = None if options.fps is None else Fraction(options.fps).limit_denominator(1_000_000)
        self._time_base = reader.time_base if self._fps is None else 1 / self._fps
        self._encoder: Encoder | None = None
        self._held: Frame | None = None
        self._picture: VideoFrame | None = None
        self._start_s = self._last_s = 0.0
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
            self._picture = picture_of(
                self._reader, self._held.raw, self._scaled_px, Box(*self._corner_px, *self._size_px)
            )
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
        self._last_s = self._held.t_s

    def _shows(self, size_px: tuple[int, int]) -> Shares | None:
        """The part of the source's picture that the clip shows. (A line lost to an odd side does not count.)"""
        if self._scaled_px == self._size_px:
            return None
        (width, height), (x, y) = self._scaled_px, self._corner_px
        return x / width, y / height, size_px[0] / width, size_px[1] / height

    def finish(self, next_s: float | None, why: str = "") -> Cut | CutError:
        """Ends the clip; `next_s` is the time of the first frame after it, None at the end of the file."""
        assert self._held is not None
        step_s = 1.0 / self._reader.info.fps if self._reader.info.fps else self._held.duration_s
        shown_s = self._held.duration_s if next_s is None else next_s - self._held.t_s
        if shown_s > 1.5 * step_s:  # a gap in the source: up to the end of the span, no further
            shown_s = max(step_s, min(shown_s, self.span.end_s - self._held.t_s))
        end_s = self._held.t_s + shown_s
        self._write(end_s, end_s - edge_s_of(self._reader))
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
            fps=fps_of(self._reader, n_frames, duration_s) if self._fps is None else float(self._fps),
            width_px=encoder.size_px[0],
            height_px=encoder.size_px[1],
            start_s=self._start_s,
            end_s=end_s,
            duration_s=duration_s,
            last_s=self._last_s,
            shows=self._shows(encoder.size_px),
        )
