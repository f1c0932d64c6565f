"""ScreenContent: whether a clip looks like a recorded screen, and whether one face is in front of the camera throughout.

`is_screen`, [0, 1], needs no weights: the maximum, over the first, middle and last thumbnail, of

    cube root of (flat x few x sharp)

- flat: share of pixels whose 3 x 3 neighbourhood spans at most 2 of 255 grey levels;
- few: share of pixels in the six commonest colours (of 4,096, 16 steps a channel);
- sharp: share of pixels with a Sobel gradient above 160, over 0.06, at most 1.

It detects drawn pictures: windows, slides and code, but also titles and flat cartoons. Ours; 40 drawn screens (code,
text, slides, pages with photographs, light and dark) against 51 photographs and 66 real shots: AUC 0.99; most photographs
are below 0.5, most drawn screens above 0.8; a dark hall with a lit spot is the nearest false positive (0.8). Not measured on
real screen recordings.

`is_talking_head`, [0, 1]: score x size of the most certain face, the minimum of the three thumbnails, x steadiness. Size is the
face's height over 0.3 of the frame's, at most 1; steadiness is 1 minus its maximum displacement between thumbnails in face heights.
It does not detect speech. Null without a face detector (`weights: null`). The detector is nudenet's (its two
face classes, see `filters.Nsfw`). Of 67 windows of real videos a phone call in a car scores highest, 0.65, then 0.52 and 0.26
for a person who talks while her hair is styled.

H height, W width, in pixels.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.nudenet import Detector, load_detector

FLAT_LEVELS = 2
COLOURS = 6
EDGE, EDGE_SHARE = 160.0, 0.06
HEAD_HEIGHT = 0.3
FACES = ("FACE_FEMALE", "FACE_MALE")

Face = tuple[float, float, float, float]
"""Score, centre x and y, height; the last three over the frame's height."""


def screen_score(frame_HWC: NDArray[np.uint8]) -> float:
    """How much one frame looks drawn rather than filmed, [0, 1]. A frame of one colour has no edges and is 0."""
    grey = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
    around = np.ones((3, 3), np.uint8)
    spans = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, around)
    flat = np.count_nonzero(spans <= FLAT_LEVELS) / grey.size
    counts = cv2.calcHist([frame_HWC], [0, 1, 2], None, [16, 16, 16], [0, 256] * 3).ravel().astype(np.float64)
    few = float(np.sort(counts)[-COLOURS:].sum() / counts.sum())
    gradient = cv2.magnitude(*(cv2.Sobel(grey, cv2.CV_32F, *axis, ksize=3) for axis in ((1, 0), (0, 1))))
    sharp = min(1.0, np.count_nonzero(gradient > EDGE) / grey.size / EDGE_SHARE)
    return float(np.cbrt(flat * few * sharp))


def talking_head(faces: list[Face]) -> float:
    """Score [0, 1] from the most certain face of each frame, in time order."""
    surest = min(score * min(1.0, height / HEAD_HEIGHT) for score, _, _, height in faces)
    ways = [np.hypot(x1 - x0, y1 - y0) / max(h0, h1, 1e-6) for (_, x0, y0, h0), (_, x1, y1, h1) in pairwise(faces)]
    return float(np.clip(surest * (1.0 - max(ways, default=0.0)), 0.0, 1.0))


@dataclass
class ScreenContent:
    """Score of a recorded screen [0, 1], and of one large steady face on the three thumbnails [0, 1] or null.

    Attributes:
        weights: nudenet's detector, for the faces; null computes `is_screen` only.
    """

    weights: str | None = "pip:nudenet==3.4.2:nudenet/320n.onnx"

    _detector: Detector | None = field(default=None, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {"is_screen": pa.float32(), "is_talking_head": pa.float32()}
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()

    def setup(self) -> None:
        """Load the face detector if `weights` is set; nothing is downloaded."""
        cv2.setNumThreads(1)
        self._detector = load_detector(self.weights) if self.weights is not None else None

    def face(self, frame_HWC: NDArray[np.uint8]) -> Face:
        """The most certain face of one frame. Raises RuntimeError without a detector."""
        if self._detector is None:
            raise RuntimeError("call setup() with weights before face()")
        boxes_P4, scores_PK = self._detector.places(frame_HWC)
        scores_P = scores_PK[:, self._detector.indices(FACES)].max(axis=1)
        best = int(scores_P.argmax())
        x, y, _, height = (float(value) / frame_HWC.shape[0] for value in boxes_P4[best])
        return float(scores_P[best]), x, y, height

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id`, `is_screen`, `is_talking_head`.

        Raises:
            RuntimeError: called before `setup`, with weights.
            ValueError: the detector's output is not finite.
        """
        return [{"clip_id": clip.clip_id, **self._measure(clip)} for clip in clips]

    def _measure(self, clip: Clip) -> dict[str, float | None]:
        frames = [clip.first, clip.middle, clip.last][: max(1, len(clip.jpegs))]
        head = None if self.weights is None else talking_head([self.face(frame) for frame in frames])
        return {"is_screen": max(screen_score(frame) for frame in frames), "is_talking_head": head}
