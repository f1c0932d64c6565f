"""The sound of clips: present when requested, at the right time, with unchanged pictures."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from curate.clips.write import ClipOptions, Cut, Span, cut
from tests.videos import numbered_frames, read_number, write_video

RATE_HZ = 48_000


def with_beeps(path, beeps_s, seconds, codec="aac", start_s=0.0, channels="stereo"):
    """A numbered video with a beep of 40 ms at each of the times."""
    silent = write_video(path.with_name("silent" + path.suffix), numbered_frames(round(seconds * 25)), 25, gop=25)
    samples = np.zeros((2 if channels == "stereo" else 1, round(seconds * RATE_HZ)), np.float32)
    for beep_s in beeps_s:
        at = round(beep_s * RATE_HZ)
        samples[:, at : at + 1920] = 0.5 * np.sin(np.arange(1920) * 2 * np.pi * 1000 / RATE_HZ)
    with av.open(str(silent)) as source, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        audio = out.add_stream(codec, rate=RATE_HZ)
        audio.layout = channels
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
        for at in range(0, samples.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples[:, at : at + 1024]), format="fltp", layout=channels
            )
            frame.sample_rate, frame.pts = RATE_HZ, at + round(start_s * RATE_HZ)
            frame.time_base = Fraction(1, RATE_HZ)
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    return path


def decoded(mp4):
    """(times of the beeps, numbers of the frames, seconds of sound) of a clip."""
    with av.open(io.BytesIO(mp4)) as container:
        numbers = [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    with av.open(io.BytesIO(mp4)) as container:
        stream = container.streams.audio[0]
        loud, end_s = [], 0.0
        for frame in container.decode(stream):
            at_s = float(frame.pts * frame.time_base)
            level = np.abs(frame.to_ndarray()).max(axis=0)
            loud += [at_s + i / frame.sample_rate for i in np.flatnonzero(level > 0.2)]
            end_s = at_s + frame.samples / frame.sample_rate
    loud = np.array(loud)
    return loud[np.flatnonzero(np.diff(loud, prepend=-9) > 0.1)], numbers, end_s


@pytest.mark.parametrize("mode", ["exact", "copy"])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "libopus")])
def test_sound_stays_in_sync(tmp_path, mode, name, codec):
    path = with_beeps(tmp_path / name, [0.5, 1.5, 2.5, 3.5], 4.0, codec)
    first, second = cut(str(path), [Span("a", 1.0, 3.0), Span("b", 2.0, 4.0)], ClipOptions(mode=mode, audio=True))
    for clip, start in ((first, 25), (second, 50)):
        assert isinstance(clip, Cut)
        assert clip.has_audio
        beeps, numbers, end_s = decoded(clip.mp4)
        assert beeps == pytest.approx([0.5, 1.5], abs=0.01)
        assert numbers == list(range(start, start + 50))
        assert end_s == pytest.approx(2.0, abs=0.03)
        assert clip.mp4.find(b"moov") < clip.mp4.find(b"mdat")
    again = list(cut(str(path), [Span("a", 1.0, 3.0)], ClipOptions(mode=mode, audio=True)))
    assert again == [first]


def test_sound_that_begins_late_or_ends_early_is_silence_there(tmp_path):
    path = with_beeps(tmp_path / "a.mp4", [0.1, 1.2], 2.0, start_s=1.0)
    early, late = cut(str(path), [Span("a", 0.0, 1.6), Span("b", 1.0, 2.0)], ClipOptions(audio=True))
    assert decoded(early.mp4)[0] == pytest.approx([1.1], abs=0.01)
    assert decoded(late.mp4)[0] == pytest.approx([0.1], abs=0.01)


def test_a_source_without_sound_gives_clips_without_sound(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(50), 25)
    plain, asked = (next(iter(cut(str(path), [Span("a", 0, 2)], ClipOptions(audio=a)))) for a in (False, True))
    assert plain == asked
    assert not asked.has_audio


def test_mono_stays_mono(tmp_path):
    path = with_beeps(tmp_path / "a.mp4", [0.5], 2.0, channels="mono")
    [clip] = cut(str(path), [Span("a", 0, 2)], ClipOptions(audio=True))
    with av.open(io.BytesIO(clip.mp4)) as container:
        assert container.streams.audio[0].layout.nb_channels == 1
    assert decoded(clip.mp4)[0] == pytest.approx([0.5], abs=0.01)
