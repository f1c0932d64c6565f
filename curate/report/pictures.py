"""Sheets of thumbnails for the report: sixteen clips on a sheet, a row of frames for each, so that a page loads few files.

The name of a sheet is a digest of its part of the clips table and of how it is drawn. A report that is written again draws only the sheets
of new parts.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.tables import store
from curate.tables.table import Table, digest

VERSION = 1
"""Increases when sheets are drawn differently."""
SHEET_CLIPS = 16
QUALITY = 72
SMALL_RUN = 2_000
"""A run with up to this many clips has large frames."""
MOST_FRAMES, FRAMES_IN_ALL = 6, 240_000
"""The maximum number of frames of a clip and of a whole report (about two minutes of drawing on two cores). All figures here are our choice."""


@dataclass(frozen=True)
class Look:
    """How a clip is drawn: the number of frames, and the cell (pixels) that each frame is fitted into."""

    frames: int
    width_px: int
    height_px: int

    @classmethod
    def of(cls, n_clips: int) -> "Look":
        """Large cells for few clips, fewer frames for many."""
        height_px = 144 if n_clips <= SMALL_RUN else 90
        frames = min(MOST_FRAMES, max(1, FRAMES_IN_ALL // max(1, n_clips)))
        return cls(frames, height_px * 16 // 9, height_px)


@dataclass
class Sheets:
    """The names of the sheets, and the place of each clip: (number of its sheet, row on the sheet)."""

    look: Look
    names: list[str] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)


def write(clips: Table, clip_ids: Set[str], folder: str, look: Look, short_side_px: int) -> Sheets:
    """Writes the missing sheets of these clips and removes sheets that no clip needs.

    Args:
        clips: The clips table.
        clip_ids: The clips to draw.
        folder: The folder of the sheets.
        look: How a clip is drawn.
        short_side_px: Short side of the thumbnails in the table. They are decoded at a half, quarter or eighth of it if that is large enough.
    """
    existing = set(store.names(folder, ".jpg"))
    made_as = digest([VERSION, clips.claim(), look.frames, look.width_px, look.height_px, SHEET_CLIPS, QUALITY])
    found = Sheets(look)
    todo: list[tuple[str, list[tuple[str, list[str]]]]] = []
    for part, keys in clips.parts_with_keys():
        wanted = [clip_id for (clip_id,) in keys if clip_id in clip_ids]
        stem = hashlib.sha256(f"{part} {made_as}".encode()).hexdigest()[:16]
        missing = []
        for n, first in enumerate(range(0, len(wanted), SHEET_CLIPS)):
            name, some = f"{stem}-{n}.jpg", wanted[first : first + SHEET_CLIPS]
            found.places |= {clip_id: (len(found.names), row) for row, clip_id in enumerate(some)}
            found.names.append(name)
            if name not in existing:
                missing.append((name, some))
        if missing:
            todo.append((part, missing))
    reduced = max((by for by in (1, 2, 4, 8) if short_side_px // by >= look.height_px), default=1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda each: _draw(clips, each[0], each[1], folder, look, reduced), todo):
            pass
    for name in existing.difference(found.names):
        store.remove(store.join(folder, name))
    return found


def _draw(
    clips: Table, part: str, sheets: Sequence[tuple[str, list[str]]], folder: str, look: Look, reduced: int
) -> None:
    """Draws the sheets of one part in the part's order, so that only one sheet is in memory at a time."""
    rows = _thumbnails(clips, part, {clip_id for _, some in sheets for clip_id in some}, look.frames)
    for name, some in sheets:
        canvas = np.zeros((len(some) * look.height_px, look.frames * look.width_px, 3), np.uint8)
        left = set(some)
        while left:
            clip_id, jpegs = next(rows)
            left.discard(clip_id)
            top = some.index(clip_id) * look.height_px
            for i, jpeg in enumerate(jpegs):
                cell = canvas[top : top + look.height_px, i * look.width_px : (i + 1) * look.width_px]
                _fit(jpeg, cell, reduced)
        store.put(
            store.join(folder, name), cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        )


def _thumbnails(clips: Table, part: str, wanted: Set[str], frames: int) -> Iterator[tuple[str, list[bytes]]]:
    """(clip id, `frames` JPEGs evenly spread over the clip) of each clip; an empty list for a clip without thumbnails."""
    with clips.open_part(part) as file:
        for batch in file.iter_batches(batch_size=SHEET_CLIPS, columns=["clip_id", "thumbs"]):
            for clip_id, thumbs in zip(batch.column("clip_id").to_pylist(), batch.column("thumbs"), strict=True):
                if clip_id in wanted:
                    yield clip_id, _spread(thumbs, frames)


def _spread(thumbs: pa.ListScalar, frames: int) -> list[bytes]:
    if not thumbs.is_valid or not len(thumbs.values):
        return []
    n = len(thumbs.values)
    return [thumbs.values[int((i + 0.5) * n / frames)].as_py() for i in range(frames)]


def _fit(jpeg: bytes, cell: NDArray[np.uint8], reduced: int) -> None:
    """Scales a picture to fit and draws it in the middle of a cell. The cell stays black when the picture cannot be decoded."""
    flag = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}.get(
        reduced, cv2.IMREAD_REDUCED_COLOR_8
    )
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flag)
    if picture is None:
        return
    (height, width), (cell_height, cell_width) = picture.shape[:2], cell.shape[:2]
    scale = min(cell_width / width, cell_height / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (cell_height - size[1]) // 2, (cell_width - size[0]) // 2
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    cell[top : top + size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=smooth)
