"""Contact sheets for visual checks: boundaries with the frames on both sides, or clips with their thumbnails."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.cuts.boundary import Boundary
from curate.video.open import frames_at

SIDE, INSIDE = 3, 4
"""Number of frames on each side of a boundary, and the maximum inside a gradual one."""
ROW_PX, GAP_PX, TEXT_PX = 90, 4, 16
FONT, FONT_SCALE, TEXT_LEFT_PX = cv2.FONT_HERSHEY_SIMPLEX, 0.4, 3
THUMBNAILS = 6
"""Maximum number of thumbnails per clip."""
MAX_ROWS = 400
"""Maximum number of rows, evenly sampled: viewers cannot open an image of 40 000 lines."""


def sheet(uri: str, boundaries: Sequence[Boundary], times_s: Sequence[float], short_side_px: int = ROW_PX) -> bytes:
    """A PNG with one row per boundary: its description, the last frames before it, frames inside it (red border) and the first frames after it.

    Args:
        uri: the video file.
        boundaries: the boundaries, in frames of the file.
        times_s: the start time of each frame, and the end time of the last one.
        short_side_px: short side of the drawn frames.

    Raises VideoError when the file cannot be read.
    """
    chosen = list(boundaries)
    if len(chosen) > MAX_ROWS:
        chosen = [boundaries[i] for i in np.linspace(0, len(boundaries) - 1, MAX_ROWS).round().astype(int)]
    rows = [_frames(b, len(times_s) - 1) for b in chosen]
    wanted = sorted({frame for row in rows for frame, _ in row})
    if not wanted:
        return _png(_text("no boundaries", 360))
    # The middle of each frame, because times are rounded in tables.
    decoded = frames_at(uri, [(times_s[f] + times_s[f + 1]) / 2 for f in wanted], short_side_px)
    pictures = dict(zip(wanted, decoded.frames_THWC, strict=True))
    width_px = max(len(row) for row in rows) * (decoded.frames_THWC.shape[2] + GAP_PX)
    lines = []
    for b, row in zip(chosen, rows, strict=True):
        what = f"{b.kind}  frames {b.start}" + (f"-{b.end}" if b.end > b.start else "")
        lines.append(_text(f"{what}  {times_s[b.start]:.2f} s  {b.confidence:.2f}  {b.detector}", width_px))
        lines.append(_strip([_cell(pictures[f], f, inside) for f, inside in row], width_px))
    return _png(np.concatenate(lines))


def clip_sheet(clips: Sequence[tuple[str, Sequence[bytes]]], thumbnails: int = THUMBNAILS) -> bytes:
    """A PNG with one row per clip: its text, wrapped, and evenly sampled thumbnails.

    Args:
        clips: (text, thumbnails as JPEG) of each; a text may have several lines.
        thumbnails: Maximum number per clip.
    """
    rows = []
    for text, jpegs in clips[:MAX_ROWS]:
        n = min(thumbnails, len(jpegs))
        shown = [jpegs[i] for i in np.unique(np.linspace(0, len(jpegs) - 1, n).round().astype(int))] if n else []
        rows.append((text, [_scaled(jpeg) for jpeg in shown]))
    width_px = max((sum(p.shape[1] + GAP_PX for p in row) for _, row in rows if row), default=360)
    lines = []
    for text, row in rows:
        lines += [_text(line, width_px) for line in _wrapped(text.encode("ascii", "replace").decode(), width_px)]
        if row:
            lines.append(_strip(row, width_px))
    return _png(np.concatenate(lines) if lines else _text("no clips", 360))


def _scaled(jpeg: bytes) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        return np.full((ROW_PX, ROW_PX, 3), 96, np.uint8)
    size_px = max(1, round(picture.shape[1] * ROW_PX / picture.shape[0])), ROW_PX
    return np.asarray(cv2.resize(picture, size_px, interpolation=cv2.INTER_AREA), np.uint8)


def _frames(b: Boundary, n: int) -> list[tuple[int, bool]]:
    """Frames of a row, each with whether it is inside the transition."""
    inside = [int(f) for f in np.unique(np.linspace(b.start, b.end - 1, INSIDE).round())] if b.end > b.start else []
    before = range(max(0, b.start - SIDE), b.start)
    after = range(b.end, min(n, b.end + SIDE))
    return [*((f, False) for f in before), *((f, True) for f in inside), *((f, False) for f in after)]


def _cell(picture_HWC: NDArray[np.uint8], frame: int, inside: bool) -> NDArray[np.uint8]:
    bgr = np.ascontiguousarray(picture_HWC[..., ::-1])
    if inside:
        cv2.rectangle(bgr, (0, 0), (bgr.shape[1] - 1, bgr.shape[0] - 1), (60, 60, 255), 2)
    for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(bgr, str(frame), (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, colour, thick, cv2.LINE_AA)
    return bgr


def _strip(cells: list[NDArray[np.uint8]], width_px: int) -> NDArray[np.uint8]:
    strip = np.full((cells[0].shape[0] + GAP_PX, width_px, 3), 32, np.uint8)
    x = 0
    for cell in cells:
        strip[: cell.shape[0], x : x + cell.shape[1]] = cell
        x += cell.shape[1] + GAP_PX
    return strip


def _wrapped(text: str, width_px: int) -> list[str]:
    """The lines of a text, no wider than the sheet, except for a single long word."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and cv2.getTextSize(longer, FONT, FONT_SCALE, 1)[0][0] > width_px - 2 * TEXT_LEFT_PX:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def _text(text: str, width_px: int) -> NDArray[np.uint8]:
    line = np.full((TEXT_PX, width_px, 3), 32, np.uint8)
    cv2.putText(line, text, (TEXT_LEFT_PX, TEXT_PX - 4), FONT, FONT_SCALE, (220, 220, 220), 1, cv2.LINE_AA)
    return line


def _png(picture_HWC: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", picture_HWC)[1].tobytes())
