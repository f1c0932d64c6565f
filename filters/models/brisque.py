"""BRISQUE: distance of one picture's statistics from those of undistorted photographs, about 0 (good) to 100,
slightly outside this range for the best and the worst.

Source: Mittal, Moorthy, Bovik, "No-reference image quality assessment in the spatial domain", IEEE TIP 21(12), 2012. Luma is normalised by a
local mean and deviation (Gaussian window 7x7, sigma 7/6). A generalised Gaussian is fitted to the result, and an asymmetric one to
the products of neighbours in four directions: 18 numbers at full size and 18 at half size. A support vector regression (RBF) maps them to a
score. Its weights are those of the pip package `brisque` 0.2.0 (Apache-2.0), read as data: the package's code and dependencies are
not used. The pickle with the feature ranges is read with an unpickler that accepts only lists, dictionaries and floats.

Fitted on pictures of 0.2 to 0.4 megapixels, the size of thumbnails; a large source scores better on its thumbnail than in full.
"""

import math
import pickle
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SHAPES = np.arange(0.2, 10.001, 0.001)
_GAMMA_1, _GAMMA_2, _GAMMA_3 = (np.array([math.gamma(k / shape) for shape in SHAPES]) for k in (1, 2, 3))
RATIOS = _GAMMA_2**2 / (_GAMMA_1 * _GAMMA_3)
"""(mean magnitude)^2 / mean square of a generalised Gaussian of each shape; increases with the shape."""
FLAT = 1e-6


class _NumbersOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        raise pickle.UnpicklingError(f"normalize.pickle of BRISQUE contains {module}.{name}; only numbers are read")


def _shape(ratio: float) -> tuple[float, int]:
    index = min(int(np.searchsorted(RATIOS, ratio)), len(SHAPES) - 1)
    return float(SHAPES[index]), index


def normalised(luma_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean subtracted, contrast normalised (MSCN): luma 0..255 minus its local mean, over its local deviation plus 1."""
    mean = cv2.GaussianBlur(luma_HW, (7, 7), 7 / 6)
    deviation = np.sqrt(np.abs(cv2.GaussianBlur(luma_HW**2, (7, 7), 7 / 6) - mean**2))
    return np.asarray((luma_HW - mean) / (deviation + 1), dtype=np.float64)


def asymmetric_fit(values: NDArray[np.float64]) -> list[float]:
    """Shape, mean, left and right variance of an asymmetric generalised Gaussian, by its moments."""
    left, right = (
        float(np.sqrt(np.mean(side**2))) if side.size else FLAT for side in (values[values < 0], values[values > 0])
    )
    skew = max(left, FLAT) / max(right, FLAT)
    ratio = float(np.abs(values).mean() ** 2 / max(float((values**2).mean()), FLAT**2))
    shape, index = _shape(ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2)
    mean = (right - left) * math.sqrt(_GAMMA_1[index] / _GAMMA_3[index]) * _GAMMA_2[index] / _GAMMA_1[index]
    return [shape, float(mean), left**2, right**2]


def features(luma_HW: NDArray[np.generic]) -> NDArray[np.float64] | None:
    """The 36 numbers of one picture (luma 0..255, at least 16 px a side), or None if it has one colour."""
    luma: NDArray[np.float64] = np.asarray(luma_HW, dtype=np.float64)
    numbers: list[float] = []
    for _ in range(2):
        norm = normalised(luma)
        square = float((norm**2).mean())
        if square < FLAT or min(luma.shape) < 8:
            return None
        numbers += [_shape(float(np.abs(norm).mean() ** 2 / square))[0], square]
        for one, other in (
            (norm[:, :-1], norm[:, 1:]),
            (norm[:-1], norm[1:]),
            (norm[:-1, :-1], norm[1:, 1:]),
            (norm[1:, :-1], norm[:-1, 1:]),
        ):
            numbers += asymmetric_fit(one * other)
        luma = cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    return np.array(numbers)


@dataclass
class Brisque:
    """The regression: support vectors (N, 36), their weights (N,), the kernel's gamma, the offset and the features' ranges."""

    vectors: NDArray[np.float64]
    weights: NDArray[np.float64]
    gamma: float
    rho: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def load(cls, folder: str) -> "Brisque":
        """Reads `svm.txt` (libsvm's text form) and `normalize.pickle`. Raises ValueError for another kind of model."""
        head, _, body = (Path(folder) / "svm.txt").read_text().partition("SV\n")
        settings = dict(line.split(maxsplit=1) for line in head.splitlines() if " " in line)
        if settings.get("svm_type") != "epsilon_svr" or settings.get("kernel_type") != "rbf":
            raise ValueError(f"{folder}/svm.txt is not a support vector regression with an RBF kernel")
        rows = [line.split() for line in body.splitlines() if line.strip()]
        vectors = np.zeros((len(rows), 36))
        for vector, row in zip(vectors, rows, strict=True):
            for pair in row[1:]:
                index, _, value = pair.partition(":")
                vector[int(index) - 1] = float(value)
        with (Path(folder) / "normalize.pickle").open("rb") as file:
            ranges = _NumbersOnly(file).load()
        low, high = (np.array(ranges[key], dtype=np.float64) for key in ("min_", "max_"))
        weights = np.array([float(row[0]) for row in rows])
        return cls(vectors, weights, float(settings["gamma"]), float(settings["rho"]), low, high)

    def score(self, luma_HW: NDArray[np.generic]) -> float | None:
        """The score of one picture, or None if it has one colour."""
        found = features(luma_HW)
        if found is None:
            return None
        scaled = 2 * (found - self.low) / (self.high - self.low) - 1
        kernel = np.exp(-self.gamma * ((self.vectors - scaled) ** 2).sum(axis=1))
        return float(kernel @ self.weights - self.rho)
