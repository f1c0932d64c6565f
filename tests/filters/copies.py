"""Shots with a known truth, and copies of them: frames at 20 a second in, thumbnails at 2 a second out."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = Sequence[NDArray[np.uint8]]
RATE = 20


def scene(take: int, duration_s: float = 4.4, *, room: int = 0) -> list[NDArray[np.uint8]]:
    """A static camera in one `room` with two discs that move differently in each `take`, (180, 320, 3)."""
    background = cv2.resize(
        np.random.default_rng(room).uniform(40, 200, (9, 16, 3)), (320, 180), interpolation=cv2.INTER_CUBIC
    )
    rng = np.random.default_rng(1000 * room + take + 1)
    frames = []
    knots = rng.uniform((10, 10), (310, 170), (2, 4, 2))  # a place every two seconds, for each disc
    shades = rng.uniform(0, 255, (2, 3))
    for i in range(round(duration_s * RATE)):
        frame = background.copy()
        at_s = i / RATE
        for places, shade in zip(knots, shades, strict=True):
            x, y = (np.interp(at_s, 2 * np.arange(4), places[:, axis]) for axis in (0, 1))
            cv2.circle(frame, (round(x), round(y)), 28, tuple(map(float, shade)), -1)
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return frames


def thumbnails(frames: Frames, *, speed: float = 1.0, duration_s: float = 4.0, rate: int = RATE) -> Frames:
    """The thumbnails of a scan at that playback speed: two frames a second."""
    at_s = 0.5 * speed * np.arange(int(2 * duration_s / speed))
    return [frames[min(round(t * rate), len(frames) - 1)] for t in at_s]


def encoded(frames: Frames, quality: int = 25) -> Frames:
    """After strong JPEG compression."""
    return [
        np.asarray(
            cv2.imdecode(cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR), np.uint8
        )
        for f in frames
    ]


def halved(frames: Frames) -> Frames:
    """At half the size."""
    return [cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in frames]


def cropped(frames: Frames, share: float = 0.05, left: float = 0.0, top: float = 0.0) -> Frames:
    """Without `share` of its height and width: the given part (0 to 1) from the left and the top, the rest from the other side."""
    height_px, width_px = frames[0].shape[:2]
    x, y = round(width_px * share * left), round(height_px * share * top)
    return [f[y : y + round(height_px * (1 - share)), x : x + round(width_px * (1 - share))] for f in frames]


def marked(frames: Frames, opacity: float = 0.5, *, tiled: bool = False) -> Frames:
    """With a line of text and a logo, or with text over the whole frame."""
    height_px, width_px = frames[0].shape[:2]
    ink = np.zeros((height_px, width_px), np.uint8)
    if tiled:
        for y in range(round(height_px * 0.1), height_px, round(height_px * 0.33)):
            at = (round(width_px * 0.02), y)
            cv2.putText(
                ink, "SAMPLE  SAMPLE  SAMPLE", at, cv2.FONT_HERSHEY_DUPLEX, height_px / 300, 255, 2, cv2.LINE_AA
            )
    else:
        at = (round(width_px * 0.05), round(height_px * 0.92))
        cv2.putText(ink, "(c) stock.example", at, cv2.FONT_HERSHEY_DUPLEX, height_px / 300, 255, 2, cv2.LINE_AA)
        cv2.circle(ink, (round(width_px * 0.9), round(height_px * 0.12)), round(height_px * 0.06), 255, -1)
    cover = (ink / 255.0 * opacity)[..., None]
    return [(f * (1 - cover) + 255 * cover).astype(np.uint8) for f in frames]


KINDS: dict[str, Callable[[Frames], Frames]] = {
    "encoded": lambda frames: encoded(thumbnails(frames)),
    "halved": lambda frames: halved(thumbnails(frames)),
    "cropped": lambda frames: cropped(thumbnails(frames)),
    "marked": lambda frames: marked(thumbnails(frames)),
    "faster": lambda frames: thumbnails(frames, speed=1.1),
    "slower": lambda frames: thumbnails(frames, speed=0.9),
    "all": lambda frames: encoded(halved(marked(cropped(thumbnails(frames, speed=1.1))))),
}
