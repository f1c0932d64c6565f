"""SourceWatermark: a mark that is at the same place in all clips of one source, [0, 1].

What stays within a clip is a mark or a still background (`filters/watermark.py`); what stays at the same place in clips
that otherwise look different is a mark. Source: the median over a collection of Dekel et al., CVPR 2017, here over the
maps that `Watermark` leaves (54 x 96 cells: with still edges, with any edges). Ours, all of what follows.

The score is the product of two numbers. How many cells lie together that have still edges in at least `SHARE` of the
clips, beyond three times what chance gives for cells filled independently (the binomial tail): 1 - exp(-cells / 8). And how different
the clips look outside of the largest such group: 1 minus the mean overlap (intersection over union) of their edges. Clips cut from
one tripod shot look the same, so their score is near 0 though everything in them stays: nothing can be told there.

Null where there are fewer than `FEWEST` clips with a map. It is a stage over the whole run (`whole = True`): it is
called once with every clip.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.still_edges import MAP_CELLS, unpacked

FEWEST = 3
SHARE = 0.65
"""Ours: of 0.5, 0.65 and 0.8 the one with the highest AUC on drawn sources of the tuning half of the photographs (0.82, 0.88, 0.67)."""
FEWEST_EDGES = 20
"""Two clips with fewer cells with edges than this, outside of the mark, look the same."""
MOST_COMPARED = 24
"""Clips of a source whose looks are compared with each other, spread over it."""


def common_mark(maps_N2HW: NDArray[np.bool_]) -> tuple[float, list[float] | None]:
    """Score [0, 1] and box (left, top, right, bottom in shares) of what stays in all clips.

    Args:
        maps_N2HW: For each clip the cells with still edges and those with any, shape (N, 2, 54, 96).
    """
    still, edge = maps_N2HW[:, 0], maps_N2HW[:, 1]
    common = still.mean(axis=0) >= SHARE
    n, filled = len(still), float(still.mean())
    least = int(np.ceil(SHARE * n))
    by_chance = sum(comb(n, k) * filled**k * (1 - filled) ** (n - k) for k in range(least, n + 1))
    count, label, stats, _ = cv2.connectedComponentsWithStats(common.astype(np.uint8))
    extra = [float(size) - 3 * by_chance * float(width * height) for *_, width, height, size in stats[1:].tolist()]
    marks = [index + 1 for index in range(count - 1) if extra[index] >= 4]
    if not marks:
        return 0.0, None
    cells = sum(extra[index - 1] for index in marks)
    largest = label == max(marks, key=lambda index: extra[index - 1])
    elsewhere = cv2.dilate(largest.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    chosen = np.unique(np.linspace(0, len(edge) - 1, MOST_COMPARED).round().astype(int))
    looks = edge[chosen][:, elsewhere]
    pairs = [(int((a & b).sum()), int((a | b).sum())) for a, b in combinations(looks, 2)]
    overlaps = [both / either if either >= FEWEST_EDGES else 1.0 for both, either in pairs]
    score = float((1 - np.exp(-cells / 8)) * (1 - np.mean(overlaps)))
    ys, xs = np.nonzero(np.isin(label, marks))
    rows, columns = MAP_CELLS
    return score, [xs.min() / columns, ys.min() / rows, (xs.max() + 1) / columns, (ys.max() + 1) / rows]


@dataclass
class SourceWatermark:
    """A mark shared by the clips of one source [0, 1], and its box [left, top, right, bottom] in shares, null below 0.5.

    Null with fewer than three clips of the source. Every clip of a source has the same value.
    """

    columns: ClassVar[dict[str, pa.DataType]] = {
        "source_watermark": pa.float32(),
        "source_watermark_box": pa.list_(pa.float32()),
    }
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("watermark_edges",)
    whole: ClassVar[bool] = True

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the two columns."""
        by_source: dict[str, list[Clip]] = defaultdict(list)
        for clip in sorted(clips, key=lambda clip: (clip.source_id, clip.start_s, clip.clip_id)):
            by_source[clip.source_id].append(clip)
        rows = []
        for members in by_source.values():
            maps = [unpacked(data) for clip in members if (data := clip.columns.get("watermark_edges"))]
            score, box = common_mark(np.stack(maps)) if len(maps) >= FEWEST else (None, None)
            shown = [float(v) for v in box] if box and score is not None and score >= 0.5 else None
            rows += [{"clip_id": c.clip_id, "source_watermark": score, "source_watermark_box": shown} for c in members]
        return rows
