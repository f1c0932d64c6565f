"""TextArea: the share of the picture that is covered by text.

Unit: area of the union of all text boxes over the area of the frame, [0, 1]. 0 is a picture without text.

Source: "Stable Video Diffusion" (arXiv 2311.15127), Appendix C: boxes of a text detector (CRAFT) on the first, middle
and last frame, their area over the frame's; clips above 7 % are dropped. The paper does not say whether overlapping boxes
count twice, nor how three frames become one number. Ours: the union, and the maximum of the three. The detector
is PP-OCR (v6, small) from rapidocr: detection only, no recognition.

Our settings, measured on 360 px thumbnails (36 photographs without text, 32 with a line drawn on them,
the project's real footage):

- The network's input is 480 px on the short side: 60 ms of CPU per frame, and it finds lines down to 16 px. 736 px
  (rapidocr's default) costs 160 ms and finds no more of them; 360 px detects whole photographs as text.
- A box must score 0.7, and 0.8 if taller than 0.15 of the frame's short side (rapidocr: 0.5, where a quarter of the
  photographs have false text; at 0.7 none has above 0.4 % of its area).
- A box taller than 0.45 of the frame's short side is discarded. In the footage every such box was a false positive (dark,
  blurred or framed pictures, scores up to 0.90); the tallest real line had 0.38. Letters that fill half of the frame
  are therefore not detected.
- `UNCLIP` 1.0 (rapidocr: 1.6) makes a box as large as the ink of its line. Of 72 lines of two fonts and twelve sizes
  drawn on photographs 81 % are within 15 % of their ink's bounding box, median 0.97; single words a third of the frame
  tall are up to 1.5 times too large, and 4 of the 72 scored too low and were missed.

Motion decides where text belongs (`filters/models/overlay.py`): `overlay_text` is over the picture (it stays in place,
or slides along its line, while the rest of the picture moves), `scene_text` moves with the picture, and `still_text` is
text in a picture without motion, which cannot be classified. So a rule on `overlay_text` keeps a tripod's street
signs, and a rule on both drops every text that may be an overlay. Known errors: text that leaves while the
picture moves counts as scene text; text on an object that the camera follows exactly, or inside the vehicle that carries the
camera, counts as an overlay.

H height, W width, in pixels; N boxes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.onnx import one_thread_session
from filters.models.overlay import Kind, TextMotion
from filters.models.picture import lit_area

NETWORK_SIDE_PX = 480
SCORE = 0.7
TALL_LINE, TALL_SCORE = 0.15, 0.8
TALLEST_LINE = 0.45
UNCLIP = 1.0

Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Picture (1, 3, h, w) to text probability (1, 1, h, w)."""


def text_area(boxes_N42: NDArray[np.generic], height_px: int, width_px: int) -> float:
    """Area of the union of quadrilaterals over the area of the frame.

    Args:
        boxes_N42: Corners (x, y) in pixels, shape (N, 4, 2), N >= 0. Area outside the frame does not count.
        height_px: Height of the frame.
        width_px: Width of the frame.

    Returns:
        A share, [0, 1].
    """
    covered_HW = np.zeros((height_px, width_px), dtype=np.uint8)
    for box in boxes_N42:
        cv2.fillPoly(covered_HW, [np.round(box).astype(np.int32)], 1)
    return float(covered_HW.mean())


def credible(
    boxes_N42: NDArray[np.generic],
    scores: list[float],
    height_px: int,
    width_px: int,
) -> NDArray[np.float32]:
    """The boxes that can be a line of text: at most 0.45 of the frame's short side tall, and above 0.15 with a score of at least 0.8."""
    boxes: NDArray[np.float32] = np.asarray(boxes_N42, dtype=np.float32).reshape(-1, 4, 2)
    sides_px = np.linalg.norm(boxes - np.roll(boxes, 1, axis=1), axis=2)
    tallness = sides_px.min(axis=1) / min(height_px, width_px)
    sure = (tallness <= TALL_LINE) | (np.asarray(scores, dtype=np.float32) >= TALL_SCORE)
    return np.asarray(boxes[sure & (tallness <= TALLEST_LINE)], dtype=np.float32)


