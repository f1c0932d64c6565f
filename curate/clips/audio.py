"""The sound of clips: decoded in one pass over the source, cut to the sample, and added to the mp4 as AAC.

Sound is encoded again in every mode, because packets of compressed sound rarely begin where a clip begins. Gaps in the source's sound become
silence. Bitrate (ours): 128 kbit/s for two channels, usual for AAC.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.codec.context import Flags
from av.error import FFmpegError
from numpy.typing import NDArray

from curate.clips.mp4 import Mp4
from curate.clips.records import Cut, CutError
from curate.video.container import VideoError, open_input, packets

BITS_PER_CHANNEL_S = 64_000
RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Sampling rates that AAC supports."""
SLACK_S = 0.02
"""Steps in the sound's clock up to this length are not gaps: containers round times to milliseconds. Ours."""


def with_sound(
    uri: str, clips: Sequence[Cut | CutError], zero_s: float, storage_options: Mapping[str, Any] | None = None
) -> Iterator[Cut | CutError]:
    """Yields the clips in the given order, with their sound where the source has any.

    Args:
        uri: The source.
        clips: Its clips by start time, without sound. Errors are passed on unchanged.
        zero_s: Time of the first frame on the file's own clock, in seconds.
        storage_options: For fsspec.
    """
    written = [clip for clip in clips if isinstance(clip, Cut)]
    with_audio: dict[str, Cut | CutError] = {}
    try:
        for clip, sound in _sounds(uri, written, zero_s, storage_options):
            try:
                with_audio[clip.clip_id] = replace(clip, mp4=sound.muxed_with(clip), has_audio=True)
            except FFmpegError as error:
                with_audio[clip.clip_id] = CutError(clip.clip_id, f"the sound cannot be written: {error}")
    except (VideoError, FFmpegError) as error:
        for clip in written:
            with_audio.setdefault(clip.clip_id, CutError(clip.clip_id, f"the sound cannot be read: {error}"))
    yield from (with_audio.get(clip.clip_id, clip) for clip in clips)


def _sounds(
    uri: str, clips: Sequence[Cut], zero_s: float, storage_options: Mapping[str, Any] | None
) -> Iterator[tuple[Cut, _Sound]]:
    """Yields clips with their sound as they end; clips without any sound are left out."""
    waiting = deque(sorted(clips, key=lambda clip: clip.start_s))
    with open_input(uri, storage_options) as container:
        if not container.streams.audio or not clips:
            return
        stream = container.streams.audio[0]
        rate_hz = min(RATES_HZ, key=lambda rate: abs(rate - stream.rate))
        layout = "mono" if stream.layout.nb_channels == 1 else "stereo"
        resampler = AudioResampler(format="fltp", layout=layout, rate=rate_hz)
        active: list[tuple[Cut, _Sound]] = []
        for packet in packets(container, [stream]):
            try:
                frames = [out for frame in packet.decode() for out in resampler.resample(cast(AudioFrame, frame))]
            except FFmpegError:
                continue  # damage: silence
            for frame in frames:
                if frame.pts is None or frame.time_base is None:
                    continue
                at_s = float(frame.pts * frame.time_base) - zero_s
                end_s = at_s + frame.samples / rate_hz
                while waiting and waiting[0].start_s < end_s:
                    clip = waiting.popleft()
                    active.append((clip, _Sound(clip, rate_hz, layout)))
                yield from (pair for pair in active if pair[1].end_s <= at_s and pair[1].has_samples)
                active = [pair for pair in active if at_s < pair[1].end_s]
                samples_CN = cast(NDArray[np.float32], frame.to_ndarray())
                for _, sound in active:
                    sound.add(samples_CN, at_s)
            if not waiting and not active:
                return
        yield from (pair for pair in active if pair[1].has_samples)


class _Sound:
    """The samples of one clip, (channels, N) in -1..1; silence where the source has none."""

    def __init__(self, clip: Cut, rate_hz: int, layout: str) -> None:
        self.start_s, self.end_s = clip.start_s, clip.start_s + clip.duration_s
        self.rate_hz, self.layout = rate_hz, layout
        self.has_samples = False
        n_channels = 1 if layout == "mono" else 2
        self.samples_CN = np.zeros((n_channels, max(1, round(clip.duration_s * rate_hz))), np.float32)
        self._next = 0

    def add(self, samples_CN: NDArray[np.float32], at_s: float) -> None:
        """Copies decoded samples that begin at `at_s` into the clip."""
        at = round((at_s - self.start_s) * self.rate_hz)
        if self.has_samples and abs(at - self._next) <= SLACK_S * self.rate_hz:
            at = self._next
        first, last = max(0, -at), min(samples_CN.shape[1], self.samples_CN.shape[1] - at)
        self._next = at + samples_CN.shape[1]
        if last > first:
            self.samples_CN[:, at + first : at + last] = samples_CN[:, first:last]
            self.has_samples = True

    def muxed_with(self, clip: Cut) -> bytes:
        """The clip's mp4 with the sound added. Raises FFmpegError."""
        mp4 = Mp4()
        try:
            with av.open(io.BytesIO(clip.mp4), "r") as pictures:
                source = pictures.streams.video[0]
                video = mp4.container.add_stream_from_template(source, opaque=True)
                audio = mp4.container.add_stream("aac", rate=self.rate_hz)
                audio.layout = self.layout
                audio.bit_rate = BITS_PER_CHANNEL_S * len(self.samples_CN)
                audio.codec_context.flags |= Flags.bitexact
                for packet in pictures.demux(source):
                    if packet.size:
                        packet.stream = video
                        mp4.container.mux(packet)
                for at in range(0, self.samples_CN.shape[1], 1024):
                    block = np.ascontiguousarray(self.samples_CN[:, at : at + 1024])
                    frame = AudioFrame.from_ndarray(block, format="fltp", layout=self.layout)
                    frame.sample_rate, frame.pts = self.rate_hz, at
                    mp4.container.mux(audio.encode(frame))
                mp4.container.mux(audio.encode(None))
            return mp4.finish()
        finally:
            mp4.abandon()
