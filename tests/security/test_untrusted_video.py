"""Video files that refer to other files and addresses, or exceed the limits (curate/video/container.py, curate/video/limits.py)."""

import io
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import av
import fsspec
import pytest

from curate.sandbox.sandbox import Sandbox, SandboxError
from curate.scan import sources
from curate.scan.scan import n_windows
from curate.video import container as opening
from curate.video.limits import Limits
from curate.video.open import VideoError, frames_at, probe
from tests.videos import numbered_frames, write_video

PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{canary}\n#EXT-X-ENDLIST\n",
    "hls by address": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "hls with a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{canary}"\n#EXTINF:1.0,\n{canary}\n#EXT-X-ENDLIST\n',
    "hls of hls": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{canary}\n",
    "ffconcat": "ffconcat version 1.0\nfile canary.ts\n",
    "ffconcat by address": "ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.ts\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "mpd": '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>{canary}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "vobsub": "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000000000\n",
}
SUFFIXES = {"hls": "m3u8", "ffconcat": "ffconcat", "sdp": "sdp", "mpd": "mpd", "vobsub": "idx"}


@pytest.mark.parametrize("disguised", [True, False], ids=["as mp4", "by its own name"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_of_other_files_and_addresses(
    kind: str, disguised: bool, tmp_path: Path, opened: Callable[[], list[str]], port: socket.socket
) -> None:
    write_video(tmp_path / "canary.ts", numbered_frames(5))
    (tmp_path / "list.sub").write_bytes(b"canary")
    path = tmp_path / ("list.mp4" if disguised else f"list.{SUFFIXES[kind.split()[0]]}")
    path.write_text(PLAYLISTS[kind].format(canary=tmp_path / "canary.ts", port=port.getsockname()[1]))
    opened()
    for look in (lambda: probe(str(path)), lambda: frames_at(str(path), [0.0], 16)):
        with pytest.raises(VideoError, match=r"^not a video: a playlist$"):
            look()
    assert set(opened()) == {path.name}
    with pytest.raises(BlockingIOError):
        port.accept()


@pytest.mark.parametrize("kind", ["hls", "ffconcat"])
def test_a_playlist_on_object_storage(kind: str, tmp_path: Path, opened: Callable[[], list[str]]) -> None:
    write_video(tmp_path / "canary.ts", numbered_frames(5))
    with fsspec.open("memory://lists/list.mp4", "w") as file:
        file.write(PLAYLISTS[kind].format(canary=f"file:{tmp_path}/canary.ts"))
    opened()
    with pytest.raises(VideoError, match=r"^not a video: a playlist$"):
        probe("memory://lists/list.mp4")
    assert not opened()


def test_without_the_protection_the_canary_is_read(
    tmp_path: Path, opened: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the tests above can fail."""
    write_video(tmp_path / "canary.ts", numbered_frames(5))
    (tmp_path / "list.m3u8").write_text(PLAYLISTS["hls"].format(canary=tmp_path / "canary.ts"))
    monkeypatch.setattr(opening, "_formats", lambda: ",".join(av.formats_available))
    opened()
    with pytest.raises(VideoError):
        probe(str(tmp_path / "list.m3u8"))
    assert "canary.ts" in opened()


@pytest.mark.parametrize(
    "name",
    [
        "concat:{film}|{film}",
        "subfile,,start,0,end,0,,:{film}",
        "crypto:{film}",
        "cache:{film}",
        "async:{film}",
        "data:video/mp4;base64,AAAA",
        "pipe:0",
        "tcp:127.0.0.1:{port}",
        "udp://127.0.0.1:{port}",
        "rtsp://127.0.0.1:{port}/a",
        "gopher://127.0.0.1:{port}/a",
    ],
)
def test_a_name_that_is_a_protocol_of_the_decoder(name: str, film: Path, port: socket.socket) -> None:
    with pytest.raises((VideoError, ValueError, OSError)):
        probe(name.format(film=film, port=port.getsockname()[1]))
    with pytest.raises(BlockingIOError):
        port.accept()


def y4m(width_px: int, height_px: int) -> bytes:
    return f"YUV4MPEG2 W{width_px} H{height_px} F25:1 Ip A1:1 C420jpeg\nFRAME\n".encode() + bytes(1000)


def test_a_picture_of_a_thousand_megapixels(tmp_path: Path) -> None:
    path = tmp_path / "huge.y4m"
    path.write_bytes(y4m(32768, 32768))
    with Sandbox(memory_mb=512) as box:
        with pytest.raises(SandboxError, match=r"Picture size 32768x32768 is invalid$") as error:  # FFmpeg's own limit
            box.call(sources.probe_file, str(path), Limits(), wall_s=30)
        path.write_bytes(y4m(15000, 15000))
        message = r"^pictures of 15000 x 15000 pixels, more than scan.max_megapixels \(140\) allows$"
        with pytest.raises(SandboxError, match=message) as error:
            box.call(sources.probe_file, str(path), Limits(), wall_s=30)
        assert error.value.raised
    path.write_bytes(y4m(160, 96))
    with pytest.raises(
        VideoError, match=r"^pictures of 160 x 96 pixels, more than scan.max_megapixels \(0.01\) allows$"
    ):
        probe(str(path), limits=Limits(max_megapixels=0.01))


def test_a_header_that_promises_a_hundred_years(film: Path, tmp_path: Path) -> None:
    data = bytearray(film.read_bytes())
    for box, scale_at, length_at in ((b"mvhd", 16, 20), (b"mdhd", 16, 20), (b"tkhd", None, 24)):
        at = data.index(box)
        scale = struct.unpack_from(">I", data, at + scale_at)[0] if scale_at else 1000
        struct.pack_into(">I", data, at + length_at, min(2**32 - 1, scale * 3_155_760_000))
    path = tmp_path / "century.mp4"
    path.write_bytes(data)
    info = probe(str(path))
    assert n_windows(info.duration_s, 300.0) == 1, "a duration that the file's size cannot hold is ignored"
    with pytest.raises(VideoError, match=r"^the header promises 0 hours, more than scan.max_hours \(0.0001\)$"):
        probe(str(film), limits=Limits(max_hours=0.0001))


def test_hundreds_of_streams(tmp_path: Path) -> None:
    path = tmp_path / "streams.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height = 160, 96
        for _ in range(300):
            container.add_stream("pcm_s16le", rate=8000)
        for frame in numbered_frames(2):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(video.encode(None))
    with pytest.raises(VideoError, match=r"^301 streams, more than scan.max_streams \(256\)$"):
        probe(str(path))


def with_extras(film: Path, path: Path, **extras: int) -> Path:
    """The film as Matroska with attachments (their number), subtitles (their number) or metadata (its bytes)."""
    with av.open(str(film)) as given, av.open(str(path), "w") as container:
        if size := extras.get("metadata"):
            for n in range(5):  # FFmpeg reads up to 16 MB of each
                container.metadata[f"comment{n}"] = "x" * (size // 5)
        stream = container.add_stream_from_template(given.streams.video[0])
        for n in range(extras.get("attachments", 0)):
            container.add_attachment(f"{n}.ttf", "font/ttf", bytes(100))
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return path


def test_hundreds_of_attachments(film: Path, tmp_path: Path) -> None:
    path = with_extras(film, tmp_path / "attachments.mkv", attachments=300)
    with pytest.raises(VideoError, match=r"^301 streams, more than scan.max_streams \(256\)$"):
        probe(str(path))
    assert probe(str(path), limits=Limits(max_streams=301)).width_px == 160


def test_hundreds_of_subtitles(film: Path, tmp_path: Path) -> None:
    path = tmp_path / "subtitles.mkv"
    with av.open(str(film)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        text = av.open(io.BytesIO(b"1\n00:00:00,000 --> 00:00:01,000\nHello\n"), format="srt")
        for _ in range(300):
            container.add_stream_from_template(text.streams.subtitles[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
        text.close()
    with pytest.raises(VideoError, match=r"^301 streams, more than scan.max_streams \(256\)$"):
        probe(str(path))


def test_twenty_megabytes_of_metadata(film: Path, tmp_path: Path) -> None:
    path = with_extras(film, tmp_path / "metadata.mkv", metadata=20_000_000)
    with pytest.raises(VideoError, match=r"^20 MB of metadata, more than scan.max_metadata_mb \(16\)$"):
        probe(str(path))


def test_a_sample_table_of_billions(film: Path, tmp_path: Path) -> None:
    """A few bytes of an mp4 that declare a table of 2 ** 31 samples."""
    data = bytearray(film.read_bytes())
    at = data.index(b"stsz")
    struct.pack_into(">II", data, at + 8, 1, 2**31 - 1)  # all samples have one byte, so there is no list of sizes
    stts = data.index(b"stts")
    struct.pack_into(">II", data, stts + 12, 2**31 - 1, 1)
    path = tmp_path / "samples.mp4"
    path.write_bytes(data)
    with Sandbox(memory_mb=256, attempts=1) as box:
        try:
            found = box.call(sources.probe_file, str(path), Limits(), wall_s=30)
        except SandboxError as error:
            assert str(error).count("\n") == 0  # noqa: PT017
        else:
            assert n_windows(found["duration_s"], 300.0) < 2016
