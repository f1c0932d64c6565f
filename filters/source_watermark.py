"""SourceWatermark: score of a mark at the same place in all clips of one source, [0, 1].

Edges that stay within one clip are a mark or a still background (`filters/watermark.py`); edges that stay at the same place in clips
that otherwise look different are a mark. Source: the median over a collection of Dekel et al., CVPR 2017, here over the
maps that `Watermark` stores (54 x 96 cells: with still edges, with any edges). The rest is ours.

The score is a product of two numbers. First, the number of connected cells with still edges in at least `SHARE` of the
clips, minus three times the number expected by chance for independent cells (the binomial tail): 1 - exp(-cells / 8). Second, how
different the clips look outside the largest such group: 1 minus the mean overlap (intersection over union) of their edges. Clips from
one tripod shot look the same, so their score is near 0 although everything in them stays: a mark cannot be separated from the background.

Null for a source with fewer than `MIN_CLIPS` clips with a map. It is a stage over the whole run (`whole = True`): it is
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

MIN_CLIPS = 3
SHARE = 0.65
"""Share of clips. Ours: of 0.5, 0.65 and 0.8 the highest AUC on drawn sources of the tuning half of the photographs (0.82, 0.88, 0.67)."""
MIN_EDGES = 20
"""Two clips with fewer cells with edges than this outside the mark count as looking the same."""
MAX_COMPARED = 24
"""Maximum clips of a source that are compared with each other, spread over it."""


def common_mark(maps_N2HW: NDArray[np.bool_]) -> tuple[float, list[float] | None]:
    """Score [0, 1] and box (left, top, right, bottom in shares) of the mark in all clips; the box is None without a mark.

    Args:
        maps_N2HW: Per clip the cells with still edges and the cells with any edges, shape (N, 2, 54, 96).
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
    chosen = np.unique(np.linspace(0, len(edge) - 1, MAX_COMPARED).round().astype(int))
    looks = edge[chosen][:, elsewhere]
    pairs = [(int((a & b).sum()), int((a | b).sum())) for a, b in combinations(looks, 2)]
    overlaps = [both / either if either >= MIN_EDGES else 1.0 for both, either in pairs]
    score = float((1 - np.exp(-cells / 8)) * (1 - np.mean(overlaps)))
    ys, xs = np.nonzero(np.isin(label, marks))
    rows, columns = MAP_CELLS
    return score, [xs.min() / columns, ys.min() / rows, (xs.max() + 1) / columns, (ys.max() + 1) / rows]


@dataclass
class SourceWatermark:
    """Score of a mark shared by the clips of one source [0, 1], and its box [left, top, right, bottom] in shares, null below 0.5.

    Null for a source with fewer than three clips. Every clip of a source has the same value.
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
            score, box = common_mark(np.stack(maps)) if len(maps) >= MIN_CLIPS else (None, None)
            shown = [float(v) for v in box] if box and score is not None and score >= 0.5 else None
            rows += [{"clip_id": c.clip_id, "source_watermark": score, "source_watermark_box": shown} for c in members]
        return rows
