"""One mp4 in memory: a muxer that puts the header first, and an H.264 encoder that gives the same bytes on every run.

The file holds nothing that differs between runs (no date, no library version from FFmpeg), and x264 runs in one thread.
"""

from __future__ import annotations

import io
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
from av.codec.context import Flags, ThreadType
from av.error import FFmpegError
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange

from curate.video.letterbox import Box
from curate.video.open import Reader, pixels_of


class Mp4:
    """An mp4 being written. `container`: PyAV's output container."""

    def __init__(self) -> None:
        data = self._data = bytearray()
        self.container = av.open(
            _Writer(data),
            "w",
            format="mp4",
            container_options={"movflags": "+faststart", "fflags": "+bitexact"},
            # FFmpeg opens the file a second time, for reading, when it moves the header to the front.
            io_open=lambda _url, _flags, _options: _Handle(data),
        )

    def finish(self) -> bytes:
        """Writes what is pending and returns the whole file."""
        self.container.close()
        mp4 = bytes(self._data)
        self._data.clear()
        return mp4

    def abandon(self) -> None:
        """Closes a file that will not be used, in any state. Does nothing after `finish`."""
        with suppress(FFmpegError):  # an mp4 without a single packet has no trailer to write
            self.container.close()
        self._data.clear()


class _Handle:
    """A file in memory, open for reading, with its own position."""

    def __init__(self, data: bytearray):
        self._data = data
        self._at = 0

    def read(self, size: int) -> bytes:
        data = bytes(self._data[self._at : self._at + size])
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, len(self._data))[whence]
        return self._at

    def tell(self) -> int:
        return self._at


class _Writer(_Handle):
    """A file in memory, open for writing."""

    def write(self, data: bytes) -> int:
        self._data[self._at : self._at + len(data)] = data
        self._at += len(data)
        return len(data)


class Encoder:
    """Writes yuv420p pictures of one size into an mp4, at timestamps counted in ticks of `time_base`."""

    def __init__(
        self,
        first: VideoFrame,
        *,
        time_base: Fraction,
        fps: Fraction,
        codec: str,
        crf: int,
        gop: int,
        preset: str,
    ):
        self._mp4 = Mp4()
        self._time_base = time_base
        self._last_pts = -1
        self.n_frames = 0
        self.size_px = (first.width, first.height)
        options = {"crf": str(crf), "preset": preset}
        if codec == "libx264":
            options["a53cc"] = "0"  # leaves out the source's closed captions
            # The AVX-512 code of mbtree is not deterministic: it gave other bytes in 24 of 1854 runs (PyAV 18.1's x264),
            # against 0 of 2421 without it. So it is off, at the price of 4 to 44 % more bytes at the same CRF.
            options["x264-params"] = "mbtree=0"
        # The codec's name is known at run time only, which PyAV's types do not allow.
        add_stream: Any = self._mp4.container.add_stream
        self._stream = add_stream(codec, rate=fps, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = first.width, first.height, "yuv420p"
        context = self._stream.codec_context
        context.time_base = time_base
        context.gop_size = gop
        context.max_b_frames = 0
        context.thread_count = 1
        context.thread_type = ThreadType.NONE
        context.flags |= Flags.bitexact | Flags.frame_duration
        context.color_range = first.color_range
        context.color_primaries = first.color_primaries
        context.color_trc = first.color_trc
        context.colorspace = first.colorspace

    def add(self, picture: VideoFrame, pts: int, duration: int) -> None:
        """Encodes one picture. Raises FFmpegError when the encoder fails."""
        self._last_pts = max(pts, self._last_pts + 1)  # x264 requires strictly increasing timestamps
        picture.pts = self._last_pts
        picture.time_base = self._time_base
        picture.duration = max(1, duration)
        picture.pict_type = PictureType.NONE  # otherwise x264 repeats the source's frame types
        self._mp4.container.mux(self._stream.encode(picture))
        self.n_frames += 1

    def finish(self) -> bytes:
        """Returns the mp4. Raises FFmpegError when the encoder fails."""
        self._mp4.container.mux(self._stream.encode(None))
        return self._mp4.finish()

    def abandon(self) -> None:
        """Discards the clip."""
        self._mp4.abandon()


def picture_of(reader: Reader, raw: VideoFrame, size_px: tuple[int, int], box: Box) -> VideoFrame:
    """Returns a decoder's frame upright, as yuv420p in limited range, scaled to `size_px`, and cropped to `box` and to even sides.

    An odd side loses its last row or column; it is not stretched. The box's corner must be even. A frame that needs no change is returned as is.
    """
    turn = reader.turn
    scaled_px = size_px[::-1] if turn.transpose else size_px
    options: dict[str, Any] = {}
    if raw.color_range == ColorRange.JPEG or raw.format.name.startswith("yuvj") or raw.format.is_rgb:
        options["dst_color_range"] = ColorRange.MPEG
    scaled = reader.scaler.reformat(raw, *scaled_px, "yuv420p", **options)
    even_px = (min(box.width, size_px[0] - box.x) // 2 * 2, min(box.height, size_px[1] - box.y) // 2 * 2)
    if not any(turn) and even_px == size_px:
        return scaled
    picture = VideoFrame(*even_px, "yuv420p")
    picture.color_range, picture.colorspace = scaled.color_range, scaled.colorspace
    picture.color_primaries, picture.color_trc = scaled.color_primaries, scaled.color_trc
    for i, (source, target) in enumerate(zip(scaled.planes, picture.planes, strict=True)):
        upright = turn.apply(pixels_of(source))
        pixels = pixels_of(target)
        x, y = (box.x // 2, box.y // 2) if i else (box.x, box.y)  # chroma has half the rows and columns
        pixels[:] = upright[y : y + pixels.shape[0], x : x + pixels.shape[1]]
    return picture
