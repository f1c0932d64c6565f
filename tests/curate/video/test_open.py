"""Each decode is checked by the number drawn in each frame, which detects additional, missing and misplaced frames."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest

from curate.video.container import video_stream
from curate.video.open import Reader, VideoError, keyframe_times, open_input, probe
from tests.videos import numbered_frames, read_number, write_video

N = 60
FORMATS = {
    "mp4": ("a.mp4", {}),
    "mp4-b-frames": ("a.mp4", {"b_frames": 3}),
    "mp4-fragmented": ("a.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "b_frames": 2}),
    "mov-29.97": ("a.mov", {"fps": Fraction(30000, 1001)}),
    "mkv": ("a.mkv", {}),
    "mkv-b-frames": ("a.mkv", {"b_frames": 2}),
    "mpegts-b-frames": ("a.ts", {"b_frames": 2}),
    "avi-mpeg4": ("a.avi", {"codec": "mpeg4"}),
    "avi-mpeg4-b-frames": ("a.avi", {"codec": "mpeg4", "b_frames": 2}),
    "avi-h264-b-frames": ("a.avi", {"b_frames": 2}),
    "mpeg2-b-frames": ("a.mpg", {"codec": "mpeg2video", "b_frames": 2}),
    "webm-vp9": ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "hevc": (
        "a.mp4",
        {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=1", "preset": "ultrafast"}},
    ),
    "open-gop": ("a.mp4", {"b_frames": 3, "options": {"x264-params": "open-gop=1"}}),
    "4:4:4": ("a.mkv", {"codec": "ffv1", "pix_fmt": "yuv444p"}),
}


def numbers(path: Path | str, from_s: float = 0.0) -> list[int]:
    with Reader(str(path), from_s) as reader:
        return [read_number(frame.rgb()) for frame in reader]


@pytest.mark.parametrize(("name", "options"), FORMATS.values(), ids=FORMATS.keys())
def test_every_frame_at_its_time_from_the_start_and_after_a_seek(tmp_path, name, options):
    fps = float(options.get("fps", 25))
    path = write_video(tmp_path / name, numbered_frames(N), **({"fps": 25} | options))
    with Reader(str(path)) as reader:
        frames = [(read_number(f.rgb()), f.t_s, f.index) for f in reader]
        assert reader.exhausted
        assert reader.errors == []
        assert reader.short_read is None
        assert reader.decoded_s == pytest.approx(N / fps, abs=0.002)
    assert [number for number, _, _ in frames] == list(range(N))
    assert [index for _, _, index in frames] == list(range(N))
    assert [t_s for _, t_s, _ in frames] == pytest.approx([i / fps for i in range(N)], abs=0.0011)

    keys_s = keyframe_times(str(path))
    assert keys_s[0] == 0.0
    assert set(keys_s) <= {t_s for _, t_s, _ in frames}
    for wanted in (1, 11, 12, 13, 31, 47, N - 1):
        wanted_s = frames[wanted][1]
        with Reader(str(path), wanted_s) as reader:
            seeked = [(read_number(f.rgb()), f.t_s) for f in reader]
        assert seeked == [(number, t_s) for number, t_s, _ in frames[seeked[0][0] :]]
        assert seeked[0][1] == reader.first_s <= wanted_s
    if len(keys_s) > 2 and name != "a.mpg":
        assert numbers(path, keys_s[-1])[0] > 0, "a seek to the last keyframe decodes from the start"


@pytest.mark.parametrize(("name", "options"), FORMATS.values(), ids=FORMATS.keys())
def test_probe_returns_the_written_properties(tmp_path, name, options):
    path = write_video(tmp_path / name, numbered_frames(N), **({"fps": 25} | options))
    info = probe(str(path))
    assert (info.width_px, info.height_px) == (160, 96)
    assert info.fps == pytest.approx(float(options.get("fps", 25)), rel=1e-3)
    assert info.duration_s == pytest.approx(N / info.fps, abs=0.09)
    assert info.n_frames_estimate == pytest.approx(N, abs=2)
    assert (info.rotation_deg, info.has_audio) == (0, False)


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mkv"])
def test_a_clock_that_starts_at_one_hour(tmp_path, name):
    path = write_video(tmp_path / name, numbered_frames(N), start_s=3600.0, b_frames=2)
    info = probe(str(path))
    assert info.start_s == pytest.approx(3600, abs=2)  # mpegts adds its muxer delay
    assert info.duration_s == pytest.approx(N / 25, abs=0.1)
    with Reader(str(path)) as reader:
        assert [f.t_s for f in reader] == pytest.approx([i / 25 for i in range(N)], abs=0.0011)
        assert reader.short_read is None
    assert keyframe_times(str(path)) == pytest.approx([0, 0.48, 0.96, 1.44, 1.92], abs=0.0011)
    assert numbers(path, 1.5) == list(range(24 if name == "a.ts" else 36, N))  # mpegts has no index


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_variable_frame_rate_keeps_its_timestamps(tmp_path, name):
    times_s = [round(0.04 * i + 0.002 * i * i, 3) for i in range(N)]
    path = write_video(tmp_path / name, numbered_frames(N), times_s=times_s, b_frames=2)
    with Reader(str(path)) as reader:
        frames = [(read_number(f.rgb()), f.t_s) for f in reader]
    assert [number for number, _ in frames] == list(range(N))
    assert [t_s for _, t_s in frames] == pytest.approx(times_s, abs=0.0011)


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation_deg):
    upright = numbered_frames(5, 160, 96)
    stored = np.rot90(upright, rotation_deg // 90, axes=(1, 2))  # a player rotates it back, clockwise
    path = write_video(tmp_path / "a.mp4", stored, rotation_deg=rotation_deg)
    info = probe(str(path))
    assert (info.rotation_deg, info.width_px, info.height_px) == (rotation_deg, 160, 96)
    with Reader(str(path)) as reader:
        for number, frame in enumerate(reader):
            assert frame.rgb().shape == (96, 160, 3)
            assert frame.rgb(48).shape == (48, 80, 3)
            assert read_number(frame.rgb()) == read_number(frame.rgb(48)) == number
            assert np.abs(frame.rgb().astype(int) - upright[number]).mean() < 6
            assert np.array_equal(frame.bgr(48), frame.rgb(48)[..., ::-1])


def test_a_mirrored_picture_is_mirrored_back(tmp_path):
    upright = numbered_frames(3)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.set_display_rotation(0, hflip=True)
        for frame in upright:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:, ::-1]), "rgb24")))
        container.mux(stream.encode(None))
    assert numbers(path) == [0, 1, 2]


@pytest.mark.parametrize(
    ("aspect", "width_px"), [(Fraction(4, 3), 213), (Fraction(1, 2), 80), (Fraction(1), 160)], ids=str
)
def test_pixels_become_square(tmp_path, aspect, width_px):
    path = write_video(tmp_path / "a.mp4", numbered_frames(3), aspect=aspect)
    info = probe(str(path))
    assert (info.width_px, info.height_px) == (width_px, 96)
    with Reader(str(path)) as reader:
        assert [frame.rgb().shape for frame in reader] == [(96, width_px, 3)] * 3
    assert numbers(path) == [0, 1, 2]


def test_small_pictures_are_scaled_down_and_never_up(tmp_path):
    path = write_video(tmp_path / "a.mkv", numbered_frames(2, 161, 97), codec="ffv1", pix_fmt="yuv444p")
    with Reader(str(path)) as reader:
        frame = next(iter(reader))
        assert frame.rgb().shape == (97, 161, 3)
        assert frame.rgb(48).shape == (48, 80, 3)
        assert frame.rgb(500).shape == (97, 161, 3)
        assert frame.rgb().flags["C_CONTIGUOUS"]
        assert frame.rgb().dtype == np.uint8


def test_a_size_change_midway_keeps_the_first_size(tmp_path):
    one = write_video(tmp_path / "1.ts", numbered_frames(10, 160, 96), gop=5)
    two = write_video(tmp_path / "2.ts", numbered_frames(10, 320, 192, first=10), start_s=0.4, gop=5)
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    with Reader(str(both)) as reader:
        frames = [frame.rgb() for frame in reader]
    assert {frame.shape for frame in frames} == {(96, 160, 3)}
    assert [read_number(frame) for frame in frames] == list(range(20))


def test_restarting_timestamps_continue_without_a_gap(tmp_path):
    one = write_video(tmp_path / "1.ts", numbered_frames(50))
    two = write_video(tmp_path / "2.ts", numbered_frames(30, first=50))
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    with Reader(str(both)) as reader:
        frames = [(read_number(frame.rgb()), frame.t_s) for frame in reader]
    assert [number for number, _ in frames] == list(range(80))
    assert [t_s for _, t_s in frames] == pytest.approx([i / 25 for i in range(80)], abs=0.002)
    assert any("restart" in error for error in reader.errors)


def test_a_bare_stream_without_timestamps_counts_frames(tmp_path):
    path = write_video(tmp_path / "a.h264", numbered_frames(30))
    with Reader(str(path), 0.9) as reader:
        frames = [(read_number(frame.rgb()), frame.t_s) for frame in reader]
    assert [number for number, _ in frames] == list(range(30))
    assert [t_s for _, t_s in frames] == pytest.approx([i / 25 for i in range(30)])
    assert keyframe_times(str(path)) == pytest.approx([0, 0.48, 0.96])


def test_a_long_sound_track_is_not_a_short_read(tmp_path):
    path = write_video(tmp_path / "a.mkv", numbered_frames(25), audio_s=4.0)
    text = path.read_bytes().replace(b"DURATION", b"DURATIOX")  # leaves only the container's own duration
    path.write_bytes(text)
    with Reader(str(path)) as reader:
        assert len(list(reader)) == 25
    assert (reader.info.duration_from, reader.info.has_audio) == ("container", True)
    assert reader.info.duration_s == pytest.approx(4.0, abs=0.1)
    assert reader.audio_end_s == pytest.approx(4.0, abs=0.1)
    assert reader.decoded_s == pytest.approx(1.0, abs=0.01)
    assert reader.short_read is None


def test_matroska_keeps_its_duration_in_a_tag(tmp_path):
    path = write_video(tmp_path / "a.mkv", numbered_frames(25), audio_s=4.0)
    info = probe(str(path))
    assert (info.duration_from, info.duration_s) == ("tag", pytest.approx(1.0, abs=0.001))


def _bad(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "bad.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "one byte":
        path.write_bytes(b"\0")
    elif kind == "html":
        path.write_text("<!doctype html><html><body>404</body></html>" * 50)
    elif kind == "text":
        path.write_text("not a video\n" * 200)
    elif kind == "audio":
        with av.open(str(path), "w") as container:
            sound = container.add_stream("aac", rate=48_000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate = 48_000
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    elif kind == "no moov":
        whole = write_video(tmp_path / "whole.mp4", numbered_frames(30)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "directory":
        path.mkdir()
    elif kind == "picture":
        with av.open(str(path), "w", format="image2", container_options={"update": "1"}) as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frames(1)[0], "rgb24")))
            container.mux(stream.encode(None))
    elif kind == "playlist":
        write_video(tmp_path / "part.ts", numbered_frames(30))
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\npart.ts\n#EXT-X-ENDLIST\n")
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("empty", "the file is empty (0 bytes)"),
        ("one byte", "not a video"),
        ("html", "not a video: an HTML page"),
        ("text", "not a video: a text file"),
        ("audio", "no video stream: the file holds audio only"),
        ("no moov", "the mp4 header (moov) is missing"),
        ("directory", "a directory, not a video file"),
        ("picture", "not a video: a still image"),
        ("playlist", "not a video"),
        ("missing", "no such file"),
    ],
)
@pytest.mark.parametrize("opener", [probe, keyframe_times, Reader], ids=["probe", "keyframe_times", "Reader"])
def test_a_file_that_is_not_a_video_raises_one_sentence(tmp_path, kind, sentence, opener):
    path = _bad(tmp_path, kind)
    with pytest.raises(VideoError) as error:
        opener(str(path))
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_a_song_with_a_cover_is_not_a_video(tmp_path):
    path = tmp_path / "song.mkv"
    write_video(path, numbered_frames(1), audio_s=1.0)
    with open_input(str(path)) as container:
        container.streams.video[0].disposition = av.stream.Disposition.attached_pic
        with pytest.raises(VideoError, match="audio only"):
            video_stream(container)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_a_truncated_file_gives_its_frames_and_an_error(tmp_path, name, share):
    faststart = {"movflags": "faststart"} if name == "a.mp4" else None
    path = write_video(tmp_path / name, numbered_frames(200), container_options=faststart)
    n_bytes = int(path.stat().st_size * share)
    path.write_bytes(path.read_bytes()[:n_bytes])
    got, broke_off = [], ""
    with Reader(str(path)) as reader:
        try:
            got.extend(read_number(frame.rgb()) for frame in reader)
        except VideoError as error:
            broke_off = str(error)
    assert got[:-1] == list(range(len(got) - 1)), "all pictures but the last are complete"
    assert 200 * share * 0.7 < len(got) < 200
    if name in ("a.mp4", "a.avi") or (name == "a.mkv" and not broke_off):
        assert broke_off or reader.short_read, (reader.info, reader.decoded_s)
    trouble = broke_off or reader.short_read or ""
    if name == "a.ts":  # there is no stated length; FFmpeg estimates it from the file
        assert trouble == "" or "ends early" in trouble
    else:
        assert f"{reader.decoded_s:.2f} s" in trouble


def test_damage_in_the_middle_is_skipped_and_counted(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(150), gop=10)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = b"\xff" * 600
    path.write_bytes(data)
    with Reader(str(path)) as reader:
        got = [(read_number(frame.rgb()), frame.t_s) for frame in reader]
    assert len(reader.errors) == len(reader.damage_s) > 0
    assert all(1.5 < at_s < 4.5 for at_s in reader.damage_s)
    right = [number for number, t_s in got if number == round(t_s * 25)]
    assert len(right) > 120
    assert right[:40] == list(range(40))
    assert right[-40:] == list(range(110, 150))
    assert reader.exhausted


@pytest.mark.parametrize("url", ["file://{path}", "memory://videos/a.mp4", "{path}"])
def test_paths_and_urls(tmp_path, url):
    path = write_video(tmp_path / "a b:c.mp4", numbered_frames(40), b_frames=2)
    with fsspec.open("memory://videos/a.mp4", "wb") as handle:
        handle.write(path.read_bytes())
    uri = url.format(path=path)
    assert probe(uri).n_frames_estimate == 40
    assert numbers(uri) == list(range(40))
    assert numbers(uri, 1.0) == list(range(24, 40))
    assert len(keyframe_times(uri)) == 4


def test_a_missing_url_raises_one_sentence(tmp_path):
    with pytest.raises(VideoError, match="no such file"):
        probe("memory://videos/none.mp4")
    with pytest.raises(VideoError, match="cannot open"):
        probe("nosuchprotocol://videos/none.mp4")


def test_the_same_decode_gives_the_same_pixels_with_any_number_of_threads(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(30), b_frames=2)
    with Reader(str(path)) as one, Reader(str(path), threads=2) as two:
        for a, b in zip(one, two, strict=True):
            assert np.array_equal(a.rgb(40), b.rgb(40))
            assert a.t_s == b.t_s


def test_frames_outlive_the_reader(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(10))
    with Reader(str(path)) as reader:
        frames = list(reader)
    assert [read_number(frame.rgb()) for frame in frames] == list(range(10))


def test_real_footage_is_read_completely(shared_dir):
    files = sorted((shared_dir / "footage" / "raw").iterdir())
    assert len(files) >= 20
    for path in files:
        info = probe(str(path))
        with Reader(str(path)) as reader:
            times_s = [frame.t_s for frame in reader]
        assert reader.errors == [], path.name
        assert reader.short_read is None, path.name
        assert info.duration_s == pytest.approx(reader.decoded_s, abs=2.0 / info.fps), path.name
        assert all(a < b for a, b in pairwise(times_s)), path.name
        if info.codec != "cinepak":  # its AVI counts frames that it leaves out
            assert len(times_s) == info.n_frames_estimate, path.name
        keys_s = keyframe_times(str(path))
        assert keys_s[0] == 0.0
        assert all(min(abs(key_s - t_s) for t_s in times_s) < 1e-6 for key_s in keys_s), path.name
        from_s = times_s[len(times_s) * 2 // 3]
        with Reader(str(path), from_s) as reader:
            later_s = [frame.t_s for frame in reader]
        assert later_s == times_s[-len(later_s) :], path.name
        assert later_s[0] == max(key_s for key_s in keys_s if key_s <= from_s + 1e-9), path.name
