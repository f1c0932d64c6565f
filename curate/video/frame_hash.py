"""A hash of a frame that is robust to scaling and compression: dHash, 64 bits, as 16 hexadecimal digits.

The picture's luma, upright, is averaged down to 9 columns and 8 rows. Each bit says whether a cell is darker than its right neighbour, row by
row from the top left, highest bit first (Neal Krawetz, 2013). The same frame encoded again differs in a few bits, a frame of another shot in
about half of them. The bits of a flat picture (black, white) are noise.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

COLUMNS, ROWS = 9, 8


def frame_hash(luma_HW: NDArray[np.uint8]) -> str:
    """The hash of one upright picture of any size, luma 0..255, shape (H, W)."""
    return as_text(frame_hashes(luma_HW[None]))[0]


def frame_hashes(luma_NHW: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The hashes of N upright pictures, shape (N, H, W), as (N,) 64-bit numbers."""
    n, h, w = luma_NHW.shape
    if h % ROWS:  # cells must not mix rows of two pictures
        small = np.stack([cv2.resize(p, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA) for p in luma_NHW])
    else:
        tall = np.ascontiguousarray(luma_NHW).reshape(n * h, w)
        small = cv2.resize(tall, (COLUMNS, n * ROWS), interpolation=cv2.INTER_AREA).reshape(n, ROWS, COLUMNS)
    bits = small[:, :, :-1] < small[:, :, 1:]
    return np.packbits(bits.reshape(n, 64), axis=1).view(">u8").astype(np.uint64)[:, 0]


def as_text(hashes: Iterable[np.uint64]) -> list[str]:
    """64-bit numbers as 16 hexadecimal digits each."""
    return [f"{int(h):016x}" for h in hashes]


def bits_apart(a: str, b: str) -> int:
    """Number of bits, 0 to 64, in which two hashes differ."""
    return (int(a, 16) ^ int(b, 16)).bit_count()
