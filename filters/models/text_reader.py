"""Text recogniser: the string in a box of a frame, and its confidence [0, 1].

PP-OCR's recogniser (v6, small) from rapidocr: 48 px tall, BGR, in [-1, 1]; its output is a probability per column and
character, decoded greedily (CTC: repeats merge, blanks are dropped). The alphabet is in the file's metadata. Rotated boxes are rectified;
boxes much taller than wide are rotated by 90 degrees first, as PP-OCR does.

N boxes; H height, W width, in pixels.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from filters.models.onnx import one_thread_session

LINE_PX = 48
WIDEST_PX = 1600


def upright(frame_HWC: NDArray[np.uint8], box_42: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The rectified content of a box (corners clockwise from the top left), with a margin of a tenth of its height."""
    sides_px = np.linalg.norm(box_42 - np.roll(box_42, 1, axis=0), axis=1)  # left, top, right, bottom
    height_px, width_px = max(4.0, sides_px[0], sides_px[2]), max(4.0, sides_px[1], sides_px[3])
    across, down = (box_42[1] - box_42[0]) / width_px, (box_42[3] - box_42[0]) / height_px
    margin_px = 0.1 * height_px
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float32)
    corners = (box_42 + margin_px * (signs[:, :1] * across + signs[:, 1:] * down)).astype(np.float32)
    height, width = round(height_px + 2 * margin_px), round(width_px + 2 * margin_px)
    target = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)
    part = cv2.warpPerspective(
        frame_HWC, cv2.getPerspectiveTransform(corners, target), (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(np.rot90(part) if height > 1.5 * width else part, dtype=np.uint8)


class Reader:
    """The loaded recogniser."""

    def __init__(self, weights: str) -> None:
        """Loads the ONNX file, on one thread. Raises FileNotFoundError when `weights` is not a file."""
        self._session: Any = one_thread_session(weights)
        self._input = self._session.get_inputs()[0].name
        characters = self._session.get_modelmeta().custom_metadata_map["character"].split("\n")
        self._characters = ["", *characters, " "]

    def read(self, frame_HWC: NDArray[np.uint8], box_42: NDArray[np.float32]) -> tuple[str, float]:
        """The string in a box of the frame (RGB) and the mean probability of its characters; ("", 0.0) without characters."""
        part = upright(frame_HWC, box_42)
        width_px = int(np.clip(round(part.shape[1] * LINE_PX / part.shape[0]), 16, WIDEST_PX))
        line = cv2.resize(np.ascontiguousarray(part), (width_px, LINE_PX), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        picture = (np.asarray(line, dtype=np.float32) / np.float32(127.5) - np.float32(1)).transpose(2, 0, 1)[None]
        probabilities = np.asarray(self._session.run(None, {self._input: np.ascontiguousarray(picture)})[0][0])
        if not np.isfinite(probabilities).all():
            return "", 0.0
        best, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
        kept = (best > 0) & (best != np.concatenate([[-1], best[:-1]]))
        if not kept.any():
            return "", 0.0
        return "".join(self._characters[i] for i in best[kept]).strip(), float(sure[kept].mean(dtype=np.float64))
