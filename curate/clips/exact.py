"""Frame-accurate clips: decoded and encoded again as H.264, so that a clip holds exactly the frames of its span.

Why these defaults (all ours):

- CRF 18: the loss of x264 is hard to see, and a training set should not show artefacts of a second compression.
- A keyframe every 32 frames: a loader that reads a window from the middle decodes about one second before it.
- Preset veryfast: encoding is the most expensive part of the pass, and CRF keeps the quality.
- No B-frames: packets are stored in display order. So the file needs no edit list, its duration is right with a variable frame rate, and
  simple loaders read the right frames. The file is about 20 % larger.

Encoding is reproducible byte by byte on one machine.
"""

from collections import deque
from collections.abc import Generator, Mapping
from fractions import Fraction
from typing import Any

from av.error import FFmpegError
from av.video.frame import VideoFrame

from curate.clips.mp4 import Encoder, picture_of
from curate.clips.records import ClipOptions, Cut, CutError, Numbered, Shares, Span, edge_s_of, fps_of
from curate.video.letterbox import Box
from curate.video.open import Frame, Reader, VideoError, fit

SEEK_GAP_S = 5.0
"""The reader seeks over a longer gap between spans, when the gap holds a keyframe. Ours."""


def exact(uri: str, spans: list[Span], options: ClipOptions, storage_options: Mapping[str, Any] | None) -> Numbered:
    """Decodes and encodes again. Yields (index of the span, result) as the clips end."""
    return _Pass(uri, spans, options, storage_options).results()


class _Pass:
    """One pass over a source: the spans whose first frame has not come yet, and the clips being encoded."""

    def __init__(
        self, uri: str, spans: list[Span], options: ClipOptions, storage_options: Mapping[str, Any] | None
    ) -> None:
        self._uri, self._options, self._storage_options = uri, options, storage_options
        self._waiting = deque(enumerate(spans))
        self._writing: list[_Recode] = []
        self._key_s = 0.0
        """Time of the latest keyframe."""
        self._sought = -1
        """Index of the last span for which a seek was tried."""

    def results(self) -> Numbered:
        reader: Reader | None = None
        if self._waiting:
            reader = Reader(self._uri, self._waiting[0][1].start_s, storage_options=self._storage_options)
        while reader is not None:
            with reader:
                following = yield from self._read(reader)
            reader = following

    def _read(self, reader: Reader) -> Generator[tuple[int, Cut | CutError], None, Reader | None]:
        """Encodes from one reader. Returns the reader that continues beyond a gap or damage, None when all spans have a result."""
        reason = ""
        edge_s = edge_s_of(reader)
        try:
            for frame in reader:
                yield from self._take(frame, reader, edge_s)
                if self._writing:
                    continue
                if not self._waiting:
                    return None
                if (following := self._beyond_gap(frame.t_s)) is not None:
                    return following
        except VideoError as error:
            reason = str(error)
        return (yield from self._end(reader, reason))

    def _take(self, frame: Frame, reader: Reader, edge_s: float) -> Numbered:
        """Ends the clips before a frame, begins those that start at it, and adds it to all that are open."""
        if frame.is_keyframe:
            self._key_s = frame.t_s
        for clip in [clip for clip in self._writing if frame.t_s >= clip.span.end_s - edge_s]:
            self._writing.remove(clip)
            yield clip.index, clip.finish(frame.t_s)
        while self._waiting and frame.t_s >= self._waiting[0][1].start_s - edge_s:
            index, span = self._waiting.popleft()
            if frame.t_s < span.end_s - edge_s:
                self._writing.append(_Recode(index, span, self._options, reader, self._key_s))
            else:
                yield index, CutError(span.clip_id, "the source has no frame in this span")
        for clip in self._writing:
            clip.add(frame)

    def _beyond_gap(self, at_s: float) -> Reader | None:
        """Returns a reader closer to the next span, None when the gap is short or holds no keyframe."""
        index, span = self._waiting[0]
        if span.start_s - at_s <= SEEK_GAP_S or index == self._sought:
            return None
        self._sought = index
        return self._reader_after(at_s, span.start_s)

    def _end(self, reader: Reader, reason: str) -> Generator[tuple[int, Cut | CutError], None, Reader | None]:
        """Ends all clips at the end of the file, or where the decode broke off for a reason. Returns the reader beyond the damage, if any."""
        for clip in self._writing:
            yield clip.index, clip.finish(None, reason)
        self._writing.clear()
        while self._waiting:
            index, span = self._waiting[0]
            if reason and (following := self._reader_after(reader.decoded_s, span.start_s)) is not None:
                return following
            self._waiting.popleft()
            yield index, CutError(span.clip_id, reason or f"the file ends at {reader.decoded_s:.2f} s")
        return None

    def _reader_after(self, at_s: float, until_s: float) -> Reader | None:
        """Returns a reader that starts at a keyframe after `at_s` and up to `until_s`, None when there is no such keyframe."""
        try:
            reader = Reader(self._uri, until_s, storage_options=self._storage_options)
        except VideoError:
            return None
        if reader.first_s > at_s:
            return reader
        reader.close()
        return None


class _Recode:
    """One clip being encoded. A frame is held back until the next one comes, because its duration is known only then."""

    def __init__(self, index: int, span: Span, options: ClipOptions, reader: Reader, key_s: float):
        self.index = index
        self.span = span
        self._options = options
        self._reader = reader
        self._built_from_s = min(key_s, span.start_s)  # damage after the keyframe is visible in the frames
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
        """Encodes the held frame, shown until `until_s`; with a fixed rate, once for each tick before `nearest_until_s`."""
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
            self._error = f"the encoder failed: {error}"

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
        """The part of the source's picture that the clip shows; a line cut off to make a side even is ignored."""
        if self._scaled_px == self._size_px:
            return None
        (width, height), (x, y) = self._scaled_px, self._corner_px
        return x / width, y / height, size_px[0] / width, size_px[1] / height

    def finish(self, next_s: float | None, reason: str = "") -> Cut | CutError:
        """Ends the clip. `next_s`: time of the first frame after it, None at the end of the file."""
        assert self._held is not None
        step_s = 1.0 / self._reader.info.fps if self._reader.info.fps else self._held.duration_s
        shown_s = self._held.duration_s if next_s is None else next_s - self._held.t_s
        if shown_s > 1.5 * step_s:  # a gap in the source: the frame is shown up to the end of the span
            shown_s = max(step_s, min(shown_s, self.span.end_s - self._held.t_s))
        end_s = self._held.t_s + shown_s
        self._write(end_s, end_s - edge_s_of(self._reader))
        damaged = [at_s for at_s in self._reader.damage_s if self._built_from_s <= at_s < end_s]
        error = self._error
        if reason and next_s is None:
            error = reason
        elif damaged:
            error = self._reader.errors[self._reader.damage_s.index(damaged[0])]
        elif next_s is None and self.span.end_s - end_s > 1.5 * step_s:
            error = f"the file ends at {end_s:.2f} s, {self.span.end_s - end_s:.2f} s before this span does"
        return self._close(error, end_s)

    def _close(self, error: str, end_s: float) -> Cut | CutError:
        encoder = self._encoder
        try:
            if encoder is None or error:
                return CutError(self.span.clip_id, error or "the source has no frame in this span")
            mp4 = encoder.finish()
        except FFmpegError as failure:
            return CutError(self.span.clip_id, f"the encoder failed: {failure}")
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
