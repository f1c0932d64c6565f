"""Static: share of steps without motion other than that of a still picture, and whether the clip is a slideshow.

- `duplicate_frames`: share of the sampled steps whose frame repeats, exactly or up to compression noise, [0, 1].
- `still_frames`: share of the steps that one still picture explains, [0, 1]: it repeats, or it is shifted, zoomed or rolled
  as a whole (a "Ken Burns" move). At least `duplicate_frames`.
- `is_slideshow`: every step is explained in this way except switches: at most three steps (a cut, or a dissolve of a second at
  2 fps) between two stills that differ in most of the picture. One still held for the whole clip is a slideshow too.

Source: CogVideoX (arXiv 2408.06072) names such clips ("lack of motion connectivity") and filters them with a learned
classifier; the definitions here are ours.

A frame repeats if its copy at a 36 px short side differs by at most 0.3 of 255 on average and 10 anywhere, so that one
small moving object is enough to prevent it. A picture moves as a whole if the difference after the move is at most
what a misplacement by a fifth of a pixel at a 90 px short side causes, and at most 12 of 255 on all but 1 % of it. Set on
photographs of the even half of coco_mini held, switched and moved as H.264 at crf 18 to 35 (0.14 and 8.2, 0.17 and 9.7 at
most), against the moving shots of `raw/` (never below 12.5 on that 1 %).

Limits at 2 fps: a static shot of an empty scene whose noise the codec removed repeats like a still, and
a perfectly steady pan over a scene without depth moves like one. A photograph with animated parts is not a still.

T frames, H height, W width, in pixels; S = T - 1 steps; h, w a smaller copy.
"""

from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.camera_step import LEAST_CORNERS, STANDS, TRACK_SIDE_PX, corners, displacement, evened, fit, follow
from filters.models.picture import without_bars
from filters.models.sampling import sampled

REPEAT_SIDE_PX = 36
REPEAT_MEAN, REPEAT_MOST = 0.3, 10.0
PLANE_SIDE_PX = 90
MISPLACED_PX, PLANE_MOST = 0.2, 12.0
PLANE_AGREE = 0.6
"""Minimum share of the corners that must agree with one move."""
PLANE_LEAST = 0.03
"""Minimum move, px at a 16 px short side: a frame that moves less and does not repeat shows a real, still scene."""
LONGEST_SWITCH = 3
SWITCHED, SWITCHED_SHARE = 12.0, 0.5
"""Two stills are different if at least half of the picture differs by more than 12 of 255."""


def _small(frame_HWC: NDArray[np.uint8], side_px: int) -> NDArray[np.float32]:
    """The frame with a given short side, not rounded to whole grey levels."""
    scale = side_px / min(frame_HWC.shape[:2])
    size_px = tuple(max(side_px, round(length_px * scale)) for length_px in frame_HWC.shape[1::-1])
    how = cv2.INTER_AREA if scale <= 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame_HWC.astype(np.float32), size_px, interpolation=how))


