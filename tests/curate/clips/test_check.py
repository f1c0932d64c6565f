"""The check of written clips: their first and last frames are right, and a single frame of the next shot is detected."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from curate.clips import exact as clips_exact
from curate.clips.check import Check, end_frames
from curate.clips.write import ClipOptions, Cut, CutError, Span, cut
from curate.config.config import ScanConfig
from curate.scan.scan import scan_window
from curate.stages.stage import StageSpec
from curate.video.letterbox import Box
from curate.video.open import VideoError
from tests.videos import write_video

CUTS = StageSpec("curate.cuts.Cascade", "cuts", {})


def shots(*lengths: int, bars: int = 0, size_px: tuple[int, int] = (192, 108)) -> list[np.ndarray]:
    """Frames of shots that pan over a picture each."""
    frames = []
    for shot, length in enumerate(lengths):
        rng = np.random.default_rng(shot)
        small = rng.integers(0, 255, (9, 32, 3), np.uint8)
        wide = cv2.resize(small, (2 * size_px[0], size_px[1]), interpolation=cv2.INTER_CUBIC)
        for i in range(length):
            frame = wide[:, i : i + size_px[0]].copy()
            if bars:
                frame[:bars] = frame[-bars:] = 0
            frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three shots, with B-frames, and their spans as the scan finds them."""
    path = write_video(tmp_path_factory.mktemp("shots") / "a.mp4", shots(60, 75, 50), 25, b_frames=2, gop=60)
    return str(path), spans_of(str(path))


def spans_of(path: str) -> list[Span]:
    rows = scan_window(path, "s", 0, 0, ScanConfig(min_clip_s=1.0), CUTS)
    return [
        Span(
            row["clip_id"], row["start_s"], row["end_s"], row["first_hash"], row["last_hash"],
            Box(*(row[f"crop_{name}_px"] for name in ("x", "y", "width", "height"))),
        )
        for row in rows if row["skip"] is None
    ]  # fmt: skip


@pytest.mark.parametrize("options", [ClipOptions(), ClipOptions(mode="auto"), ClipOptions(mode="copy")], ids=str)
def test_a_written_clip_passes_the_check(source, options):
    path, spans = source
    assert len(spans) == 3
    assert all(isinstance(clip, Cut) for clip in cut(path, spans, options))


@pytest.mark.parametrize("small", [None, 48])
@pytest.mark.parametrize("shift", [1, -1])
def test_a_clip_shifted_by_one_frame_fails_the_check(source, monkeypatch, shift, small):
    """The encoder receives each frame's neighbour: times and counts are right, the pictures are wrong."""
    path, spans = source
    plain = clips_exact.Reader

    class Off(plain):
        def __iter__(self):
            frames = list(super().__iter__())
            for i, frame in enumerate(frames):
                frame.raw = frames[min(max(i + shift, 0), len(frames) - 1)].raw
                yield frame

    monkeypatch.setattr(clips_exact, "Reader", Off)
    results = list(cut(path, spans, ClipOptions(short_side_px=small)))
    which = "last" if shift == 1 else "first"
    wrong = [f"the {which} frame is not the source's" in getattr(clip, "error", "") for clip in results]
    assert wrong == ([True, True, False] if shift == 1 else [False, True, True])


def test_a_clip_beyond_its_span_fails_the_check(source):
    path, spans = source
    [clip] = cut(path, [replace(spans[1], end_s=spans[1].end_s + 0.04)])
    assert isinstance(clip, Cut)  # the shorter span is what was requested
    with Check(path) as check:
        assert "beyond its span" in check(spans[1], clip)


