"""Quality: seven measurements of the picture, by published formulas where they exist.

| column | unit and range | grows with | formula |
|---|---|---|---|
| `sharpness` | squared grey levels, [0, inf) | detail (and noise) | variance of the Laplacian: Pech-Pacheco et al., ICPR 2000 |
| `exposure` | share of full white, [0, 1] | light | mean luma (BT.601); one column for both sides: near 0 too dark, near 1 too bright |
| `contrast` | share of full white, [0, 0.5] | spread of luma | RMS contrast: Peli, JOSA A 7(10), 1990 |
| `blockiness` | ratio, (-1, inf), 0 = none | JPEG and MPEG blocks | the two terms B and A of Wang, Sheikh, Bovik, ICIP 2002: B / A - 1 |
| `noise` | grey levels, [0, inf) | noise (and fine texture) | sigma of Immerkaer, CVIU 64(2), 1996 |
| `flicker` | share of full white, [0, 1] | brightness going up and down | mean absolute second difference of mean luma over time, halved |
| `brisque` | about -10 to 110 | distortion | BRISQUE: Mittal, Moorthy, Bovik, IEEE TIP 21(12), 2012 (`filters/models/brisque.py`) |

Ours: the ratio B / A (Wang's full score also has a rate of zero crossings and five constants fitted to one set of pictures, which the ratio
does not need), and flicker (a fade is linear and does not count; at 2 thumbnails a second only slow flicker is measured). Wang's grid of 8 px is
the source's: on a thumbnail it is 8 px times the scale; below 4 px it is not visible and the column is null. The
thumbnail's own JPEG blocks (quality 90) are the minimum of the column.

Black bars are removed first: rows and columns that are black in every thumbnail, unless nothing would remain
(`filters.models.picture.lit_area`).
Every value is the median of up to five thumbnails spread over the clip; `exposure` and `flicker` use all, `brisque` uses the middle one.

T frames, H height, W width, in pixels; luma is 0..255.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.brisque import Brisque
from filters.models.picture import lit_area

GRID_PX = 8
FRAMES = 5

Luma = NDArray[np.float32]


def sharpness(luma_HW: Luma) -> float:
    """Variance of the Laplacian (four neighbours)."""
    return float(cv2.Laplacian(luma_HW, cv2.CV_32F).var(dtype=np.float64))


def contrast(luma_HW: Luma) -> float:
    """Standard deviation of luma over 255."""
    return float(luma_HW.std(dtype=np.float64) / 255)


def noise(luma_HW: Luma) -> float:
    """Immerkaer's sigma: mean magnitude of the difference of two Laplacians, which ignores straight edges, as a Gaussian's sigma."""
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    answer = cv2.filter2D(luma_HW, cv2.CV_32F, mask)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * np.abs(answer).mean(dtype=np.float64) / 6) if answer.size else 0.0


def blockiness(luma_HW: Luma, scale: float = 1.0, origin_px: tuple[int, int] = (0, 0)) -> float | None:
    """Mean step across the borders of the source's 8 px blocks over the mean step elsewhere, minus 1.

    Args:
        luma_HW: Luma 0..255.
        scale: Thumbnail pixels per pixel of the source.
        origin_px: Row and column of the first pixel in the full thumbnail, where the grid begins.

    Returns:
        The maximum of both directions; None if blocks are smaller than 4 px or the picture is smaller than two blocks.
    """
    period_px = GRID_PX * scale
    if period_px < 4 or min(luma_HW.shape) < 2 * period_px:
        return None
    ratios = []
    for axis, start in enumerate(origin_px):
        steps = np.abs(np.diff(luma_HW, axis=axis)).mean(axis=1 - axis, dtype=np.float64)
        after_px = start + 1 + np.arange(len(steps))  # the pixel to the right of the step
        on_border = np.abs((after_px / period_px + 0.5) % 1 - 0.5) * period_px <= 0.5
        ratios.append((steps[on_border].mean() + 0.1) / (steps[~on_border].mean() + 0.1) - 1)
    return float(max(ratios))


def flicker(means_T: NDArray[np.float64]) -> float | None:
    """Mean absolute second difference of the frames' mean luma (0..1), halved; None for fewer than three frames."""
    return float(np.abs(np.diff(means_T, n=2)).mean() / 2) if len(means_T) >= 3 else None


@dataclass
class Quality:
    """Sharpness, exposure, contrast, blockiness, noise, flicker, and BRISQUE if it has weights; units and ranges by column.

    The table at the top of the file has units and sources. Null: `flicker` of a clip with fewer than three thumbnails,
    `blockiness` if the source's blocks are below 4 px on the thumbnail, `brisque` without weights or of a picture of one colour.

    Attributes:
        weights: Folder with BRISQUE's model, `pip:brisque==0.2.0:brisque/models`; null leaves `brisque` null.
    """

    weights: str | None = None

    _brisque: Brisque | None = field(default=None, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {
        "sharpness": pa.float32(),
        "exposure": pa.float32(),
        "contrast": pa.float32(),
        "blockiness": pa.float32(),
        "noise": pa.float32(),
        "brisque": pa.float32(),
        "flicker": pa.float32(),
    }
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()

    def setup(self) -> None:
        """Load BRISQUE's model if `weights` is set; keep OpenCV to one thread: the engine runs workers in parallel."""
        cv2.setNumThreads(1)
        self._brisque = Brisque.load(self.weights) if self.weights else None

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the seven columns."""
        return [{"clip_id": clip.clip_id, **self._measure(clip)} for clip in clips]

    def _measure(self, clip: Clip) -> dict[str, float | None]:
        lumas_THW = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames_THWC])
        rows, columns = lit_area(lumas_THW)
        lit_THW = lumas_THW[:, rows, columns]
        means = lit_THW.mean(axis=(1, 2), dtype=np.float64) / 255
        chosen = np.unique(np.linspace(0, len(lit_THW) - 1, FRAMES).round().astype(int))
        frames = [lit_THW[index].astype(np.float32) for index in chosen]
        scale = min(lumas_THW.shape[1:]) / min(clip.height_px, clip.width_px)
        blocks = [blockiness(frame, scale, (rows.start, columns.start)) for frame in frames]
        seen = [value for value in blocks if value is not None]
        return {
            "sharpness": float(np.median([sharpness(frame) for frame in frames])),
            "exposure": float(np.median(means)),
            "contrast": float(np.median([contrast(frame) for frame in frames])),
            "blockiness": float(np.median(seen)) if seen else None,
            "noise": float(np.median([noise(frame) for frame in frames])),
            "brisque": self._brisque.score(lit_THW[len(lit_THW) // 2]) if self._brisque else None,
            "flicker": flicker(means),
        }
