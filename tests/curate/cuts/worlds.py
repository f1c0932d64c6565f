"""Synthetic shots: textured pictures that drift, flash, shake and change into each other at known frames.

A shot is (N, 40, 72) luma as the cut detectors see it; chroma follows from a colour of the shot.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.cuts.signals import Stretch

F = NDArray[np.float32]


def shot(seed: int, n: int, drift: float = 0.3, level: float = 110, contrast: float = 45) -> F:
    """(n, 60, 72): luma and both chroma planes, stacked as in a yuv420p picture; a smooth texture that moves `drift` pixels a frame."""
    rng = np.random.default_rng(seed)
    wide = cv2.GaussianBlur(rng.normal(size=(40, 400)).astype(np.float32), (0, 0), 4)
    wide = (wide - wide.mean()) / wide.std() * contrast + level
    u, v = rng.uniform(90, 166, 2)
    frames = np.empty((n, 60, 72), np.float32)
    for i in range(n):
        shift = np.float32([[1, 0, -40 - i * drift], [0, 1, 0]])
        frames[i, :40] = cv2.warpAffine(wide, shift, (72, 40), flags=cv2.INTER_LINEAR)
        frames[i, 40:50], frames[i, 50:] = u, v
    return np.clip(frames, 16, 235)


def ramp(n: int) -> F:
    """Shares of the new picture in a transition of n frames, as FFmpeg's xfade: 0, 1/n, 2/n ..."""
    return (np.arange(n, dtype=np.float32) / n)[:, None, None]


def dissolve(a: F, b: F) -> F:
    return (1 - ramp(len(a))) * a + ramp(len(a)) * b


def through(level: float) -> Callable[[F, F], F]:
    """A fade with a blank middle: linear out, linear in."""

    def fade(a: F, b: F) -> F:
        blank = np.full_like(a, 128.0)
        blank[:, :40] = level
        s = ramp(len(a))
        return np.where(s < 0.5, (1 - 2 * s) * a + 2 * s * blank, (2 - 2 * s) * blank + (2 * s - 1) * b)

    return fade


def wipe(direction: str) -> Callable[[F, F], F]:
    """The new picture is uncovered along a straight front."""

    def made(a: F, b: F) -> F:
        y, x = np.mgrid[:40, :72] / np.array([39, 71])[:, None, None]
        along = {"left": 1 - x, "right": x, "up": 1 - y, "down": y, "diagonal": (x + y) / 2}[direction]
        new = np.concatenate([along, along[::4, ::1][:10], along[::4, ::1][:10]])[None] < ramp(len(a))
        return np.where(new, b, a)

    return made


def join(
    shots: Sequence[F], how: Sequence[tuple[Callable[[F, F], F], int] | None]
) -> tuple[Stretch, list[tuple[int, int]]]:
    """Joins shots; `how`: for each join a transition and its number of frames, which overlap both shots; None is a hard cut.

    Returns the stretch and the frames of each transition, [start, end).
    """
    frames, where = shots[0], []
    for following, join_by in zip(shots[1:], how, strict=True):
        n = 0 if join_by is None else join_by[1]
        where.append((len(frames) - n, len(frames)))
        if join_by is None:
            frames = np.concatenate([frames, following])
        else:
            middle = join_by[0](frames[len(frames) - n :], following[:n])
            frames = np.concatenate([frames[: len(frames) - n], middle, following[n:]])
    return stretch(frames), where


def stretch(frames: F, noise: float = 1.0) -> Stretch:
    """Rounds to 8 bits and adds noise like a codec's."""
    grain = np.random.default_rng(7).normal(scale=noise, size=frames.shape)
    rounded = np.clip(frames + grain, 0, 255).round().astype(np.uint8)
    n = len(rounded)
    return Stretch(rounded[:, :40], rounded[:, 40:50].reshape(n, 20, 36), rounded[:, 50:].reshape(n, 20, 36))
