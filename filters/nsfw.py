"""Nsfw: how sure a detector is that a clip shows bare intimate parts.

Unit: [0, 1], the highest score over the classes in `EXPOSED` on the first, middle and last thumbnail. It is what the
detector says of its best box, not a calibrated probability; 0.25 is what nudenet itself reports from, and clean pictures
stay well below (highest of 51 photographs of coco_mini: 0.14).

Source: nudenet 3.4.2's detector, a YOLOv8n of 18 classes at 320 px. The picture is padded with black to a square at its
right and lower side, resized and divided by 255; the answer holds centre, size and 18 scores for each of 2,100 places.
Ours: of the "exposed" classes the five that are sexual count, not bare feet, bellies, armpits or men's chests; red, green
and blue in this order (faces on the 51 photographs: six are found so, three with blue first, as nudenet's own code feeds
it); no box is merged, because only the highest score is asked for.

A picture classifier of the hub does instead when `weights` is a folder: the summed probability of `labels`.

The wheel's licence is MIT, while the model file in it names AGPL-3.0 (its exporter's) in its metadata. We ship neither.

N frames, H height, W width, in pixels; P places, K classes.
"""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip

SIDE_PX = 320
EXPOSED = (
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "ANUS_EXPOSED",
)


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
    """nudenet's network: what it is asked, and the names of its classes."""

    session: Any
    names: tuple[str, ...]

    def places(self, frame_HWC: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (P, 4): centre x, y, width and height in pixels of the frame; scores (P, K), [0, 1]. Nothing is merged."""
        (answer,) = self.session.run(None, {self.session.get_inputs()[0].name: network_input(frame_HWC)})
        answer_PK = np.asarray(answer[0].T, dtype=np.float32)
        if not np.isfinite(answer_PK).all():
            raise ValueError("the detector's answer is not finite")
        scale = max(frame_HWC.shape[:2]) / SIDE_PX
        return answer_PK[:, :4] * np.float32(scale), answer_PK[:, 4:]

    def indices(self, names: Sequence[str]) -> list[int]:
        """Columns of the scores that belong to these classes."""
        return [self.names.index(name) for name in names]


def load_detector(weights: str) -> Detector:
    """nudenet's ONNX file, on one thread of the CPU; the classes are those its metadata names.

    Raises ValueError when the file is another model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map.get("names", "{}")
    names = ast.literal_eval(told)
    found = tuple(str(names[i]) for i in range(len(names))) if isinstance(names, dict) else ()
    if missing := [name for name in EXPOSED if name not in found]:
        raise ValueError(f"{weights} is not nudenet's detector: it knows no class {missing[0]}")
    return Detector(session, found)


def load_classifier(folder: str, labels: Sequence[str]) -> Callable[[NDArray[np.uint8]], float]:
    """A picture classifier of transformers: frame to the summed probability of `labels` (as written there, in any case).

    Raises ValueError when it has none of the labels.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(
        folder, local_files_only=True, dtype="float32", trust_remote_code=False
    ).eval()
    prepare = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    wanted = {label.lower() for label in labels}
    columns = [int(i) for i, name in model.config.id2label.items() if str(name).lower() in wanted]
    if not columns:
        has = ", ".join(map(str, model.config.id2label.values()))
        raise ValueError(f"the classifier in {folder} has none of the labels {', '.join(labels)}; it has {has}")

    def score(frame_HWC: NDArray[np.uint8]) -> float:
        with torch.inference_mode():
            logits = model(**prepare(images=frame_HWC, return_tensors="pt")).logits[0]
        return float(torch.softmax(logits.float(), dim=0)[columns].sum().clamp(0, 1))

    return score


@dataclass
class Nsfw:
    """Highest score of a bare intimate part on the first, middle and last thumbnail [0, 1]; lower is safer.

    Attributes:
        weights: nudenet's detector (an ONNX file), or the folder of a picture classifier (transformers).
        labels: Of a classifier, the labels whose probabilities are summed; the detector has classes of its own.
    """

    weights: str = "pip:nudenet==3.4.2:nudenet/320n.onnx"
    labels: tuple[str, ...] = ("nsfw", "porn", "hentai", "unsafe")

    _score: Callable[[NDArray[np.uint8]], float] | None = field(default=None, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {"nsfw": pa.float32()}
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()

    def setup(self) -> None:
        """Load the detector or the classifier; nothing is fetched."""
        cv2.setNumThreads(1)
        if Path(self.weights).is_dir():
            self._score = load_classifier(self.weights, self.labels)
            return
        detector = load_detector(self.weights)
        exposed = detector.indices(EXPOSED)
        self._score = lambda frame: float(np.clip(detector.places(frame)[1][:, exposed].max(), 0.0, 1.0))

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id`, `nsfw`.

        Raises:
            RuntimeError: called before `setup`.
            ValueError: the model's answer is not finite.
        """
        return [{"clip_id": clip.clip_id, "nsfw": self._measure(clip)} for clip in clips]

    def _measure(self, clip: Clip) -> float:
        if self._score is None:
            raise RuntimeError("call setup() before Nsfw is called")
        frames = [clip.first, clip.middle, clip.last][: max(1, len(clip.jpegs))]
        found = float(np.max([self._score(frame) for frame in frames]))
        if not np.isfinite(found):
            raise ValueError(f"clip {clip.clip_id}: the classifier's answer is not a number")
        return found
