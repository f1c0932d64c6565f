"""Clips from arrays, for the tests of the filters."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from curate.clip import Clip


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Clip]:
    def make(frames: Sequence[NDArray[np.uint8]], clip_id: str = "c", fps: float = 2.0) -> Clip:
        jpegs = tuple(
            cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
            for frame in frames
        )
        height_px, width_px = frames[0].shape[:2]
        times_s = tuple(i / fps for i in range(len(frames)))
        return Clip(clip_id, "s", 0.0, len(frames) / fps, 24.0, 12 * len(frames), width_px, height_px, jpegs, times_s)

    return make


@pytest.fixture(scope="session")
def textured() -> NDArray[np.uint8]:
    """A cloud pattern with detail at every scale, (720, 1280, 3)."""
    noise = np.random.default_rng(7).normal(size=(720, 1280)).astype(np.float32)
    sum_ = np.zeros_like(noise)
    for sigma in (1, 3, 9, 20):
        sum_ += cv2.GaussianBlur(noise, (0, 0), sigma) * sigma
    grey = (255 * (sum_ - sum_.min()) / np.ptp(sum_)).astype(np.uint8)
    return np.dstack([grey, grey, grey])