def test_another_clips_mp4_fails_the_check(source):
    path, spans = source
    [clip] = cut(path, spans[1:2])
    with Check(path) as check:
        assert check(spans[1], clip) == ""
        assert "holds 75 frames, not 76" in check(spans[1], replace(clip, n_frames=76))
        assert "cannot be decoded" in check(spans[1], replace(clip, mp4=clip.mp4[: len(clip.mp4) // 2]))


def test_a_black_frame_is_recognised_without_its_hash(tmp_path):
    frames = np.concatenate([np.zeros((30, 108, 192, 3), np.uint8), shots(40)])
    path = str(write_video(tmp_path / "a.mp4", frames, 25, gop=60))
    spans = [
        Span("a", 0.0, 1.2, "5555aaaa5555aaaa", "0123456789abcdef"),
        Span("b", 1.16, 2.0, "5555aaaa5555aaaa", None),
    ]
    black, late = cut(path, spans)
    assert isinstance(black, Cut)
    assert isinstance(late, Cut)  # it begins with a black frame, as requested


@pytest.mark.parametrize("short_side_px", [None, 48])
def test_frames_are_recognised_after_cropping_bars(tmp_path, short_side_px):
    path = str(write_video(tmp_path / "a.mp4", shots(60, 75, bars=20), 25, gop=60))
    spans = spans_of(path)
    assert spans[0].box == Box(0, 20, 192, 68)
    for clip in cut(path, spans, ClipOptions(crop=True, short_side_px=short_side_px)):
        assert isinstance(clip, Cut), clip
        assert (clip.width_px, clip.height_px) == ((192, 68) if short_side_px is None else (136, 48))
        first, last = end_frames(clip.mp4, clip.n_frames)
        for look in (first, last):
            assert min(look.luma_HW[0].mean(), look.luma_HW[-1].mean()) > 40, "part of a bar remains"
    for clip in cut(path, spans, ClipOptions(mode="auto", crop=True)):
        assert clip.mode == "exact"  # a copy would keep the bars


def test_auto_copies_spans_that_begin_at_a_keyframe_and_encodes_the_rest(tmp_path):
    path = str(write_video(tmp_path / "a.mp4", shots(50, 75, 60), 25, b_frames=2, gop=25))
    spans = [Span("key", 1.0, 3.0), Span("near", 2.92, 4.0), Span("far", 4.4, 6.0), Span("end", 5.0, 7.4)]
    by_id = {clip.clip_id: clip for clip in cut(path, spans, ClipOptions(mode="auto"))}
    assert [by_id[name].mode for name in ("key", "near", "far", "end")] == ["copy", "copy", "exact", "copy"]
    assert by_id["near"].start_s == pytest.approx(3.0)
    assert by_id["far"].start_s == pytest.approx(4.4)
    exact = {clip.clip_id: clip.mode for clip in cut(path, spans, ClipOptions(mode="auto", short_side_px=64))}
    assert set(exact.values()) == {"exact"}
    strict = {clip.clip_id: clip.mode for clip in cut(path, spans, ClipOptions(mode="auto", tolerance_s=0.01))}
    assert strict["near"] == "exact"


def test_a_copy_shorter_than_least_s_is_an_error(tmp_path):
    path = str(write_video(tmp_path / "a.mp4", shots(100), 25, gop=50))
    short, long = cut(path, [Span("a", 0.2, 2.4), Span("b", 2.0, 4.0)], ClipOptions(mode="copy", least_s=1.0))
    assert isinstance(short, CutError)
    assert short.error == "only 0.40 s of this span can be copied, less than 1 s; mode 'exact' or 'auto' can cut it"
    assert isinstance(long, Cut)


@pytest.mark.parametrize(
    "damage", [lambda mp4: b"", lambda mp4: b"not an mp4 at all" * 9, lambda mp4: mp4[: len(mp4) // 2]]
)
def test_invalid_mp4_bytes_raise_one_sentence(source, damage):
    path, spans = source
    clip = next(iter(cut(path, spans[:1])))
    assert isinstance(clip, Cut)
    with pytest.raises(VideoError, match=r"^[^\n]+$"):
        end_frames(damage(clip.mp4), clip.n_frames)
