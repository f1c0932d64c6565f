"""What the clip writers are told and what they give back. Times are seconds from the first frame of the source."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from curate.video import Reader

Mode = Literal["exact", "copy"]
Numbered = Iterator[tuple[int, "Cut | CutError"]]
"""Results as clips end, each with the number of its span."""

EDGE_S = 1e-3
"""How far a span's edge may lie off a frame's timestamp (a table rounded to milliseconds). Ours."""


@dataclass
class ClipOptions:
    """How clips are written. Everything but `mode` belongs to `exact`."""

    mode: Mode = "exact"
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


@dataclass(frozen=True)
class Cut:
    """A clip as written: mp4 bytes without sound, and what they hold when played."""

    clip_id: str
    mp4: bytes
    mode: Mode
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
