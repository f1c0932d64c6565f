"""Small videos whose frames carry their number, for tests that read or write video.

A number is drawn as a row of light and dark blocks (16 bits, highest first) that survives H.264, scaling, rotation and
a changed colour range; the rest of the picture is a gradient that moves, so that every frame differs all over.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

N_BITS = 16
_DARK, _LIGHT = 48, 208


def numbered_frames(n: int, width_px: int = 160, height_px: int = 96, first: int = 0) -> NDArray[np.uint8]:
    """Returns (n, H, W, 3) RGB frames numbered first, first + 1, ..."""
    y, x = np.mgrid[:height_px, :width_px]
    frames_THWC = np.empty((n, height_px, width_px, 3), np.uint8)
    columns = np.arange(width_px) * N_BITS // width_px
    for i in range(n):
        number = first + i
        frames_THWC[i, ..., 0] = (x + 3 * number) % 160 + 40
        frames_THWC[i, ..., 1] = (y + 2 * number) % 160 + 40
        frames_THWC[i, ..., 2] = 60 + (number * 7) % 120
        bits = number >> (N_BITS - 1 - columns) & 1
        frames_THWC[i, height_px // 4 : height_px * 3 // 4] = np.where(bits, _LIGHT, _DARK)[None, :, None]
    return frames_THWC


def read_number(frame_HWC: NDArray[np.uint8]) -> int:
    """Returns the number drawn in a frame of any size."""
    height_px, width_px = frame_HWC.shape[:2]
    row = frame_HWC[height_px * 3 // 8 : height_px * 5 // 8].mean(axis=(0, 2))
    centres = [int((k + 0.5) * width_px / N_BITS) for k in range(N_BITS)]
    return sum(int(row[c] > (_DARK + _LIGHT) / 2) << (N_BITS - 1 - k) for k, c in enumerate(centres))


def write_video(
    path: Path,
    frames_THWC: Iterable[NDArray[np.uint8]],
    fps: float | Fraction = 25,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    b_frames: int = 0,
    times_s: Sequence[float] | None = None,
    start_s: float = 0.0,
    rotation_deg: int = 0,
    aspect: Fraction | None = None,
    audio_s: float = 0.0,
    format: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Writes RGB frames as a video and returns its path.

    Args:
        path: The suffix chooses the container unless `format` does.
        frames_THWC: An array or any iterable of (H, W, 3) frames.
        fps: Frame rate; `times_s` overrides the spacing.
        codec: FFmpeg's name of the encoder.
        pix_fmt: Pixel format in the file.
        gop: Keyframe distance; with libx264 there are no others.
        b_frames: Number of B-frames in a row.
        times_s: Times of the frames, for a variable rate (ticks of 1/90000 s).
        start_s: Timestamp of the first frame on the file's clock.
        rotation_deg: Clockwise rotation that a player must apply.
        aspect: Sample aspect ratio.
        audio_s: Length of a silent sound track; 0: no sound track.
        format: FFmpeg's name of the container.
        options: For the encoder.
        container_options: For the muxer.
    """
    rate = Fraction(fps).limit_denominator(100_000)
    base = 1 / rate if times_s is None and start_s == 0 else Fraction(1, 90_000)
    settings = dict(options or {})
    if codec == "libx264":
        settings = {"crf": "12", "preset": "ultrafast", "sc_threshold": "0", "bf": str(b_frames)} | settings
    elif b_frames:
        settings = {"bf": str(b_frames)} | settings
    extra = dict(container_options or {})
    if start_s:
        extra["avoid_negative_ts"] = "disabled"
    frames = iter(frames_THWC)
    frame = next(frames)
    with av.open(str(path), "w", format=format, container_options=extra) as container:
        add_stream: Any = container.add_stream
        video = add_stream(codec, rate=rate, options=settings)
        video.height, video.width = frame.shape[:2]
        video.pix_fmt = pix_fmt
        context = video.codec_context
        context.time_base = base
        context.gop_size = gop
        context.thread_count = 1
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if rotation_deg:
            video.set_display_rotation(-rotation_deg)
        sound = add_stream("aac" if path.suffix != ".avi" else "mp2", rate=48_000) if audio_s else None
        index = 0
        while frame is not None:
            t_s = index / rate if times_s is None else times_s[index]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
            picture.time_base = base
            picture.pts = round((t_s + (Fraction(start_s) if times_s is None else start_s)) / base)
            container.mux(video.encode(picture))
            frame = next(frames, None)
            index += 1
        container.mux(video.encode(None))
        if sound is not None:
            n_samples = 1024
            for k in range(round(audio_s * 48_000 / n_samples)):
                silence = av.AudioFrame.from_ndarray(np.zeros((2, n_samples), np.float32), "fltp", "stereo")
                silence.sample_rate = 48_000
                silence.pts = k * n_samples
                silence.time_base = Fraction(1, 48_000)
                container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


def loop(source: Path, target: Path, seconds: float) -> Path:
    """Repeats a video up to a duration, without encoding again, and returns the target."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        packets = [
            (bytes(p), p.pts, p.dts, p.duration, p.is_keyframe) for p in container.demux(stream) if p.dts is not None
        ]
        base = stream.time_base
        assert base is not None
        first = min(pts for _, pts, _, _, _ in packets if pts is not None)
        length = max(pts + (duration or 0) for _, pts, _, duration, _ in packets if pts is not None) - first
        with av.open(str(target), "w") as out:
            copy = out.add_stream_from_template(stream)
            for turn in range(max(1, round(seconds / float(length * base)))):
                for data, pts, dts, duration, is_keyframe in packets:
                    packet = av.Packet(data)
                    packet.stream, packet.time_base = copy, base
                    packet.pts, packet.dts = pts + turn * length, dts + turn * length
                    packet.duration, packet.is_keyframe = duration, is_keyframe
                    out.mux_one(packet)
    return target
