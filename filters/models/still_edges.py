"""Still edges: the edges of a clip that stay exactly in place, and how far the rest of the picture moves meanwhile.

Source: Dekel, Rubinstein, Liu, Freeman, "On the effectiveness of visible watermarks", CVPR 2017: the median over
pictures of the gradient keeps what all of them share, a watermark, and cancels what differs. There the pictures are a
collection; here they are the thumbnails of one clip, so the median also keeps scene parts that do not move.
Ours, therefore: the spread around the median (a pixel is still if its median gradient is well above the
spread), groups of still pixels, and for each group the share of the *other* edges that stay as well.

T frames, H height, W width, in pixels; gradients are in grey levels per pixel.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from filters.models.overlay import gradients

MAX_FRAMES = 12
"""Maximum frames used, spread over the clip: more cost time and hardly change the median."""
LEVELS = 2.0
"""Minimum median gradient of a still pixel."""
SURE = 4.0
"""Minimum median gradient of a still pixel, in multiples of its spread (median absolute deviation plus half a level of noise)."""
MAP_CELLS = (54, 96)

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Group:
    """Connected still pixels."""

    box_px: tuple[int, int, int, int]
    """Left, top, right, bottom."""
    pixels: float
    """Number of still pixels, scaled to a 360 px short side."""
    own: float
    """Share of the edges in the group's area that stay, about [0, 1]."""
    sureness: float
    """Median over the group of median gradient over spread."""
    rest: float
    """Share of the edges outside the group that stay, about [0, 1]: near 1 the camera is still and the group is not evidence."""
    elsewhere: int
    """Cells of a 54 x 96 map outside its box with still edges: few for a mark, many for a still background."""


@dataclass(frozen=True)
class StillEdges:
    """Still edges of one clip, each (H, W): median and mean gradient, certainty, still pixels, and pixels where edges count."""

    median: Plane
    mean: Plane
    sure: Plane
    """Median over spread."""
    still: NDArray[np.uint8]
    counts: NDArray[np.uint8]
    lit_px: tuple[int, int, int, int]
    """Left, top, right, bottom of the area inside black bars."""


