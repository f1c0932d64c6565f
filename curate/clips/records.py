"""Options, spans and results of the clip writers. Times are seconds from the first frame of the source."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from curate.video.letterbox import Box
from curate.video.open import Reader

Mode = Literal["exact", "copy", "auto"]
Written = Literal["exact", "copy"]
Shares = tuple[float, float, float, float]
Numbered = Iterator[tuple[int, "Cut | CutError"]]
"""Results in the order in which clips end, each with the index of its span."""

EDGE_S = 1e-3
"""Tolerance between a span's edge and a frame's timestamp, in seconds (tables may be rounded to milliseconds). Ours."""


@dataclass
class ClipOptions:
    """How clips are written. Options that change pixels apply to `exact` only."""

    mode: Mode = "exact"
    """`exact` encodes again, `copy` keeps the source's packets, `auto` copies where the copy loses little: see `tolerance_s`."""
    tolerance_s: float = 0.1
    """In `auto`, a clip is copied when the copy lacks at most this many seconds at either end. Ours."""
    least_s: float = 0.0
    """A copied clip shorter than this is an error."""
    audio: bool = False
    """Adds the sound track, when the source has one."""
    crop: bool = False
    """Crops black bars, for spans that have a box."""
    short_side_px: int | None = None
    """Scales the picture down to this short side and keeps the aspect ratio; never enlarges."""
    fps: float | None = None
    """Constant frame rate: each frame is the nearest one of the source (repeated when the source is slower).
    None keeps the source's timestamps."""
    crf: int = 18
    gop: int = 32
    """Maximum distance between keyframes, in frames."""
    preset: str = "veryfast"
    codec: str = "libx264"


@dataclass(frozen=True)
class Span:
    """A part of a source, [start_s, end_s)."""

    clip_id: str
    start_s: float
    end_s: float
    first_hash: str | None = None
    """Hashes of its first and last frame (curate/video/frame_hash.py); None: not known."""
    last_hash: str | None = None
    box: Box | None = None
    """The picture without its black bars, in pixels of the upright source; None: not known, or no bars."""


@dataclass(frozen=True)
class Cut:
    """A written clip: the mp4 bytes and their properties."""

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
    """Playing time of the mp4."""
    last_s: float
    """Time of the last frame in the source."""
    shows: Shares | None = None
    """The part of the source's picture that the clip shows: (x, y, width, height) as shares of its sides; None: the whole picture."""
    has_audio: bool = False


@dataclass(frozen=True)
class CutError:
    """A span that could not be cut, and the reason in one sentence."""

    clip_id: str
    error: str


def edge_s_of(reader: Reader) -> float:
    """Tolerance between a span's edge and a frame of this source, in seconds: `EDGE_S`, at most a quarter of a frame."""
    return min(EDGE_S, 0.25 / (reader.info.fps or 25.0))


def fps_of(reader: Reader, n_frames: int, duration_s: float) -> float:
    """Frame rate of a clip: the source's average rate when it predicts the clip's length to one frame, the clip's own average otherwise."""
    stated = reader.info.fps
    if stated and abs(stated * duration_s - n_frames) < 1:
        return stated
    return n_frames / duration_s
