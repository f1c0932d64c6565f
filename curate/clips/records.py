"""What the clip writers are told and what they give back. Times are seconds from the first frame of the source."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from curate.video.letterbox import Box
from curate.video.open import Reader

Mode = Literal["exact", "copy", "auto"]
Written = Literal["exact", "copy"]
Shares = tuple[float, float, float, float]
Numbered = Iterator[tuple[int, "Cut | CutError"]]
"""Results as clips end, each with the number of its span."""

EDGE_S = 1e-3
"""How far a span's edge may lie off a frame's timestamp (a table rounded to milliseconds). Ours."""


@dataclass
class ClipOptions:
    """How clips are written. What decides about pixels belongs to `exact`."""

    mode: Mode = "exact"
    """`exact` encodes again, `copy` keeps the source's packets, `auto` copies where a copy is as good: see `tolerance_s`."""
    tolerance_s: float = 0.1
    """In `auto`, a clip is copied when at most so many seconds stay behind at either end. Ours."""
    least_s: float = 0.0
    """A copy of which less is left is an error."""
    audio: bool = False
    """Puts the sound beside the pictures, where the source has any."""
    crop: bool = False
    """Cuts off black bars, where a span has a box."""
    short_side_px: int | None = None
    """Scales the picture down to this short side, aspect kept; never enlarges."""
    fps: float | None = None
    """Constant frame rate; each frame is the source's nearest in time (repeated where the source is slower).
    None keeps the source's own timestamps."""
    crf: int = 18
    gop: int = 32
    """Largest distance between keyframes, in frames."""
    preset: str = "veryfast"
    codec: str = "libx264"


@dataclass(frozen=True)
class Span:
    """A piece of a source, [start_s, end_s)."""

    clip_id: str
    start_s: float
    end_s: float
    first_hash: str | None = None
    """Fingerprints of its first and last frame (curate/video/frame_hash.py); None: they are not known."""
    last_hash: str | None = None
    box: Box | None = None
    """What is inside the black bars, in pixels of the upright source; None: not known, or no bars."""


@dataclass(frozen=True)
class Cut:
    """A clip as written: mp4 bytes, and what they hold when played."""

    clip_id: str
    mp4: bytes
    mode: Written
    n_frames: int
    fps: float
    width_px: int
    height_px: int
    start_s: float
    """Time of the first frame in the source; differs from the span's in mode `copy`."""
    end_s: float
    """End of the last frame in the source."""
    duration_s: float
    """How long the mp4 plays."""
    last_s: float
    """Time of the last frame in the source."""
    shows: Shares | None = None
    """The part of the source's picture that it shows: (x, y, width, height) as shares of its sides; None: the whole."""
    has_audio: bool = False


@dataclass(frozen=True)
class CutError:
    """A span that could not be cut, and why, in one sentence."""

    clip_id: str
    error: str


def edge_s_of(reader: Reader) -> float:
    """How far a span's edge may lie off a frame of this source, in seconds: at most a quarter of a frame."""
    return min(EDGE_S, 0.25 / (reader.info.fps or 25.0))


def fps_of(reader: Reader, n_frames: int, duration_s: float) -> float:
    """The source's average rate where the clip agrees with it to a frame, its own otherwise."""
    stated = reader.info.fps
    if stated and abs(stated * duration_s - n_frames) < 1:
        return stated
    return n_frames / duration_s