def long_lines(still_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Straight lines along a side, at least a quarter of it long: the borders of bars and frames, not marks.

    A still picture with dense texture also consists of lines only, and so has no groups.
    """
    height_px, width_px = still_HW.shape
    fat = cv2.dilate(still_HW, np.ones((3, 3), np.uint8))
    across = cv2.morphologyEx(fat, cv2.MORPH_OPEN, np.ones((1, max(8, width_px // 4)), np.uint8))
    down = cv2.morphologyEx(fat, cv2.MORPH_OPEN, np.ones((max(8, height_px // 4), 1), np.uint8))
    return np.asarray(cv2.dilate(across | down, np.ones((7, 7), np.uint8)), dtype=np.uint8)


def median_over_time(values_TN: NDArray[np.int16]) -> NDArray[np.float32]:
    """Median over the first axis. A sorting network of whole frames (Batcher, 1968): a tenth of the time of np.median."""
    rows = list(values_TN)
    count, p = len(rows), 1
    while p < count:
        k = p
        while k >= 1:
            for j in range(k % p, count - k, 2 * k):
                for i in range(min(k, count - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        low, high = rows[i + j], rows[i + j + k]
                        rows[i + j], rows[i + j + k] = np.minimum(low, high), np.maximum(low, high)
            k //= 2
        p *= 2
    middle = rows[(count - 1) // 2].astype(np.float32) + rows[count // 2].astype(np.float32)
    return np.asarray(middle / 2, dtype=np.float32)


def still_edges(greys_THW: NDArray[np.uint8], lit: tuple[slice, slice]) -> StillEdges:
    """Median, mean and spread of the gradient over the frames.

    Args:
        greys_THW: Grey frames, T >= 2.
        lit: Rows and columns inside black bars.
    """
    chosen = np.unique(np.linspace(0, len(greys_THW) - 1, MAX_FRAMES).round().astype(int))
    fields = [gradients(greys_THW[index], blur_px=0.8) for index in chosen]
    mean_HW: Plane = np.mean([cv2.magnitude(*field) for field in fields], axis=0, dtype=np.float32)
    scaled = np.stack([np.rint(field * 64).astype(np.int16) for field in fields])
    middle = median_over_time(scaled)
    spread = median_over_time(np.abs(scaled - np.rint(middle).astype(np.int16))) / 64
    median_HW, spread_HW = cv2.magnitude(*(middle / 64)), cv2.magnitude(*spread)
    sure_HW = median_HW / (spread_HW + 0.5)
    counts = np.zeros(median_HW.shape, dtype=np.uint8)
    margin_px = max(3, min(counts.shape) // 60)
    rows, columns = lit
    counts[rows.start + margin_px : rows.stop - margin_px, columns.start + margin_px : columns.stop - margin_px] = 1
    counts &= 1 - long_lines(((median_HW > LEVELS) & (sure_HW > SURE / 2)).astype(np.uint8))
    still = ((median_HW > LEVELS) & (sure_HW > SURE)).astype(np.uint8) & counts
    lit_px = (columns.start, rows.start, columns.stop, rows.stop)
    return StillEdges(median_HW, mean_HW, sure_HW, still, counts, lit_px)


def _rims(stats_5: NDArray[np.int32], lit_px: tuple[int, int, int, int], short_px: int) -> bool:
    """Whether a group is a thin strip along the edge of the picture: the remains of a broken border."""
    left, top, width, height = (int(v) for v in stats_5[:4])
    near_px, thin_px = 0.04 * short_px, 0.06 * short_px
    beside = left - lit_px[0] < near_px or lit_px[2] - left - width < near_px
    across = top - lit_px[1] < near_px or lit_px[3] - top - height < near_px
    return (beside and width < thin_px) or (across and height < thin_px)


def groups(edges: StillEdges, most: int = 3) -> list[Group]:
    """The groups of still pixels with the strongest edges, strongest first."""
    short_px = min(edges.still.shape)
    reach_px = max(3, int(short_px * 0.03)) | 1
    near = cv2.dilate(edges.still, np.ones((reach_px, reach_px), np.uint8))
    count, label_HW, stats, _ = cv2.connectedComponentsWithStats(near)
    label = label_HW.ravel()
    kept = np.bincount(label, (edges.median * edges.still).ravel(), count)
    pixels = np.bincount(label, edges.still.ravel(), count)
    kept[0] = 0
    edge_HW = (edges.mean > LEVELS) & (edges.counts > 0)
    cells = still_cells(edges)
    found: list[Group] = []
    for index in np.argsort(-kept, kind="stable"):
        if len(found) == most or kept[index] == 0:
            break
        if pixels[index] < 12:
            continue
        if _rims(stats[index], edges.lit_px, short_px):
            continue
        inside_HW = label_HW == index
        rest_HW = edge_HW & ~inside_HW
        left, top, width, height = (int(v) for v in stats[index, :4])
        found.append(
            Group(
                box_px=(left, top, left + width, top + height),
                pixels=float(pixels[index] * (360 / short_px) ** 2),
                own=float(kept[index] / (edges.mean[inside_HW & (edges.counts > 0)].sum() + 1)),
                sureness=float(np.median(edges.sure[inside_HW & (edges.still > 0)])),
                rest=float(edges.median[rest_HW].sum() / (edges.mean[rest_HW].sum() + 1)),
                elsewhere=int(
                    cells.sum() - cells[_cells_of((left, top, left + width, top + height), label_HW.shape)].sum()
                ),
            )
        )
    return found


def still_cells(edges: StillEdges) -> NDArray[np.bool_]:
    """Cells of a 54 x 96 map with still edges."""
    return np.asarray(
        cv2.resize(edges.still.astype(np.float32), MAP_CELLS[::-1], interpolation=cv2.INTER_AREA) > 0.06, dtype=np.bool_
    )


def _cells_of(box_px: tuple[int, int, int, int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    down, across = MAP_CELLS[0] / shape[0], MAP_CELLS[1] / shape[1]
    left, top, right, bottom = box_px
    return slice(int(top * down), int(np.ceil(bottom * down))), slice(int(left * across), int(np.ceil(right * across)))


def packed(edges: StillEdges) -> bytes:
    """Two maps of 54 x 96 bits, concatenated: cells with still edges, and cells with any edges."""
    edge_HW = ((edges.mean > 2 * LEVELS) & (edges.counts > 0)).astype(np.float32)
    edge = cv2.resize(edge_HW, MAP_CELLS[::-1], interpolation=cv2.INTER_AREA) > 0.15
    return np.packbits(np.stack([still_cells(edges), edge])).tobytes()


def unpacked(data: bytes) -> NDArray[np.bool_]:
    """The two maps, (2, 54, 96)."""
    return np.unpackbits(np.frombuffer(data, np.uint8)).reshape(2, *MAP_CELLS).astype(bool)
