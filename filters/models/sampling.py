"""Which thumbnails a filter of motion compares: those nearest to a grid of `fps`."""

import numpy as np
from numpy.typing import NDArray

from curate.clip import Clip


def nearest_to_grid(times_s: NDArray[np.float64], fps: float) -> NDArray[np.intp]:
    """Indices of the frames nearest to a grid of `fps` from the first frame on, ascending, each once."""
    grid_s = times_s[0] + np.arange(int((times_s[-1] - times_s[0]) * fps + 1e-6) + 1) / fps
    return np.unique(np.abs(times_s[None, :] - grid_s[:, None]).argmin(axis=1))


def sampled(clip: Clip, fps: float, measure: str) -> NDArray[np.uint8]:
    """The clip's thumbnails at `fps`, at least two.

    Raises:
        ValueError: fewer than two thumbnails, or thumbnails too far apart for `fps`; the message names the clip and `measure`.
    """
    times_s = clip.times_s
    if len(times_s) < 2:
        raise ValueError(f"clip {clip.clip_id} has {len(times_s)} thumbnail(s); {measure} needs at least two")
    gap_s = float(np.median(np.diff(times_s)))
    if gap_s * fps > 1.5:
        raise ValueError(
            f"clip {clip.clip_id} has a thumbnail every {gap_s:.2f} s, too few for {measure} at {fps:g} fps; "
            f"raise scan.thumb_fps or lower the stage's fps"
        )
    indices = nearest_to_grid(times_s, fps)
    if len(indices) < 2:
        raise ValueError(f"clip {clip.clip_id} is shorter than one step of {measure} at {fps:g} fps")
    return clip.frames_THWC[indices]