def difference(before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Absolute difference of two frames, (h, w) at a 36 px short side: the maximum of the three colours, 0..255."""
    before_hwC, after_hwC = (_small(frame, REPEAT_SIDE_PX) for frame in (before_HWC, after_HWC))
    return np.asarray(np.abs(before_hwC - after_hwC).max(axis=2))


def repeats(before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> bool:
    """Whether the second frame repeats the first."""
    apart_hw = difference(before_HWC, after_HWC)
    return bool(apart_hw.mean() <= REPEAT_MEAN and apart_hw.max() <= REPEAT_MOST)


def moved_as_one(before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> bool:
    """Whether the second frame is the first one shifted, zoomed or rolled as a whole, and nothing else."""
    before_HW, after_HW = evened(before_HWC), evened(after_HWC)
    points_P2 = corners(before_HW)
    if len(points_P2) < LEAST_CORNERS:
        return False
    there_P2, good = follow(before_HW, after_HW, points_P2)
    move, agree = fit(points_P2, there_P2, good)
    if move is None or agree.sum() < PLANE_AGREE * len(points_P2):
        return False
    if displacement(move, *before_HW.shape)[1] < PLANE_LEAST:
        return False
    height_px, width_px = before_HWC.shape[:2]
    scale = min(height_px, width_px) / TRACK_SIDE_PX
    # Coordinates are pixel centres: x + 0.5 scales, x does not.
    shift = scale * move[:, 2] + (scale - 1) / 2 * (STANDS[:, :2] - move[:, :2]).sum(axis=1)
    full = np.column_stack([move[:, :2], shift])
    moved_HWC = cv2.warpAffine(before_HWC, full, (width_px, height_px), flags=cv2.INTER_CUBIC)
    seen_HW = cv2.warpAffine(np.ones((height_px, width_px), np.uint8), full, (width_px, height_px))
    seen_HW = cv2.erode(seen_HW, np.ones((5, 5), np.uint8))
    moved_hwC, after_hwC = _small(moved_HWC, PLANE_SIDE_PX), _small(after_HWC, PLANE_SIDE_PX)
    seen_hw = cv2.resize(seen_HW, moved_hwC.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    seen_hw = cv2.erode(seen_hw.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if not seen_hw.any():
        return False
    apart_hw = np.abs(moved_hwC - after_hwC).mean(axis=2)
    light_hw = after_hwC.mean(axis=2)
    slope_hw = np.hypot(cv2.Sobel(light_hw, cv2.CV_32F, 1, 0), cv2.Sobel(light_hw, cv2.CV_32F, 0, 1)) / 8
    misplaced_px = float(apart_hw[seen_hw].sum() / max(float(slope_hw[seen_hw].sum()), 1e-6))
    return misplaced_px <= MISPLACED_PX and float(np.percentile(apart_hw[seen_hw], 99)) <= PLANE_MOST


def slideshow(frames_THWC: NDArray[np.uint8], still_S: NDArray[np.bool_]) -> bool:
    """Whether the clip consists of stills and switches between them only, from whether each step is still."""
    if not still_S[0] or not still_S[-1]:
        return False
    start = 0
    for still, run in groupby(still_S.tolist()):
        stop = start + len(list(run))
        if not still:
            apart_hw = difference(frames_THWC[start], frames_THWC[stop])
            if stop - start > LONGEST_SWITCH or (apart_hw > SWITCHED).mean() < SWITCHED_SHARE:
                return False
        start = stop
    return True


def stillness(frames_THWC: NDArray[np.uint8]) -> dict[str, Any]:
    """All three columns, from frames RGB 0..255, one per step, shape (T, H, W, 3), T >= 2. Raises ValueError for fewer."""
    if len(frames_THWC) < 2:
        raise ValueError(f"stillness needs at least two frames, got {len(frames_THWC)}")
    frames_THWC = without_bars(frames_THWC)
    repeat_S = np.array([repeats(before, after) for before, after in pairwise(frames_THWC)])
    moved = (
        repeat or moved_as_one(before, after)
        for repeat, (before, after) in zip(repeat_S, pairwise(frames_THWC), strict=True)
    )
    still_S = np.fromiter(moved, dtype=bool)
    return {
        "duplicate_frames": float(repeat_S.mean()),
        "still_frames": float(still_S.mean()),
        "is_slideshow": slideshow(frames_THWC, still_S),
    }


@dataclass
class Static:
    """Share of steps whose frame repeats [0, 1], share that one still picture explains [0, 1], and whether the clip is a slideshow.

    All repeated frames count, black ones too.
    A clip with fewer than two thumbnails, or with thumbnails too far apart for `fps`, is an error row with the reason.

    Attributes:
        fps: Frames compared per second; at most `scan.thumb_fps`.
    """

    fps: float = 2.0

    columns: ClassVar[dict[str, pa.DataType]] = {
        "duplicate_frames": pa.float32(),
        "still_frames": pa.float32(),
        "is_slideshow": pa.bool_(),
    }
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 < self.fps <= 60:
            raise ValueError(f"fps of Static is {self.fps}; it must be above 0 and at most 60")

    def setup(self) -> None:
        """Keep OpenCV to one thread: the engine runs workers in parallel."""
        cv2.setNumThreads(1)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the three columns."""
        return [{"clip_id": clip.clip_id, **stillness(sampled(clip, self.fps, "stillness"))} for clip in clips]
