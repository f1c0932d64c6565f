"""Each clip is decoded and its frames are identified by the number drawn in them: none is missing, none belongs to a neighbour."""

import io
import itertools
import math
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from curate.clips.write import ClipOptions, Cut, CutError, Span, cut
from curate.errors import ConfigError
from curate.video.open import Reader, keyframe_times
from tests.videos import numbered_frames, read_number, write_video

COPY = ClipOptions(mode="copy")


def played(clip: Cut | CutError) -> list[int]:
    """Decodes a clip, checks its stated properties, and returns the numbers of its frames."""
    assert isinstance(clip, Cut), clip
    with av.open(io.BytesIO(clip.mp4)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert len(container.streams) == 1
        assert float(stream.duration * stream.time_base) == pytest.approx(clip.duration_s, abs=1.01 / clip.fps)
        if clip.mode == "exact":
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert {frame.shape for frame in frames} == {(clip.height_px, clip.width_px, 3)}
    assert len(frames) == clip.n_frames
    assert clip.mp4.find(b"moov") < clip.mp4.find(b"mdat"), "the header is not in front"
    return [read_number(frame) for frame in frames]


def spans(*edges: tuple[float, float]) -> list[Span]:
    return [Span(f"c{i}", start_s, end_s) for i, (start_s, end_s) in enumerate(edges)]


SOURCES = {
    "mp4": ("a.mp4", {}),
    "mp4-b-frames": ("a.mp4", {"b_frames": 3}),
    "open-gop": ("a.mp4", {"b_frames": 3, "options": {"x264-params": "open-gop=1"}}),
    "29.97": ("a.mp4", {"fps": Fraction(30000, 1001), "b_frames": 2}),
    "mkv-ms-clock": ("a.mkv", {"fps": Fraction(30000, 1001), "b_frames": 2}),
    "mpegts-at-one-hour": ("a.ts", {"start_s": 3600.0, "b_frames": 2}),
    "mp4-at-one-hour": ("a.mp4", {"start_s": 3600.0, "b_frames": 2}),
    "avi-b-frames": ("a.avi", {"codec": "mpeg4", "b_frames": 2}),
    "mpeg2": ("a.mpg", {"codec": "mpeg2video", "b_frames": 2}),
    "vp9": ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
}


@pytest.mark.parametrize(("name", "options"), SOURCES.values(), ids=SOURCES.keys())
def test_exact_gives_exactly_the_frames_of_the_span(tmp_path, name, options):
    fps = float(options.get("fps", 25))
    path = write_video(tmp_path / name, numbered_frames(120), **({"fps": 25} | options))
    pieces = [(0, 20), (20, 37), (37, 38), (50, 90), (61, 70), (70, 120)]  # touching, one frame, nested, to the end
    results = list(cut(str(path), [Span(str(i), a / fps, b / fps) for i, (a, b) in enumerate(pieces)]))
    assert [result.clip_id for result in results] == ["0", "1", "2", "3", "4", "5"]
    for result, (first, end) in zip(results, pieces, strict=True):
        assert played(result) == list(range(first, end))
        assert result.fps == pytest.approx(fps, rel=1e-4 if name != "a.mkv" or end - first > 1 else 0.1)
        assert result.start_s == pytest.approx(first / fps, abs=0.0011)
        assert result.end_s == pytest.approx(end / fps, abs=0.0021)
        assert result.duration_s == pytest.approx((end - first) / fps, abs=0.0021)


@pytest.mark.parametrize("shift_s", [-0.0004, 0.0004])
def test_rounded_edges_give_the_same_frames(tmp_path, shift_s):
    path = write_video(tmp_path / "a.mp4", numbered_frames(60), Fraction(30000, 1001))
    [result] = cut(str(path), [Span("a", 10 * 1001 / 30000 + shift_s, 40 * 1001 / 30000 + shift_s)])
    assert played(result) == list(range(10, 40))


def test_a_variable_rate_keeps_its_times(tmp_path):
    times_s = list(itertools.accumulate([0.0, *itertools.islice(itertools.cycle([0.04, 0.04, 0.12, 0.02]), 59)]))
    path = write_video(tmp_path / "a.mkv", numbered_frames(60), times_s=times_s, b_frames=2)
    [result] = cut(str(path), [Span("a", times_s[9], times_s[41])])
    assert played(result) == list(range(9, 41))
    with av.open(io.BytesIO(result.mp4)) as container:
        got_s = [frame.time for frame in container.decode(video=0)]
    assert got_s == pytest.approx([t_s - times_s[9] for t_s in times_s[9:41]], abs=0.0011)
    assert result.fps == pytest.approx(32 / (times_s[41] - times_s[9]), rel=0.01)


@pytest.mark.parametrize("fps", [10.0, 12.5, 24.0])
def test_a_fixed_rate_takes_the_nearest_frame(tmp_path, fps):
    path = write_video(tmp_path / "a.mp4", numbered_frames(100), 25)
    [result] = cut(str(path), spans((0.4, 2.8)), ClipOptions(fps=fps))
    numbers = played(result)
    assert len(numbers) == pytest.approx(2.4 * fps, abs=0.51)
    for k, number in enumerate(numbers):
        assert abs(number / 25 - (0.4 + k / fps)) <= 0.02 + 1e-9
    assert min(numbers) == 10
    assert max(numbers) < 70
    with av.open(io.BytesIO(result.mp4)) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(
            [k / fps for k in range(len(numbers))], abs=1e-4
        )
    assert result.fps == fps


@pytest.mark.parametrize(
    ("size_px", "short_side_px", "stored_px"),
    [
        ((160, 96), None, (160, 96)),
        ((161, 97), None, (160, 96)),
        ((160, 96), 48, (80, 48)),
        ((160, 96), 49, (82, 48)),
        ((96, 160), 48, (48, 80)),
        ((160, 96), 960, (160, 96)),
        ((163, 99), 64, (104, 64)),
    ],
    ids=str,
)
def test_sizes_are_even_and_keep_the_aspect(tmp_path, size_px, short_side_px, stored_px):
    path = write_video(tmp_path / "a.mkv", numbered_frames(8, *size_px), codec="ffv1", pix_fmt="yuv444p")
    [result] = cut(str(path), spans((0, 1)), ClipOptions(short_side_px=short_side_px))
    assert isinstance(result, CutError)
    [result] = cut(str(path), spans((0, 0.32)), ClipOptions(short_side_px=short_side_px))
    assert played(result) == list(range(8))
    assert (result.width_px, result.height_px) == stored_px


def test_an_odd_side_is_cropped_not_stretched(tmp_path):
    frames = np.zeros((3, 65, 65, 3), np.uint8)
    frames[:, ::2] = 255  # a stretch by one pixel would blur the lines in the middle
    path = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="yuv444p")
    [result] = cut(str(path), spans((0, 0.12)), ClipOptions(crf=1))
    assert isinstance(result, Cut)
    with av.open(io.BytesIO(result.mp4)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="gray")
    assert np.abs(picture.astype(int) - frames[0, :64, :64, 0]).max() < 24


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
@pytest.mark.parametrize("short_side_px", [None, 49])
def test_a_turned_source_is_stored_upright(tmp_path, rotation_deg, short_side_px):
    upright = numbered_frames(10, 160, 96)
    path = write_video(
        tmp_path / "a.mp4", np.rot90(upright, rotation_deg // 90, axes=(1, 2)), rotation_deg=rotation_deg
    )
    [result] = cut(str(path), spans((0.08, 0.32)), ClipOptions(short_side_px=short_side_px))
    assert played(result) == list(range(2, 8))
    assert result.width_px > result.height_px
    if short_side_px is None:
        with av.open(io.BytesIO(result.mp4)) as container:
            picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
        assert np.abs(picture.astype(int) - upright[2]).mean() < 8


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuv420p", "gray", "yuv420p10le", "bgr0"])
def test_colours_and_range_survive(tmp_path, pix_fmt):
    frames = numbered_frames(6)
    codec = {"yuv420p10le": "ffv1", "bgr0": "ffv1", "gray": "ffv1", "yuvj420p": "mjpeg"}.get(pix_fmt, "libx264")
    path = write_video(tmp_path / "a.mkv", frames, codec=codec, pix_fmt=pix_fmt)
    [result] = cut(str(path), spans((0, 0.24)))
    assert played(result) == list(range(6))
    with Reader(str(path)) as reader:
        source = next(iter(reader)).rgb().astype(int)
    with av.open(io.BytesIO(result.mp4)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert np.abs(stored.mean(axis=(0, 1)) - source.mean(axis=(0, 1))).max() < 2.5
    assert np.abs(stored - source).mean() < 6


def test_the_same_cut_gives_the_same_bytes(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(60), b_frames=2)
    for options in (ClipOptions(short_side_px=64), COPY):
        once = list(cut(str(path), spans((0, 1), (1, 2)), options))
        for _ in range(20):
            assert list(cut(str(path), spans((0, 1), (1, 2)), options)) == once
        [alone] = cut(str(path), [Span("c1", 1, 2)], options)
        assert once[1] == alone
        assert b"Lavf" not in once[0].mp4
        assert b"Lavc" not in once[0].mp4


def test_keyframes_are_no_further_apart_than_gop(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(100), gop=100)
    [result] = cut(str(path), spans((0, 4)), ClipOptions(gop=9))
    with av.open(io.BytesIO(result.mp4)) as container:
        keys = [i for i, packet in enumerate(p for p in container.demux(video=0) if p.size) if packet.is_keyframe]
    assert keys[0] == 0
    assert max(b - a for a, b in itertools.pairwise([*keys, 100])) <= 9


@pytest.mark.parametrize(("name", "options"), SOURCES.values(), ids=SOURCES.keys())
def test_copy_begins_at_a_keyframe_and_ends_with_the_span(tmp_path, name, options):
    fps = float(options.get("fps", 25))
    path = write_video(tmp_path / name, numbered_frames(120), **({"fps": 25} | options))
    keys = [round(key_s * fps) for key_s in keyframe_times(str(path))]
    results = list(cut(str(path), spans((0.3, 3.0), (1.0, 3.5), (2.0, 10.0), (0.1, 0.4)), COPY))
    assert [result.clip_id for result in results] == ["c3", "c0", "c1", "c2"], "by start time"
    by_id = {result.clip_id: result for result in results}
    assert isinstance(by_id["c3"], CutError)
    if name == "a.avi":
        assert all("B-frames" in result.error for result in results)
        return
    for clip_id, start_s, end_s in (("c0", 0.3, 3.0), ("c1", 1.0, 3.5), ("c2", 2.0, 10.0)):
        result = by_id[clip_id]
        numbers = played(result)
        first = min(key for key in keys if key >= start_s * fps - 0.1)
        end = min(120, math.ceil(end_s * fps - 0.1))
        assert numbers == list(range(first, first + len(numbers)))
        # Pictures that depend on one after the span (B-frames) are left out.
        assert end - options.get("b_frames", 0) <= numbers[-1] + 1 <= end
        assert result.start_s == pytest.approx(first / fps, abs=0.0011)
        assert result.end_s == pytest.approx((numbers[-1] + 1) / fps, abs=0.0021)


def test_copy_keeps_the_packets(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(60))
    [result] = cut(str(path), spans((0.4, 2.0)), COPY)
    with av.open(str(path)) as container:
        source = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    with av.open(io.BytesIO(result.mp4)) as container:
        copied = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert copied == source[12:50]


def test_a_codec_that_mp4_cannot_hold_is_an_error(tmp_path):
    path = write_video(tmp_path / "a.avi", numbered_frames(60), codec="msmpeg4")
    [result] = cut(str(path), spans((0, 2.4)), COPY)
    assert isinstance(result, CutError)
    assert "does not fit into an mp4" in result.error
    [result] = cut(str(path), spans((0, 2.4)))
    assert played(result) == list(range(60))


@pytest.mark.parametrize("mode", ["exact", "copy"])
def test_a_span_without_frames_affects_only_itself(tmp_path, mode):
    path = write_video(tmp_path / "a.mp4", numbered_frames(60))
    asked = spans((0, 0.96), (0.51, 0.51), (0.53, 0.55), (0.96, 1.92), (2.0, 9.0), (50, 60))
    results = {result.clip_id: result for result in cut(str(path), asked, ClipOptions(mode=mode))}
    assert len(results) == 6
    assert played(results["c0"]) == list(range(24))
    assert played(results["c3"]) == list(range(24, 48))
    for clip_id in ("c1", "c2", "c5") + (("c4",) if mode == "exact" else ()):
        assert isinstance(results[clip_id], CutError), clip_id
        assert results[clip_id].error
    if mode == "exact":
        assert "ends at 2.40 s, 6.60 s before" in results["c4"].error


@pytest.mark.parametrize("mode", ["exact", "copy"])
def test_a_source_that_cannot_be_opened_fails_every_span(tmp_path, mode):
    (tmp_path / "a.mp4").write_bytes(b"")
    for path in (tmp_path / "a.mp4", tmp_path / "none.mp4"):
        results = list(cut(str(path), spans((0, 1), (1, 2)), ClipOptions(mode=mode)))
        assert [result.clip_id for result in results] == ["c0", "c1"]
        assert all(isinstance(result, CutError) for result in results)
    assert list(cut(str(tmp_path / "a.mp4"), [], ClipOptions(mode=mode))) == []


def test_damage_affects_only_the_spans_that_contain_it(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(200), gop=10)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(data)
    results = list(cut(str(path), [Span(str(i), i * 0.4, (i + 1) * 0.4) for i in range(20)]))
    failed = [int(result.clip_id) for result in results if isinstance(result, CutError)]
    assert 0 < len(failed) < 4
    assert all(8 <= i <= 12 for i in failed)
    for i, result in enumerate(results):
        if i not in failed:
            assert played(result) == list(range(i * 10, i * 10 + 10))


def test_a_truncated_file_gives_the_clips_before_the_end(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(200), container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    results = list(cut(str(path), spans((0, 2), (2, 6), (6, 8))))
    assert played(results[0]) == list(range(50))
    assert [type(result) for result in results[1:]] == [CutError, CutError]


class _CountingReader(Reader):
    """A reader that counts the frames decoded by all readers."""

    n_decoded = 0

    def _decode(self, packet):
        frames = super()._decode(packet)
        _CountingReader.n_decoded += len(frames)
        return frames


@pytest.mark.parametrize(("gop", "most"), [(25, 120), (10_000, 1020)], ids=["keyframes", "one keyframe"])
def test_long_gaps_are_seeked_over_when_they_hold_a_keyframe(tmp_path, monkeypatch, gop, most):
    path = write_video(tmp_path / "a.mp4", numbered_frames(1000), gop=gop)
    monkeypatch.setattr("curate.clips.exact.Reader", _CountingReader)
    _CountingReader.n_decoded = 0
    results = list(cut(str(path), spans((0, 0.4), (14.0, 14.4), (30.4, 31.0))))
    assert [played(result) for result in results] == [
        list(range(10)),
        list(range(350, 360)),
        list(range(760, 775)),
    ]
    assert _CountingReader.n_decoded < most


def test_memory_holds_the_open_clips_not_the_source(tmp_path):
    noise = np.random.default_rng(0)
    path = write_video(tmp_path / "a.mp4", (noise.integers(0, 255, (96, 160, 3), np.uint8) for _ in range(250)))
    tracemalloc.start()
    try:
        clips = cut(str(path), [Span(str(i), i / 2, (i + 1) / 2) for i in range(20)])
        n_bytes = sum(len(clip.mp4) for clip in clips if isinstance(clip, Cut))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_bytes > 2_000_000
    assert peak < n_bytes / 3


def test_an_unknown_encoder_raises_a_config_error(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(10))
    with pytest.raises(ConfigError, match="has no encoder 'libx263'"):
        list(cut(str(path), spans((0, 0.4)), ClipOptions(codec="libx263")))


def test_a_failing_encoder_fails_the_clip_with_its_message(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(10))
    [result] = cut(str(path), spans((0, 0.4)), ClipOptions(preset="nosuchpreset"))
    assert isinstance(result, CutError)
    assert "the encoder failed" in result.error


def test_decord_reads_the_same_frames(tmp_path):
    decord = pytest.importorskip("decord", reason="decord has no wheel for this machine")
    path = write_video(tmp_path / "a.mp4", numbered_frames(100), b_frames=3)
    [result] = cut(str(path), spans((1.0, 3.4)))
    reader = decord.VideoReader(io.BytesIO(result.mp4), num_threads=1)
    assert len(reader) == 60
    assert [read_number(reader[i].asnumpy()) for i in (0, 1, 31, 32, 33, 59, 5)] == [25, 26, 56, 57, 58, 84, 30]


@pytest.mark.parametrize("mode", ["exact", pytest.param("copy", marks=pytest.mark.slow)])
def test_clips_of_real_footage_pass_the_check(shared_dir: Path, mode):
    """Three spans of each file, at frame times: all frames are present and look like the source's."""
    n_cut = 0
    for path in sorted((shared_dir / "footage" / "raw").iterdir()):
        with Reader(str(path)) as reader:
            frames = [(frame.t_s, frame.rgb(24)) for frame in reader]
            step_s, total_s = 1.0 / reader.info.fps, reader.decoded_s
        times_s = [t_s for t_s, _ in frames]
        asked = spans(
            (0.0, min(times_s[len(frames) // 4], 3.0)),
            (times_s[len(frames) // 2], times_s[len(frames) // 2 + min(40, len(frames) // 3)]),
            (times_s[-20], total_s),
        )
        options = ClipOptions(mode=mode, short_side_px=96)
        for span, result in zip(asked, cut(str(path), asked, options), strict=True):
            if mode == "copy" and isinstance(result, CutError):
                continue
            assert isinstance(result, Cut), (path.name, result)
            n_cut += 1
            inside = [small for t_s, small in frames if result.start_s - 1e-3 <= t_s < result.end_s - 1e-3]
            assert len(inside) == result.n_frames, path.name
            with av.open(io.BytesIO(result.mp4)) as container:
                stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert len(stored) == result.n_frames, path.name
            if mode == "exact":
                wanted = [t_s for t_s in times_s if span.start_s - 1e-3 <= t_s < span.end_s - 1e-3]
                assert result.n_frames == len(wanted), path.name
                assert result.duration_s == pytest.approx(span.end_s - span.start_s, abs=step_s), path.name
            for k in (0, -1):
                height_px, width_px = inside[k].shape[:2]
                small = cv2.resize(stored[k], (width_px, height_px), interpolation=cv2.INTER_AREA).astype(int)
                assert np.abs(small - inside[k]).mean() < 8, (path.name, k)
    assert n_cut == 63 if mode == "exact" else n_cut > 5
