"""Damaged and unusual files with their expected results. They are written with PyAV and by changing bytes, because CI has no ffmpeg command.

`python -m tests.awkward DIR` writes all of them. Pictures carry their number (tests/videos.py), so that additional, missing and misplaced frames
are detected. Most files hold 50 pictures of 160 x 96 at 25 fps, with a keyframe every 12.
"""

import os
import random
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from tests.videos import numbered_frames, write_video

N, FPS = 50, 25
FAST = {"movflags": "faststart"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
X265 = {"x265-params": "log-level=none:pools=1", "preset": "ultrafast"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}
AV1 = {"preset": "10", "crf": "12", "svtav1-params": "lp=1"}
GAPS_S = [round(0.04 * i + 0.002 * i * i, 3) for i in range(N)]


@dataclass(frozen=True)
class Awkward:
    """One file and its expected result: refused, or pictures, with an error when some are missing or wrong."""

    name: str
    what: str
    make: Callable[[Path], Any]
    refused: str | None = None
    """Pattern of the error when there is no video to decode."""
    numbers: Sequence[int] = range(N)
    """Numbers in the pictures of the undamaged file, in order."""
    error: str | None = None
    """Pattern of the error that comes with the pictures of a damaged file."""
    first: int = 0
    """Number of right pictures at the beginning of a damaged file."""
    last: int = 0
    """Number of right pictures at its end."""
    most: int = 0
    """Maximum number of pictures of a damaged file."""
    length_s: float | None = None
    """Length from the first picture to the end; None: 0.04 s for each number."""
    size_px: tuple[int, int] = (160, 96)

    @property
    def expected_s(self) -> float:
        return len(self.numbers) / FPS if self.length_s is None else self.length_s


CUT = r"ends early: \d\.\d+ s decoded of|rest of the file cannot be read: \d\.\d+ s decoded of|damaged"
DAMAGE = "damaged|cannot be decoded|pictures are missing"

AWKWARD: list[Awkward] = []


def awkward(name: str, what: str, **outcome: Any) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    """Adds a file that the decorated function writes."""

    def enter(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
        AWKWARD.append(Awkward(name, what, make, **outcome))
        return make

    return enter


def make_all(folder: Path) -> dict[str, Path]:
    """Writes every file into an existing folder; name to path."""
    paths = {}
    for one in AWKWARD:
        path = folder / one.name
        one.make(path)
        paths[one.name] = path
    return paths


# --- writing and changing -------------------------------------------------------------------------------------------


@cache
def pictures(n: int = N, width_px: int = 160, height_px: int = 96, first: int = 0) -> NDArray[np.uint8]:
    return numbered_frames(n, width_px, height_px, first)


def video(path: Path, frames: Any = None, fps: Any = FPS, **options: Any) -> bytearray:
    """Writes an intact file; returns its bytes."""
    write_video(path, pictures() if frames is None else frames, fps, **options)
    return bytearray(path.read_bytes())


def box(data: bytes | bytearray, *names: bytes) -> tuple[int, int]:
    """The byte range of the content of a box of an mp4, [start, end)."""
    start, end = 0, len(data)
    for name in names:
        at = start
        while at + 8 <= end:
            size, kind = struct.unpack_from(">I4s", data, at)
            if kind == name:
                start, end = at + 8, at + size
                break
            at += size
        else:
            raise LookupError(name)
    return start, end


TRACK = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def put(data: bytearray, at: int, layout: str, *values: int) -> None:
    struct.pack_into(layout, data, at, *values)


def remux(source: Path, target: Path, first_packet: int = 0, **options: Any) -> None:
    """Copies the packets of the video from one container to another, leaving out the first ones."""
    with av.open(str(source)) as given, av.open(str(target), "w", **options) as made:
        stream = made.add_stream_from_template(given.streams.video[0], opaque=True)
        packets = (packet for packet in given.demux(given.streams.video[0]) if packet.dts is not None)
        for i, packet in enumerate(packets):
            if i >= first_packet:
                packet.stream = stream
                made.mux(packet)


def silence(container: Any, stream: Any, seconds: float) -> None:
    for k in range(round(seconds * 48_000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, k * 1024, Fraction(1, 48_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def encode(container: Any, stream: Any, frames: NDArray[np.uint8]) -> None:
    for frame in frames:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
    container.mux(stream.encode(None))


def video_stream(container: Any, codec: str = "libx264", width_px: int = 160, height_px: int = 96) -> Any:
    options = {"crf": "12", "preset": "ultrafast"} if codec == "libx264" else {}
    stream = container.add_stream(codec, rate=FPS, options=options)
    stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p" if codec != "mjpeg" else "yuvj420p"
    stream.codec_context.gop_size, stream.codec_context.thread_count = 12, 1
    return stream


# --- no video -------------------------------------------------------------------------------------------------------


@awkward("zero_bytes.mp4", "zero bytes", refused=r"^the file is empty \(0 bytes\)$")
def _(path: Path) -> None:
    path.write_bytes(b"")


@awkward("one_byte.mp4", "one byte", refused="^not a video")
def _(path: Path) -> None:
    path.write_bytes(b"\0")


@awkward("text.mp4", "a text file", refused="^not a video: a text file$")
def _(path: Path) -> None:
    path.write_text("not a video\n" * 200)


@awkward("page.mp4", "an HTML page", refused="^not a video: an HTML page$")
def _(path: Path) -> None:
    path.write_text("<!doctype html><html><body>404 not found</body></html>\n" * 50)


@awkward("noise.mp4", "random bytes", refused="^not a video, or its header is damaged")
def _(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(100_000))


@awkward("picture.mp4", "a PNG picture", refused="^not a video: a still image$")
def _(path: Path) -> None:
    with av.open(str(path), "w", format="image2", container_options={"update": "1"}) as container:
        stream: Any = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "rgb24"
        encode(container, stream, pictures(1))


@awkward("playlist.mp4", "a playlist (m3u8) of another file", refused="^not a video")
def _(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\ncut_50.ts\n#EXT-X-ENDLIST\n")


@awkward("concat.mp4", "a concat script", refused="^not a video")
def _(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile one_frame.mp4\n")


@awkward("moov_missing.mp4", "mp4, its header at the end cut off", refused=r"^the mp4 header \(moov\) is missing")
def _(path: Path) -> None:
    data = video(path)
    path.write_bytes(data[: len(data) // 2])


@awkward("cut_1.mp4", "mp4, 1 % of it", refused=r"^the mp4 header \(moov\) is missing")
def _(path: Path) -> None:
    data = video(path, container_options=FAST)
    path.write_bytes(data[: len(data) // 100])


@awkward("audio_only.mp4", "sound only", refused="^no video stream: the file holds audio only$")
def _(path: Path) -> None:
    with av.open(str(path), "w") as container:
        silence(container, container.add_stream("aac", rate=48_000), 1.0)


@awkward("song.mp4", "sound with a cover picture", refused="^no video stream: the file holds audio only$")
def _(path: Path) -> None:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48_000)
        cover = video_stream(container, "mjpeg")
        cover.disposition = Disposition.attached_pic
        encode(container, cover, pictures(1))
        silence(container, sound, 1.0)


@awkward("unknown_codec.mp4", "mp4 with an unknown codec", refused="^no decoder for the codec")
def _(path: Path) -> None:
    data = video(path)
    path.write_bytes(data.replace(b"avc1", b"zzzz"))


@awkward(
    "broken_avcC.mp4",
    "mp4, decoder settings (avcC) overwritten",
    refused="^no picture of the video stream can be decoded",
)
def _(path: Path) -> None:
    data = video(path)
    at = data.index(b"avcC") + 4
    data[at : at + 32] = b"\xff" * 32
    path.write_bytes(data)


@awkward("missing.mp4", "no such file", refused="^no such file: .*missing.mp4$")
def _(path: Path) -> None:
    path.unlink(missing_ok=True)


@awkward("dangling.mp4", "a broken symbolic link", refused="^no such file: .*dangling.mp4$")
def _(path: Path) -> None:
    path.symlink_to(path.with_name("gone.mp4"))


@awkward("directory.mp4", "a directory", refused="^a directory, not a video file$")
def _(path: Path) -> None:
    path.mkdir()


@awkward("pipe.mp4", "a named pipe", refused="^not a regular file")
def _(path: Path) -> None:
    os.mkfifo(path)


@awkward("unreadable.mp4", "a file without read permission", refused="^no permission to read the file$")
def _(path: Path) -> None:
    video(path)
    path.chmod(0)


# --- damaged --------------------------------------------------------------------------------------------------------


def _cut(share: float, **options: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        data = video(path, **options)
        path.write_bytes(data[: int(len(data) * share)])

    return make


awkward("cut_50.mp4", "mp4, 50 % of it", error=CUT, first=16, most=32)(_cut(0.5, container_options=FAST))
awkward("cut_99.mp4", "mp4, 99 % of it", error=CUT, first=44, most=49)(_cut(0.99, container_options=FAST))
awkward("cut_50.mkv", "Matroska, 50 % of it", error=CUT, first=16, most=32)(_cut(0.5))
awkward(
    "cut_50.ts",
    "transport stream, 50 % of it (its header states no length)",
    error=CUT,
    first=16,
    most=32,
    length_s=1.0,
)(_cut(0.5))
awkward("cut_50.avi", "AVI, 50 % of it", error=CUT, first=3, most=30)(_cut(0.5, codec="mpeg4"))
awkward("cut_50.flv", "FLV, 50 % of it", error=CUT, first=16, most=32)(_cut(0.5))
awkward("cut_60_fragments.mp4", "fragmented mp4, 60 %", error=CUT, first=20, most=40, length_s=1.44)(
    _cut(0.6, container_options=FRAGMENTS)
)


@awkward("bit_flips.mp4", "mp4, 12 single bits flipped", error=DAMAGE, first=2, most=N)
def _(path: Path) -> None:
    data = video(path)
    start, end = box(data, b"mdat")
    chance = random.Random(1)
    for _ in range(12):
        data[chance.randrange(start + 2000, end - 2000)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


@awkward("corrupt_middle.mp4", "mp4, 600 bytes in the middle overwritten", error=DAMAGE, first=16, last=14, most=N)
def _(path: Path) -> None:
    data = video(path)
    middle = len(data) // 2
    data[middle : middle + 600] = b"\xff" * 600
    path.write_bytes(data)


@awkward("corrupt_middle_hevc.mp4", "HEVC, 600 bytes in the middle overwritten", error=DAMAGE, first=12, most=N)
def _(path: Path) -> None:
    data = video(path, codec="libx265", options=X265)
    middle = len(data) // 2
    data[middle : middle + 600] = b"\xff" * 600
    path.write_bytes(data)


@awkward("corrupt_middle.webm", "VP9, 600 bytes in the middle overwritten", error=DAMAGE, first=12, most=N - 1)
def _(path: Path) -> None:
    data = video(path, codec="libvpx-vp9", options=VP9)
    middle = len(data) // 2
    data[middle : middle + 600] = b"\xff" * 600
    path.write_bytes(data)


@awkward(
    "corrupt_middle.mkv",
    "Matroska, 3000 bytes in the middle overwritten: blocks are lost",
    error=DAMAGE,
    first=12,
    last=12,
    most=N - 1,
)
def _(path: Path) -> None:
    data = video(path)
    middle = len(data) // 2
    data[middle : middle + 3000] = random.Random(2).randbytes(3000)
    path.write_bytes(data)


@awkward("packet_loss.ts", "transport stream, 40 packets lost in the middle", error=DAMAGE, first=12, last=12, most=N)
def _(path: Path) -> None:
    data = video(path)
    middle = len(data) // 2 // 188 * 188
    path.write_bytes(data[:middle] + data[middle + 40 * 188 :])


@awkward("garbage_head.ts", "transport stream after 1000 bytes of other data")
def _(path: Path) -> None:
    path.write_bytes(random.Random(3).randbytes(1000) + video(path))


@awkward("joined_midway.ts", "transport stream that begins in the middle of a group of pictures", numbers=range(12, N))
def _(path: Path) -> None:
    whole = path.with_name(".whole.ts")
    video(whole)
    remux(whole, path, first_packet=5)
    whole.unlink()


@awkward(
    "broken_stts.mp4",
    "mp4, durations (stts) overwritten",
    refused="^the timestamps are damaged: 12800 pictures a second$",
)
def _(path: Path) -> None:
    data = video(path)
    start, _ = box(data, *TRACK, b"stts")
    put(data, start + 8, ">II", N, 0xFFFFFF00)
    path.write_bytes(data)


@awkward(
    "endless_stts.mp4",
    "mp4, one duration (stts) of 46 hours",
    refused="^the timestamps are damaged: a picture every 46.6 hours$",
)
def _(path: Path) -> None:
    data = video(path)
    start, _ = box(data, *TRACK, b"stts")
    put(data, start + 8, ">II", N, 0x7FFFFFFF)
    path.write_bytes(data)


@awkward(
    "far_timestamp.ts", "transport stream, the last timestamp a day late", error="timestamps jump", first=N, most=N
)
def _(path: Path) -> None:
    times_s = [i / FPS for i in range(N)]
    times_s[-1] = 80_000.0
    video(path, times_s=times_s)


@awkward("stts_too_long.mp4", "mp4, durations (stts) for twice as many pictures")
def _(path: Path) -> None:
    data = video(path)
    start, _ = box(data, *TRACK, b"stts")
    put(data, start + 8, ">I", 2 * N)
    path.write_bytes(data)


@awkward("broken_stsz.mp4", "mp4, sizes (stsz) wrong from the 25th picture on", error=CUT, first=25, most=25)
def _(path: Path) -> None:
    data = video(path)
    start, end = box(data, *TRACK, b"stsz")
    for at in range(start + 12 + 4 * 25, end, 4):
        put(data, at, ">I", 77_777)
    path.write_bytes(data)


@awkward(
    "broken_stco.mp4",
    "mp4, offsets (stco) beyond the end of the file",
    refused="^no picture of the video stream can be decoded",
)
def _(path: Path) -> None:
    data = video(path)
    start, end = box(data, *TRACK, b"stco")
    for at in range(start + 8, end, 4):
        put(data, at, ">I", 0x7FFFFFF0)
    path.write_bytes(data)


@awkward("no_stss.mp4", "mp4 without a list of keyframes (stss)")
def _(path: Path) -> None:
    data = video(path)
    path.write_bytes(data.replace(b"stss", b"free"))


@awkward("no_index.avi", "AVI without an index")
def _(path: Path) -> None:
    data = video(path, codec="mpeg4")
    path.write_bytes(data.replace(b"idx1", b"JUNK"))


@awkward("promises_more.mp4", "mp4 whose header states twice the length")
def _(path: Path) -> None:
    data = video(path, container_options=FAST)
    start, _ = box(data, b"moov", b"trak", b"mdia", b"mdhd")
    (length,) = struct.unpack_from(">I", data, start + 16)
    put(data, start + 16, ">I", 2 * length)
    path.write_bytes(data)


@awkward(
    "restart.ts",
    "two concatenated transport streams: the clock restarts",
    numbers=range(70),
    error="timestamps restart",
    first=70,
    most=70,
)
def _(path: Path) -> None:
    first = video(path, pictures(40))
    path.write_bytes(first + video(path, pictures(30, first=40)))


# --- sound, but not plain -------------------------------------------------------------------------------------------


def _video(**options: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        video(path, **options)

    return make


awkward("one_frame.mp4", "one picture", numbers=range(1))(lambda path: video(path, pictures(1)))
awkward("16x16.mp4", "16 x 16 pixels", size_px=(16, 16))(lambda path: video(path, pictures(N, 16, 16)))
awkward("odd.mkv", "161 x 97 pixels, 4:4:4", size_px=(161, 97))(
    lambda path: video(path, pictures(N, 161, 97), pix_fmt="yuv444p")
)
awkward("odd_ffv1.mkv", "161 x 97 pixels, 4:2:0, FFV1", size_px=(161, 97))(
    lambda path: video(path, pictures(N, 161, 97), codec="ffv1")
)
awkward("tall.mp4", "32 x 2000 pixels", size_px=(32, 2000))(lambda path: video(path, pictures(N, 32, 2000)))
awkward("422.mp4", "H.264 in 4:2:2")(_video(pix_fmt="yuv422p"))
awkward("10bit.mp4", "H.264 in 10 bit")(_video(pix_fmt="yuv420p10le"))
awkward("hevc.mp4", "HEVC")(_video(codec="libx265", options=X265))
awkward("hevc_10bit.mp4", "HEVC in 10 bit")(_video(codec="libx265", pix_fmt="yuv420p10le", options=X265))
awkward("av1.mp4", "AV1")(_video(codec="libsvtav1", options=AV1))
awkward("vp9_odd.webm", "VP9, 161 x 97 pixels", size_px=(161, 97))(
    lambda path: video(path, pictures(N, 161, 97), codec="libvpx-vp9", options=VP9)
)
awkward("vp8.webm", "VP8")(_video(codec="libvpx", options={"crf": "4", "b": "2M", **VP9}))
awkward("prores.mov", "ProRes, 10 bit 4:2:2")(_video(codec="prores_ks", pix_fmt="yuv422p10le"))
awkward("mjpeg.avi", "Motion JPEG")(_video(codec="mjpeg", pix_fmt="yuvj420p", options={"q": "2"}))
awkward("gray.mkv", "no colour")(_video(codec="ffv1", pix_fmt="gray"))
awkward("rgb.mov", "RGB (QuickTime Animation)")(_video(codec="qtrle", pix_fmt="rgb24"))
awkward("full_range.mp4", "full range (yuvj420p)")(_video(pix_fmt="yuvj420p"))
awkward("bt709.mp4", "BT.709 colours")(_video(options={"colorspace": "bt709", "color_primaries": "bt709"}))
awkward("gif.mp4", "GIF")(_video(codec="gif", pix_fmt="rgb8", format="gif"))
awkward("fragments.mp4", "fragmented mp4, B-frames")(_video(container_options=FRAGMENTS, b_frames=2))
awkward("open_gop.mp4", "open groups of pictures")(_video(b_frames=3, options={"x264-params": "open-gop=1"}))
awkward("intra_refresh.mp4", "H.264 without keyframes but the first (intra refresh)")(
    _video(options={"x264-params": "intra-refresh=1"})
)
awkward("b_frames.avi", "AVI with B-frames")(_video(b_frames=2))
awkward("mpeg4_b_frames.avi", "MPEG-4 in AVI with B-frames")(_video(codec="mpeg4", b_frames=2))
awkward("program.mpg", "MPEG program stream")(_video(codec="mpeg2video", b_frames=2))
awkward("bare.h264", "H.264 without a container")(_video())
awkward("flash.flv", "FLV, B-frames")(_video(b_frames=2))
awkward("interlaced.ts", "MPEG-2, interlaced")(_video(codec="mpeg2video", options={"flags": "+ildct+ilme", "top": "1"}))
awkward("interlaced.mp4", "H.264, interlaced (MBAFF)")(_video(options={"x264-params": "interlaced=1"}))
awkward("rotated.mp4", "rotated by 90 degrees")(
    lambda path: video(path, np.rot90(pictures(), 1, axes=(1, 2)), rotation_deg=90)
)
awkward("wide_pixels.mp4", "sample aspect ratio 4:3", size_px=(213, 96))(_video(aspect=Fraction(4, 3)))
awkward("fps_1000.mp4", "1000 fps", length_s=0.05)(_video(fps=1000))
awkward("fps_3000.mkv", "3000 fps with timestamps in milliseconds: three pictures share a time", length_s=N / 3000)(
    _video(fps=3000)
)
awkward("slow.mp4", "a picture every ten seconds", numbers=range(5), length_s=50.0)(
    lambda path: video(path, pictures(5), Fraction(1, 10))
)
awkward("gaps.mp4", "variable frame rate, gaps that grow", length_s=GAPS_S[-1] + 0.04)(_video(times_s=GAPS_S))
awkward("hour.mp4", "first timestamp an hour")(_video(start_s=3600.0, b_frames=2))
awkward("hour.ts", "first timestamp an hour, transport stream")(_video(start_s=3600.0, b_frames=2))
awkward("negative.mp4", "timestamps of decoding below zero (negative composition offsets)")(
    _video(b_frames=2, container_options={"movflags": "negative_cts_offsets"})
)
awkward("live.mkv", "Matroska without index and length (a live recording)")(_video(container_options={"live": "1"}))
awkward("long_sound.mkv", "sound of three seconds, pictures of two")(_video(audio_s=3.0))
awkward("odd name %d 🎬:'é.mp4", "a name with spaces, quotes and symbols")(_video())


@awkward("mirrored.mp4", "mirrored by its display matrix")
def _(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = video_stream(container)
        stream.set_display_rotation(0, hflip=True)
        encode(container, stream, np.ascontiguousarray(pictures()[:, :, ::-1]))


@awkward("8k.mp4", "8K", numbers=range(3), size_px=(7680, 4320))
def _(path: Path) -> None:
    small = pictures(3, 320, 180)
    video(path, (np.repeat(np.repeat(frame, 24, axis=0), 24, axis=1) for frame in small), options={"crf": "30"})


@awkward("edit_list.mp4", "edit list that leaves out the first 12 pictures", numbers=range(12, N))
def _(path: Path) -> None:
    data = video(path, b_frames=2)
    start, _ = box(data, b"moov", b"trak", b"edts", b"elst")
    length, begin = struct.unpack_from(">Ii", data, start + 8)
    (scale,) = struct.unpack_from(">I", data, box(data, b"moov", b"trak", b"mdia", b"mdhd")[0] + 12)
    put(data, start + 8, ">Ii", length - 480, begin + 12 * scale // FPS)
    path.write_bytes(data)


@awkward("edit_midway.mp4", "edit list that begins between keyframes", numbers=range(17, N))
def _(path: Path) -> None:
    data = video(path, b_frames=2)
    start, _ = box(data, b"moov", b"trak", b"edts", b"elst")
    length, begin = struct.unpack_from(">Ii", data, start + 8)
    (scale,) = struct.unpack_from(">I", data, box(data, b"moov", b"trak", b"mdia", b"mdhd")[0] + 12)
    put(data, start + 8, ">Ii", length - 680, begin + 17 * scale // FPS)
    path.write_bytes(data)


@awkward("open_start.mp4", "begins with an open group: its first pictures refer to missing ones", numbers=range(12, N))
def _(path: Path) -> None:
    whole = path.with_name(".whole.mp4")
    video(whole, b_frames=3, options={"x264-params": "open-gop=1"})
    with av.open(str(whole)) as container:
        keys = [i for i, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    remux(whole, path, first_packet=keys[1])
    whole.unlink()


@awkward("size_change.ts", "the size doubles after 20 pictures")
def _(path: Path) -> None:
    first = video(path, pictures(20))
    path.write_bytes(first + video(path, pictures(30, 320, 192, 20), start_s=0.8))


@awkward("format_change.ts", "4:2:0 becomes 4:4:4 after 20 pictures")
def _(path: Path) -> None:
    first = video(path, pictures(20))
    path.write_bytes(first + video(path, pictures(30, first=20), start_s=0.8, pix_fmt="yuv444p"))


@awkward("wrong_rate.mkv", "the header states 1 fps, the timestamps give 25")
def _(path: Path) -> None:
    data = video(path)
    at = data.index(b"\x23\xe3\x83\x84") + 4
    put(data, at, ">I", 1_000_000_000)
    path.write_bytes(data)


@awkward("two_streams.mp4", "two video streams, the second one larger: the first is taken")
def _(path: Path) -> None:
    with av.open(str(path), "w") as container:
        one, two = video_stream(container), video_stream(container, "libx264", 320, 192)
        encode(container, one, pictures())
        encode(container, two, pictures(N, 320, 192, 1000))


@awkward("cover.mp4", "a cover picture beside the video")
def _(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream, cover = video_stream(container), video_stream(container, "mjpeg")
        cover.disposition = Disposition.attached_pic
        encode(container, cover, pictures(1, first=9))
        encode(container, stream, pictures())


@awkward("sound_first.mp4", "the sound is the first stream")
def _(path: Path) -> None:
    with av.open(str(path), "w") as container:
        sound, stream = container.add_stream("aac", rate=48_000), video_stream(container)
        silence(container, sound, 2.0)
        encode(container, stream, pictures())


@awkward("timecode.mov", "a timecode track beside the video")
def _(path: Path) -> None:
    with av.open(str(path), "w") as container:
        container.metadata["timecode"] = "01:00:00:00"
        encode(container, video_stream(container), pictures())


@awkward("data_first.ts", "a data stream comes first")
def _(path: Path) -> None:
    with av.open(str(path), "w") as container:
        data: Any = container.add_data_stream("bin_data")
        stream = video_stream(container)
        for i, frame in enumerate(pictures()):
            packet = av.Packet(b"some data")
            packet.stream, packet.pts, packet.dts, packet.time_base = data, i * 40, i * 40, Fraction(1, 1000)
            container.mux(packet)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))


def _misbehaving(first: int) -> Callable[[Path], Any]:
    return lambda path: video(path, pictures(N, first=first))


MISBEHAVIOUR = {60_001: "segfault", 60_101: "hang", 60_201: "eat_memory"}
"""Number in the first picture of an intact file at which the decoder (or cut detector) of the tests fails."""

awkward("segfaults.mp4", "intact; the tests make the decoder crash on it", numbers=range(60_001, 60_001 + N))(
    _misbehaving(60_001)
)
awkward("hangs.mp4", "intact; the tests make the decoder hang on it", numbers=range(60_101, 60_101 + N))(
    _misbehaving(60_101)
)
awkward("eats_memory.mp4", "intact; the tests make the decoder eat memory on it", numbers=range(60_201, 60_201 + N))(
    _misbehaving(60_201)
)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for name, file in make_all(target).items():
        print(f"{name:28} {file.stat().st_size if file.is_file() else 0:>9} bytes")
