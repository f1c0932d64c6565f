"""Which thumbnails a captioner uses: evenly spread over the clip, or one every so many seconds.

T thumbnails, their times in seconds.
"""

from collections.abc import Sequence

import numpy as np


def spread(n_thumbnails: int, n_frames: int | None) -> list[int]:
    """Indices of up to `n_frames` thumbnails, each the middle one of an equal share of the clip."""
    n_frames = min(n_frames or 0, n_thumbnails)
    return [int((i + 0.5) * n_thumbnails / n_frames) for i in range(n_frames)]


def every(times_s: Sequence[float], step_s: float) -> list[int]:
    """Indices of the thumbnails nearest to a grid of `step_s` seconds from the first one, each once. (CogVideoX: 2 s)"""
    times = np.asarray(times_s, dtype=np.float64)
    if not len(times):
        return []
    wanted = np.arange(times[0], times[-1] + 1e-6, step_s)
    return list(dict.fromkeys(int(np.abs(times - at).argmin()) for at in wanted))


def chosen(times_s: Sequence[float], n_frames: int | None, step_s: float | None) -> list[int]:
    """Indices of `n_frames` thumbnails, evenly spread, or of one every `step_s` seconds if that is set."""
    return spread(len(times_s), n_frames) if step_s is None else every(times_s, step_s)


def fewer(indices: Sequence[int], most: int) -> list[int]:
    """Up to `most` of the indices, evenly spread."""
    return [indices[i] for i in spread(len(indices), most)] if len(indices) > most else list(indices)
