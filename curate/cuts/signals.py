"""The input of the cut detectors: each frame of a window as a small picture, directly from the decoder's planes.

Shapes: N frames, H = 40 rows, W = 72 columns. A frame becomes luma (40, 72) and two chroma planes (20, 36), stretched to that size
for any aspect ratio, without a conversion to RGB. Most detectors compare `cells`, the same picture averaged over 4 x 5 pixels: 18 x 8 luma and
twice 9 x 4 chroma values, 216 in all. Averaging removes small motion, and a mixture of two pictures stays a mixture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.video.open import Frame

HEIGHT, WIDTH = 40, 72
N_LUMA, N_CELLS = 8 * 18, 8 * 18 + 2 * 4 * 9
U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
_BLOCK = 64


class Small(NamedTuple):
    """One small frame: y (40, 72), u and v (20, 36), uint8, not turned upright."""

    y: U8
    u: U8
    v: U8


@dataclass
class Stretch:
    """The small pictures of consecutive frames: y (N, 40, 72), u and v (N, 20, 36)."""

    y: U8
    u: U8
    v: U8

    def __len__(self) -> int:
        return len(self.y)

    def cells(self) -> F32:
        """(N, 216): luma, then chroma, averaged over 4 x 5 pixels."""
        n = len(self)
        parts = [pool(self.y, 18, 8), pool(self.u, 9, 4), pool(self.v, 9, 4)]
        return np.concatenate([part.reshape(n, -1) for part in parts], axis=1).astype(np.float32)


class Recorder:
    """Collects small pictures; `drop` removes the oldest, which limits the memory."""

    def __init__(self) -> None:
        self._y, self._u, self._v = (np.empty((0, h, w), np.uint8) for h, w in ((40, 72), (20, 36), (20, 36)))
        self.first = 0
        """Index of the oldest stored frame."""
        self.n = 0
        """Number of stored frames."""

    def push(self, small: Small) -> None:
        """Adds the next frame."""
        if self.n == len(self._y):
            size = max(1024, 2 * self.n)
            self._y, self._u, self._v = (_grown(plane, size) for plane in (self._y, self._u, self._v))
        self._y[self.n], self._u[self.n], self._v[self.n] = small
        self.n += 1

    def drop(self, n: int) -> None:
        """Removes the oldest `n` frames."""
        for plane in (self._y, self._u, self._v):
            plane[: self.n - n] = plane[n : self.n].copy()
        self.first += n
        self.n -= n

    def stretch(self) -> Stretch:
        """The stored frames, as views."""
        return Stretch(self._y[: self.n], self._u[: self.n], self._v[: self.n])


def _grown(plane: U8, size: int) -> U8:
    grown = np.empty((size, *plane.shape[1:]), np.uint8)
    grown[: len(plane)] = plane
    return grown


def pool(frames_NHW: U8, width: int, height: int) -> U8:
    """Averages (N, H, W) pictures down to (N, height, width); both must divide the sides. One OpenCV call for all pictures."""
    n, h, w = frames_NHW.shape
    tall = cv2.resize(
        np.ascontiguousarray(frames_NHW).reshape(n * h, w), (width, n * height), interpolation=cv2.INTER_AREA
    )
    return np.asarray(tall, np.uint8).reshape(n, height, width)


def steps(frames_NHW: U8) -> F32:
    """(N,): mean absolute difference of each picture to the one before it; 0 for the first."""
    n = len(frames_NHW)
    flat = np.ascontiguousarray(frames_NHW).reshape(n, -1)
    found = np.zeros(n, np.float32)
    if n > 1:
        found[1:] = cv2.reduce(cv2.absdiff(flat[1:], flat[:-1]), 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0]
    return found


def band(cells_NC: F32, lags: int) -> F32:
    """(N, lags + 1): mean squared difference of frame n and frame n + lag; NaN past the end.

    From one banded Gram matrix, |a - b|^2 = |a|^2 + |b|^2 - 2 ab, in blocks, at some microseconds per frame.
    """
    n, c = cells_NC.shape
    centred = cells_NC - 128.0  # smaller numbers lose less precision in float32
    padded = np.concatenate([centred, np.full((lags, c), np.nan, np.float32)])
    square = np.einsum("nc,nc->n", padded, padded)
    found = np.empty((n, lags + 1), np.float32)
    for start in range(0, n, _BLOCK):
        rows = centred[start : start + _BLOCK]
        gram = rows @ padded[start : start + len(rows) + lags].T
        down, right = gram.strides
        diagonals = np.lib.stride_tricks.as_strided(gram, (len(rows), lags + 1), (down + right, right))
        later = np.lib.stride_tricks.sliding_window_view(square[start : start + len(rows) + lags], lags + 1)
        found[start : start + len(rows)] = square[start : start + len(rows), None] + later - 2 * diagonals
    return np.asarray(np.maximum(found, 0.0) / c, np.float32)


def pictures_of(stretch: Stretch, order: Literal["bgr", "rgb"]) -> Iterator[U8]:
    """The small pictures in colour, (40, 72, 3) each."""
    code = cv2.COLOR_YUV2BGR_I420 if order == "bgr" else cv2.COLOR_YUV2RGB_I420
    for y, u, v in zip(stretch.y, stretch.u, stretch.v, strict=True):
        planes = np.concatenate([y.ravel(), u.ravel(), v.ravel()]).reshape(HEIGHT * 3 // 2, WIDTH)
        yield np.asarray(cv2.cvtColor(planes, code), np.uint8)


def small_of(frame: Frame) -> Small:
    """Returns a frame as a small picture. A larger frame is first scaled to twice the size, because sampling directly would skip most pixels."""
    if min(frame.raw.width, frame.raw.height) <= 480:
        return Small(*frame.planes(WIDTH, HEIGHT))
    y, u, v = frame.planes(2 * WIDTH, 2 * HEIGHT)
    halve = cv2.INTER_AREA
    return Small(
        cv2.resize(y, (72, 40), interpolation=halve),
        cv2.resize(u, (36, 20), interpolation=halve),
        cv2.resize(v, (36, 20), interpolation=halve),
    )
