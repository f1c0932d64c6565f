"""Which frames of a clip make a sample, and how they are brought to its size.

Shapes: T frames, H and W in pixels, C = 3 channels, red, green, blue; bytes 0..255.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train_hooks.shard_index import ShardClip
from train_hooks.size import Size


def frame_indices(
    fps: float, n_frames: int, frames: int, at_fps: float, draw: float, begin: int | None = None
) -> list[int]:
    """Indices of `frames` frames, evenly in time at `at_fps`, in a clip of `n_frames` frames at `fps`.

    `draw` in [0, 1) places the first; or it is `begin`, or the last frame from which there are enough.

    The clip must be long enough (see `too_short`).
    """
    offsets = [round(i * fps / at_fps) for i in range(frames)]
    first = int(draw * (n_frames - offsets[-1])) if begin is None else min(begin, n_frames - 1 - offsets[-1])
    return [first + offset for offset in offsets]


def true_fps(indices: Sequence[int], fps: float, at_fps: float) -> float:
    """Frames per second of the frames taken, which is not quite what was asked for; that itself for a single frame."""
    return fps * (len(indices) - 1) / max(1, indices[-1] - indices[0]) if len(indices) > 1 else at_fps


def too_short(clip: ShardClip, frames: int, at_fps: float) -> str | None:
    """Why a clip cannot give `frames` different frames at `at_fps`, or None when it can."""
    if clip.fps < 0.99 * at_fps and frames > 1:
        return f"it has {clip.fps:g} frames per second and the recipe asks for {at_fps:g}"
    needed = round((frames - 1) * clip.fps / at_fps) + 1
    if clip.n_frames < needed:
        return f"too short: {clip.n_frames} frames at {clip.fps:g} fps, and {frames} at {at_fps:g} fps need {needed}"
    return None


def bucket_of(clip: ShardClip, sizes: Sequence[Size], at_fps: float) -> int | None:
    """The number of the bucket that a clip trains in, or None when it is too short for all.

    Of those it is long enough for: the nearest aspect ratio, then the most frames, then the largest that it fills without being enlarged, or
    else the smallest. (Ours.)
    """
    fitting = [i for i, size in enumerate(sizes) if too_short(clip, size.frames, at_fps) is None]
    if not fitting or not clip.width_px or not clip.height_px:
        return fitting[0] if fitting else None
    ratio = math.log(clip.width_px / clip.height_px)

    def rank(i: int) -> tuple[float, int, bool, int]:
        size = sizes[i]
        area = size.width_px * size.height_px
        enlarged = size.width_px > clip.width_px or size.height_px > clip.height_px
        distance = round(abs(math.log(size.width_px / size.height_px) - ratio), 6)
        return distance, -size.frames, enlarged, area if enlarged else -area

    return min(fitting, key=rank)


def fit(frame_HWC: NDArray[np.uint8], width_px: int, height_px: int) -> Tensor:
    """As `fit_all`, one frame: uint8 (C, height_px, width_px)."""
    return fit_all(frame_HWC[None], width_px, height_px)[0]


def fit_all(frames_THWC: NDArray[np.uint8], width_px: int, height_px: int) -> Tensor:
    """Scales frames until they just cover the size (antialiased bicubic) and crops the centre.

    Uint8 (T, C, height_px, width_px).
    """
    height, width = frames_THWC.shape[1:3]
    scale = max(width_px / width, height_px / height)
    size = max(height_px, round(height * scale)), max(width_px, round(width * scale))
    frames_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
    scaled = torch.nn.functional.interpolate(frames_TCHW, size=size, mode="bicubic", antialias=True)
    top, left = (size[0] - height_px) // 2, (size[1] - width_px) // 2
    cropped = scaled[:, :, top : top + height_px, left : left + width_px].numpy()
    planes_TCHW = np.empty((len(frames_THWC), 3, height_px, width_px), np.uint8)
    for channel in range(3):  # torch's own copy from this layout takes five times as long
        planes_TCHW[:, channel] = cropped[:, channel]
    return torch.from_numpy(planes_TCHW)
