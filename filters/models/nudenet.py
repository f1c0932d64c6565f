"""nudenet's detector: boxes and scores of 18 classes of body parts and faces in one frame.

Source: nudenet 3.4.2, a YOLOv8n at 320 px. The frame is padded with black to a square at its right and lower side, resized
and divided by 255; the output holds centre, size and 18 scores for each of 2,100 places. The channel order is RGB. nudenet's
own code passes BGR; on 51 photographs of coco_mini RGB finds six faces and BGR three.

H height, W width, in pixels; P places, K classes.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from filters.models.onnx import one_thread_session

SIDE_PX = 320
EXPOSED = (
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "ANUS_EXPOSED",
)
"""The sexual ones of the detector's "exposed" classes. Ours: bare feet, bellies, armpits and men's chests do not count."""


def network_input(frame_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The frame at a long side of 320 px, black at its right or lower side, in [0, 1], shape (1, 3, 320, 320)."""
    height_px, width_px = frame_HWC.shape[:2]
    scale = SIDE_PX / max(height_px, width_px)
    small_px = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    small_HWC = cv2.resize(frame_HWC, small_px, interpolation=cv2.INTER_LINEAR)
    square_1CHW = np.zeros((1, 3, SIDE_PX, SIDE_PX), dtype=np.float32)
    for channel_HW, small_HW in zip(square_1CHW[0], cv2.split(small_HWC), strict=True):
        np.multiply(small_HW, np.float32(1 / 255), out=channel_HW[: small_px[1], : small_px[0]])
    return square_1CHW


@dataclass(frozen=True)
class Detector:
    """The loaded network and the names of its classes."""

    session: Any
    names: tuple[str, ...]

    def places(self, frame_HWC: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (P, 4): centre x, y, width and height in pixels of the frame; scores (P, K), [0, 1]; overlapping boxes are not merged.

        Raises:
            ValueError: the output is not finite.
        """
        (answer,) = self.session.run(None, {self.session.get_inputs()[0].name: network_input(frame_HWC)})
        answer_PK = np.asarray(answer[0].T, dtype=np.float32)
        if not np.isfinite(answer_PK).all():
            raise ValueError("the output of nudenet's detector is not finite")
        scale = max(frame_HWC.shape[:2]) / SIDE_PX
        return answer_PK[:, :4] * np.float32(scale), answer_PK[:, 4:]

    def indices(self, names: Sequence[str]) -> list[int]:
        """Columns of the scores that belong to these classes."""
        return [self.names.index(name) for name in names]


def load_detector(weights: str) -> Detector:
    """The detector from nudenet's ONNX file, on one CPU thread; the class names come from the file's metadata.

    Raises:
        FileNotFoundError: `weights` is not a file.
        ValueError: the file is another model.
    """
    session = one_thread_session(weights)
    listed = session.get_modelmeta().custom_metadata_map.get("names", "{}")
    names = ast.literal_eval(listed)
    found = tuple(str(names[i]) for i in range(len(names))) if isinstance(names, dict) else ()
    if missing := [name for name in EXPOSED if name not in found]:
        raise ValueError(f"{weights} is not nudenet's detector: it has no class {missing[0]}")
    return Detector(session, found)