def network_input(frame_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The detector's input: BGR in [-1, 1], sides in multiples of 32 near 480 px, shape (1, 3, h, w)."""
    height_px, width_px = frame_HWC.shape[:2]
    scale = NETWORK_SIDE_PX / min(height_px, width_px)
    size_px = (round(width_px * scale / 32) * 32, round(height_px * scale / 32) * 32)
    bgr = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR)
    bgr = cv2.resize(bgr, size_px, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    scaled_HWC = np.asarray(bgr, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)
    return np.ascontiguousarray(scaled_HWC.transpose(2, 0, 1)[None])


def shares(boxes_N42: NDArray[np.generic], height_px: int, width_px: int) -> list[list[float]]:
    """Each box as eight numbers x, y, x, y, ... clockwise from its top left, in shares of width and height."""
    boxes: NDArray[np.float64] = np.asarray(boxes_N42, dtype=np.float64).reshape(-1, 4, 2) / (width_px, height_px)
    return [[float(value) for value in box.clip(0, 1).ravel()] for box in boxes]


@dataclass
class TextArea:
    """Area of text over the area of the frame [0, 1], and the same for text that is an overlay, part of the scene, or undecided.

    `text_area_*` are the values of the first, middle and last thumbnail, `text_area` their maximum (SVD, Appendix C).
    `overlay_text`, `scene_text` and `still_text` are maxima of the same three. `text_boxes` holds the lines
    of the middle thumbnail, each as four corners x, y in shares of width and height, clockwise from the top left, and
    `text_kinds` the kind of each: `overlay`, `scene` or `still`.

    Attributes:
        weights: PP-OCR text detector, ONNX.
    """

    weights: str = "pip:rapidocr==3.10.0:rapidocr/models/PP-OCRv6_det_small.onnx"

    _network: Network | None = field(default=None, init=False, repr=False, compare=False)
    _boxes: Callable[..., Any] | None = field(default=None, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {
        "text_area_first": pa.float32(),
        "text_area_middle": pa.float32(),
        "text_area_last": pa.float32(),
        "text_area": pa.float32(),
        "overlay_text": pa.float32(),
        "scene_text": pa.float32(),
        "still_text": pa.float32(),
        "text_boxes": pa.list_(pa.list_(pa.float32())),
        "text_kinds": pa.list_(pa.string()),
    }
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ()

    def setup(self) -> None:
        """Load the detector, on one thread: the engine runs workers in parallel."""
        # Only the post-processing: rapidocr's public class loads its own session and logs a line for each.
        from rapidocr.ch_ppocr_det.utils import DBPostProcess

        cv2.setNumThreads(1)
        session = one_thread_session(self.weights)
        name = session.get_inputs()[0].name
        self._network = lambda picture: np.asarray(session.run(None, {name: picture})[0], dtype=np.float32)
        self._boxes = DBPostProcess(thresh=0.3, box_thresh=SCORE, unclip_ratio=UNCLIP, score_mode="fast")

    def detect(self, frame_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Boxes of the lines of text in one frame.

        Args:
            frame_HWC: RGB 0..255, shape (H, W, 3).

        Returns:
            Corners (x, y) in pixels of the frame, shape (N, 4, 2).

        Raises:
            RuntimeError: called before `setup`.
        """
        if self._network is None or self._boxes is None:
            raise RuntimeError("call setup() before detect()")
        height_px, width_px = frame_HWC.shape[:2]
        boxes, scores = self._boxes(self._network(network_input(frame_HWC)), (height_px, width_px))
        return credible(boxes, scores, height_px, width_px)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the columns."""
        return [{"clip_id": clip.clip_id, **self._measure(clip)} for clip in clips]

    def _measure(self, clip: Clip) -> dict[str, Any]:
        count = len(clip.jpegs)
        indices = (0, count // 2, count - 1)
        boxes: dict[int, NDArray[np.float32]] = {}
        for index, frame in zip(indices, (clip.first, clip.middle, clip.last), strict=True):
            if index not in boxes:
                boxes[index] = self.detect(frame)
        height_px, width_px = frame.shape[:2]
        kinds = self._kinds(clip, boxes)
        areas = {index: text_area(found, height_px, width_px) for index, found in boxes.items()}
        first, middle, last = (areas[index] for index in indices)
        kind_area = {
            kind: max(
                text_area(found[[k == kind for k in kinds[index]]], height_px, width_px)
                for index, found in boxes.items()
            )
            for kind in get_args(Kind)
        }
        return {
            "text_area_first": first,
            "text_area_middle": middle,
            "text_area_last": last,
            "text_area": max(first, middle, last),
            **{f"{kind}_text": area for kind, area in kind_area.items()},
            "text_boxes": shares(boxes[count // 2], height_px, width_px),
            "text_kinds": list(kinds[count // 2]),
        }

    def _kinds(self, clip: Clip, boxes: dict[int, NDArray[np.float32]]) -> dict[int, list[Kind]]:
        if not any(len(found) for found in boxes.values()):  # most clips: the other thumbnails are not needed
            return {index: [] for index in boxes}
        greys_THW = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames_THWC])
        scan = TextMotion(greys_THW, lit_area(greys_THW))
        return {index: scan.kinds(index, found) for index, found in boxes.items()}
