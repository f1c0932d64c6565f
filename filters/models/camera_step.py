"""Camera step: the camera's move between two frames, as a similarity (shift, zoom, roll) of the picture.

Functions for `filters/camera_motion.py` and `filters/static.py`. Unit of a move: pixels at a 240 px short side.

Corners, at most four in each cell of an 8 x 6 grid so that no textured region dominates, are
tracked by pyramidal Lucas-Kanade forward and backward, in frames with equalised light. RANSAC finds the similarity that most
of them agree with. If too few agree, as after a large move, SIFT features are matched instead, and the move is accepted
if it explains the picture as a whole. If that fails too (everything moves independently), it is the similarity nearest
to DIS flow, or no move if that explains nothing. The camera is still if 30 % of the corners are still, whatever moves in front of it.

All constants are ours, set on the even half of coco_mini (by name) with synthetic moves, with and without an object that
moves in front, and on `raw/intel__car-detection` (a passing car changes the exposure of an almost bare road).

H height, W width, in pixels; P points (x, y), N pixels; h, w a smaller copy.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from filters.models.flow import DIS, DIS_SIDE_PX, MAP_SIDE_PX, flow_map
from filters.models.picture import grey, short_side

TRACK_SIDE_PX = 240
MATCH_SIDE_PX = 120
FAINT = 8.0
"""Local contrast (0..255) that is amplified to about half of a strong contrast."""
CELLS = (8, 6)
PER_CELL = 4
NEAR_PX = 2.0
"""Maximum distance of a corner from its predicted position for it to agree with a move, at 240 px."""
STANDS_PX = 0.5
AGREE, FOUND = 0.3, 0.15
"""Minimum share of the tracked corners that must agree with a move, and of all corners."""
WIDE = 0.4
"""Minimum spread of the agreeing corners over the spread of all: a car or a subtitle is not the scene."""
STAND = 0.3
"""Minimum share of still corners for a still camera; half of it if no move is found either."""
LEAST_CORNERS = 12
MAX_LEFT = 0.8
"""Maximum share of the difference between two frames that may remain after a large move is removed."""
MAX_LEFT_OF_FLOW = 0.95
"""The same for the move nearest to the flow: in pure noise nearly all of the difference remains after any move."""
LEAST_SEEN = 0.2
"""Minimum share of the picture that both frames must show."""

Similarity = NDArray[np.float64]
"""(2, 3): maps a point (x, y, 1) of the first frame to the second, in pixels at 240 px."""
STANDS: Similarity = np.eye(2, 3)


def evened(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame in grey at a 240 px short side, with equalised light: robust to exposure changes, sensitive to faint texture."""
    light_HW = grey(frame_HWC, TRACK_SIDE_PX).astype(np.float32)
    height_px, width_px = light_HW.shape
    small_px = (width_px // 4, height_px // 4)
    light_hw = cv2.resize(light_HW, small_px, interpolation=cv2.INTER_AREA)
    square_hw = cv2.resize(light_HW * light_HW, small_px, interpolation=cv2.INTER_AREA)
    mean_hw = cv2.GaussianBlur(light_hw, (0, 0), 2.5)
    spread_hw = np.sqrt(np.maximum(cv2.GaussianBlur(square_hw, (0, 0), 2.5) - mean_hw * mean_hw, 0))
    gain_HW = cv2.resize(50 / (spread_hw + FAINT), (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    mean_HW = cv2.resize(mean_hw, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    evened_HW: NDArray[np.uint8] = np.clip(128 + gain_HW * (light_HW - mean_HW), 0, 255).astype(np.uint8)
    return evened_HW


def corners(grey_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Corners spread over the picture, (P, 2): the strongest four of each cell of the grid."""
    found = cv2.goodFeaturesToTrack(grey_HW, 600, 0.003, 5)
    if found is None:
        return np.zeros((0, 2), np.float32)
    points_P2: NDArray[np.float32] = found.reshape(-1, 2)
    height_px, width_px = grey_HW.shape
    cell = (points_P2 * np.array(CELLS) / (width_px, height_px)).astype(int) @ (1, CELLS[0])
    order = np.argsort(cell, kind="stable")
    nth = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    return np.asarray(points_P2[np.sort(order[nth < PER_CELL])])


def follow(
    before_HW: NDArray[np.uint8],
    after_HW: NDArray[np.uint8],
    points_P2: NDArray[np.float32],
    guess: Similarity = STANDS,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """New positions of points, (P, 2), and which were confirmed by backward tracking, (P,)."""
    how: dict[str, Any] = {"winSize": (15, 15), "maxLevel": 4, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    start_P2 = _moved(points_P2, guess)
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before_HW, after_HW, points_P2, start_P2.copy(), **how)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(after_HW, before_HW, there, there - (start_P2 - points_P2), **how)
    good = (seen[:, 0] > 0) & (seen_back[:, 0] > 0) & (np.linalg.norm(back - points_P2, axis=1) < 1)
    return there, good


def _moved(points_P2: NDArray[np.float32], move: Similarity) -> NDArray[np.float32]:
    return np.asarray(points_P2 @ move[:, :2].T + move[:, 2], dtype=np.float32)


def fit(
    from_P2: NDArray[np.float32],
    to_P2: NDArray[np.float32],
    good: NDArray[np.bool_],
) -> tuple[Similarity | None, NDArray[np.bool_]]:
    """The similarity that most of the good points agree with, and which points agree, (P,)."""
    agree = np.zeros(len(good), bool)
    if good.sum() < 4:
        return None, agree
    move, inlier = cv2.estimateAffinePartial2D(
        from_P2[good], to_P2[good], method=cv2.RANSAC, ransacReprojThreshold=NEAR_PX, maxIters=1000, confidence=0.999
    )
    if move is None or not np.isfinite(move).all() or not 0.2 < np.linalg.norm(move[:, 0]) < 5:
        return None, agree
    agree[good] = inlier[:, 0] > 0
    return move, agree


def _spread(points_P2: NDArray[np.float32]) -> float:
    """Spread of points over the picture: the product of their standard deviations, px^2."""
    return float(points_P2.std(axis=0).prod())


def camera_step(before_HW: NDArray[np.uint8], after_HW: NDArray[np.uint8]) -> Similarity:
    """The camera's move between two grey frames at a 240 px short side."""
    if np.array_equal(before_HW, after_HW):
        return STANDS
    points_P2 = corners(before_HW)
    if len(points_P2) >= LEAST_CORNERS:
        there_P2, good = follow(before_HW, after_HW, points_P2)
        stands = good & (np.linalg.norm(there_P2 - points_P2, axis=1) < STANDS_PX)
        if stands.sum() >= STAND * len(points_P2):
            return STANDS
        move, agree = fit(points_P2, there_P2, good)
        enough = max(LEAST_CORNERS, FOUND * len(points_P2), AGREE * good.sum(), 2 * np.count_nonzero(stands & ~agree))
        if move is not None and agree.sum() >= enough and _spread(points_P2[agree]) >= WIDE * _spread(points_P2):
            return move
        if stands.sum() >= STAND / 2 * len(points_P2):
            return STANDS
        if (move := _matched(before_HW, after_HW, points_P2)) is not None:
            return move
    move = _of_flow(before_HW, after_HW)
    return move if _left(before_HW, after_HW, move) < MAX_LEFT_OF_FLOW else STANDS


def _matched(
    before_HW: NDArray[np.uint8],
    after_HW: NDArray[np.uint8],
    points_P2: NDArray[np.float32],
) -> Similarity | None:
    """The move that matched SIFT features agree on, refined by tracking the corners, if it explains the picture as a whole."""
    sift = cv2.SIFT.create(nfeatures=400)
    halves = [short_side(g, MATCH_SIDE_PX) for g in (before_HW, after_HW)]
    (keys_a, words_a), (keys_b, words_b) = (sift.detectAndCompute(half, None) for half in halves)
    if words_a is None or words_b is None:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(words_a, words_b)
    scale = TRACK_SIDE_PX / MATCH_SIDE_PX
    from_P2 = scale * np.array([keys_a[m.queryIdx].pt for m in pairs], np.float32).reshape(-1, 2)
    to_P2 = scale * np.array([keys_b[m.trainIdx].pt for m in pairs], np.float32).reshape(-1, 2)
    move, agree = fit(from_P2, to_P2, np.ones(len(pairs), bool))
    if move is None or agree.sum() < LEAST_CORNERS:
        return None
    there_P2, good = follow(before_HW, after_HW, points_P2, move)
    better, agree = fit(points_P2, there_P2, good)
    if better is not None and agree.sum() >= LEAST_CORNERS:
        move = better
    return move if _left(before_HW, after_HW, move) < MAX_LEFT else None


def _left(before_HW: NDArray[np.uint8], after_HW: NDArray[np.uint8], move: Similarity) -> float:
    """Share of the difference between two frames that remains after a move; infinite if the frames overlap too little."""
    size_px = before_HW.shape[::-1]
    seen_HW = cv2.warpAffine(np.ones(before_HW.shape, np.uint8), move, size_px) > 0
    if seen_HW.mean() < LEAST_SEEN:
        return float("inf")
    moved_HW = cv2.warpAffine(before_HW, move, size_px)
    moves, stands = (float(cv2.absdiff(frame, after_HW)[seen_HW].mean()) for frame in (moved_HW, before_HW))
    return moves / max(stands, 1e-6)


def _of_flow(before_HW: NDArray[np.uint8], after_HW: NDArray[np.uint8]) -> Similarity:
    """The similarity nearest to the flow of the picture, by least absolute distance (reweighted least squares)."""
    before_hw, after_hw = short_side(before_HW, DIS_SIDE_PX), short_side(after_HW, DIS_SIDE_PX)
    flow = flow_map(before_hw, after_hw, DIS)
    h, w = flow.shape[:2]
    scale = np.array([before_HW.shape[1] / w, before_HW.shape[0] / h])
    y, x = np.mgrid[0:h, 0:w].reshape(2, -1) + 0.5
    from_N2 = np.stack([x, y], axis=1) * scale - 0.5
    to_N2 = from_N2 + flow.reshape(-1, 2) * scale
    ones, zeros = np.ones(len(from_N2)), np.zeros(len(from_N2))
    fx, fy = from_N2.T
    rows_2N4 = np.stack([np.stack([fx, -fy, ones, zeros], axis=1), np.stack([fy, fx, zeros, ones], axis=1)])
    weight_N = ones
    for _ in range(20):
        root_2N = np.tile(np.sqrt(weight_N), (2, 1))
        a, b, right, down = np.linalg.lstsq(
            (rows_2N4 * root_2N[..., None]).reshape(-1, 4), (to_N2.T * root_2N).reshape(-1), rcond=None
        )[0]
        move = np.array([[a, -b, right], [b, a, down]])
        weight_N = 1 / np.maximum(np.linalg.norm(from_N2 @ move[:, :2].T + move[:, 2] - to_N2, axis=1), 0.1)
    return move


def displacement(move: Similarity, height_px: int, width_px: int) -> tuple[NDArray[np.float64], float]:
    """A similarity as (right, down, zoom, roll) and the mean displacement over the picture, px at a 16 px short side."""
    unit = MAP_SIDE_PX / min(height_px, width_px)
    y, x = (np.mgrid[0:16, 0:16].reshape(2, -1) + 0.5) * [[height_px / 16], [width_px / 16]] - 0.5
    centre = np.array([(width_px - 1) / 2, (height_px - 1) / 2])
    radius = float(np.hypot(x - centre[0], y - centre[1]).mean())
    shift = move[:, :2] @ centre + move[:, 2] - centre
    a, b = move[0, 0], move[1, 0]  # zoom * (cos, sin) of the roll
    parts = np.array([*shift, radius * np.log(np.hypot(a, b)), radius * np.arctan2(b, a)])
    field = np.stack([x, y], axis=1) @ (move[:, :2] - np.eye(2)).T + move[:, 2]
    return parts * unit, float(np.linalg.norm(field, axis=1).mean() * unit)
