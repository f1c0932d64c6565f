"""CameraMotion: how the camera moves, and how much moves in front of it.

`camera` is one word: static, pan_left, pan_right, tilt_up, tilt_down, zoom_in, zoom_out, roll, shake, mixed. The words describe
the camera: in pan_left the camera turns (or travels) left and the picture moves right, in tilt_up it turns up and the
picture moves down, in zoom_in (or a dolly forward) the picture grows. Roll is in either direction.

Unit of the three numbers: that of `motion`, pixels per frame step at a 16 px short side, [0, inf). 1.6 is a tenth of the
short side in half a second (at 2 fps).

- `camera_speed`: mean displacement of the picture by the camera, over the picture and over time.
- `shake`: half the mean change of the camera's move from one step to the next: 0 for a steady pan, the step itself for a
  camera that jumps back and forth. 0 for a clip of two thumbnails, which has no change to measure.
- `subject_motion`: mean flow magnitude after the camera's move is removed, where both frames show the scene. It includes
  parallax (a camera that travels through a scene with depth).

Method: `filters/models/camera_step.py` estimates the move between two frames. The word is that of the mean move. If the moves cancel
(mean below 0.6 of the mean length) it is shake or, if they change slowly, mixed. If no component of the mean move (pan,
tilt, zoom, roll) has 0.9 of its length, it is mixed. Below 0.1 a camera is static (1.25 % of the short side in a second).

The bounds are ours. They were set on the even half of coco_mini (by name) with synthetic moves;
`benchmarks/filters_motion.py` reports results on the odd half.

T frames, H height, W width, in pixels; S = T - 1 steps; a move is (right, down, zoom, roll) of the picture, each
as a displacement in the unit above: zoom and roll by their mean displacement of a pixel.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.camera_step import STANDS, TRACK_SIDE_PX, Similarity, camera_step, displacement, evened
from filters.models.flow import DIS, DIS_SIDE_PX, flow_map
from filters.models.picture import edges, grey, still_pattern, without_bars
from filters.models.sampling import sampled

STATIC = 0.1
"""Camera speed below which the camera is static."""
STEADY = 0.6
"""Minimum |mean move| over mean |move| of a directed move; below it the moves cancel."""
ONE_WAY = 0.9
"""Minimum share of the mean move that one of its four components needs to name it."""
JERKY = 0.5
"""Minimum `shake` over mean step length of moves that cancel because they go back and forth."""

WORDS = (("pan_left", "pan_right"), ("tilt_up", "tilt_down"), ("zoom_in", "zoom_out"), ("roll", "roll"))
"""Per component of a move: the word if it is positive, and if it is negative. The picture moves right if the camera pans left."""


def describe(parts_S4: NDArray[np.float64], speeds_S: NDArray[np.float64]) -> tuple[str, float, float]:
    """The word for a camera, its speed and its shake, from the moves of a clip's steps.

    Args:
        parts_S4: (right, down, zoom, roll) of each step, px at a 16 px short side, shape (S, 4), S >= 1.
        speeds_S: Mean displacement of each step in the same unit.
    """
    speed = float(speeds_S.mean())
    changes = np.linalg.norm(np.diff(parts_S4, axis=0), axis=1)
    shake = float(changes.mean() / 2) if len(changes) else 0.0
    if speed < STATIC:
        return "static", speed, shake
    mean = parts_S4.mean(axis=0)
    length = float(np.linalg.norm(mean))
    path = float(np.linalg.norm(parts_S4, axis=1).mean())
    if length < STEADY * path:
        return ("shake" if shake >= JERKY * path else "mixed"), speed, shake
    main = int(np.abs(mean).argmax())
    if abs(mean[main]) < ONE_WAY * length:
        return "mixed", speed, shake
    return WORDS[main][0 if mean[main] > 0 else 1], speed, shake


def subject_step(before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8], move: Similarity) -> float:
    """Mean flow magnitude between two frames after the camera's move, px at a 16 px short side, where both show the scene.

    `move` is in pixels at a 240 px short side. While the camera moves, still patterns such as overlays are excluded.
    """
    before_HW, after_HW = (grey(frame, DIS_SIDE_PX) for frame in (before_HWC, after_HWC))
    seen_HW = np.ones(before_HW.shape, np.uint8)
    if move is not STANDS:
        scale = DIS_SIDE_PX / TRACK_SIDE_PX
        centred = move[:, 2] + (move[:, :2] - np.eye(2)) @ (0.5 / scale - 0.5, 0.5 / scale - 0.5)
        small = np.column_stack([move[:, :2], scale * centred])
        size_px = before_HW.shape[::-1]
        seen_HW = cv2.warpAffine(seen_HW, small, size_px)
        before_HW = np.where(seen_HW > 0, cv2.warpAffine(before_HW, small, size_px), after_HW)
        travels = displacement(small, *before_HW.shape)[1] > STATIC
        mask = still_pattern(edges(before_HWC), edges(after_HWC)) if travels else None
        if mask is not None:
            mask_HW = cv2.resize(cv2.dilate(mask, np.ones((9, 9), np.uint8)), size_px, interpolation=cv2.INTER_NEAREST)
            seen_HW = seen_HW * (1 - mask_HW)
            before_HW = np.where(mask_HW > 0, after_HW, before_HW)
    flow = flow_map(before_HW, after_HW, DIS)
    length_hw = np.hypot(flow[..., 0], flow[..., 1])
    weight_hw = cv2.resize(seen_HW.astype(np.float64), length_hw.shape[::-1], interpolation=cv2.INTER_AREA)
    return float((weight_hw * length_hw).sum() / max(float(weight_hw.sum()), 1e-6))


def camera_motion(frames_THWC: NDArray[np.uint8]) -> dict[str, Any]:
    """All four columns, from frames RGB 0..255, one per step, shape (T, H, W, 3), T >= 2. Raises ValueError for fewer."""
    if len(frames_THWC) < 2:
        raise ValueError(f"camera motion needs at least two frames, got {len(frames_THWC)}")
    frames_THWC = without_bars(frames_THWC)
    greys = [evened(frame) for frame in frames_THWC]
    moves = [camera_step(before, after) for before, after in pairwise(greys)]
    parts, speeds = zip(*(displacement(move, *greys[0].shape) for move in moves), strict=True)
    word, speed, shake = describe(np.array(parts), np.array(speeds))
    subjects = [subject_step(a, b, move) for (a, b), move in zip(pairwise(frames_THWC), moves, strict=True)]
    return {"camera": word, "camera_speed": speed, "shake": shake, "subject_motion": float(np.mean(subjects))}


@dataclass
class CameraMotion:
    """Word for the camera's move; its speed, its shake, and subject motion in px per step at a 16 px short side [0, inf).

    A clip with fewer than two thumbnails, or with thumbnails too far apart for `fps`, is an error row with the reason.
    A clip without any texture is static at 0.

    Attributes:
        fps: Frames compared per second, as in Motion; at most `scan.thumb_fps`.
    """

    fps: float = 2.0

    columns: ClassVar[dict[str, pa.DataType]] = {
        "camera": pa.string(),
        "camera_speed": pa.float32(),
        "shake": pa.float32(),
        "subject_motion": pa.float32(),
    }
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 < self.fps <= 60:
            raise ValueError(f"fps of CameraMotion is {self.fps}; it must be above 0 and at most 60")

    def setup(self) -> None:
        """Keep OpenCV to one thread: the engine runs workers in parallel."""
        cv2.setNumThreads(1)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the four columns."""
        return [{"clip_id": clip.clip_id, **camera_motion(sampled(clip, self.fps, "camera motion"))} for clip in clips]
