"""Nsfw: a detector's score that a clip shows exposed intimate parts.

Unit: [0, 1], the maximum score over the classes `EXPOSED` (`filters/models/nudenet.py`) on the first, middle and last thumbnail;
lower is safer. It is the score of the best box, not a calibrated probability; nudenet itself reports boxes from 0.25 on, and clean
pictures score well below (maximum of 51 photographs of coco_mini: 0.14).

Source: nudenet 3.4.2's detector, a YOLOv8n of 18 classes at 320 px. Ours: of the "exposed" classes the five sexual ones count,
not bare feet, bellies, armpits or men's chests; the channel order is RGB (on the 51 photographs it finds six faces, BGR, which
nudenet's own code passes, three); boxes are not merged, because only the maximum score is used.

If `weights` is a folder, an image classifier of transformers is used instead: the summed probability of `labels`.

The wheel's licence is MIT; the model file in it names AGPL-3.0 (its exporter's) in its metadata. We ship neither.

N frames, H height, W width, in pixels; P places, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.image_classifier import ImageClassifier
from filters.models.nudenet import EXPOSED, load_detector


def label_score(classifier: ImageClassifier, labels: Sequence[str]) -> Callable[[NDArray[np.uint8]], float]:
    """A function from a frame to the summed probability of `labels`, matched without regard to case.

    Raises:
        ValueError: the classifier has none of the labels.
    """
    wanted = {label.lower() for label in labels}
    columns = [i for i, name in classifier.labels.items() if name.lower() in wanted]
    if not columns:
        has = ", ".join(classifier.labels.values())
        raise ValueError(
            f"the classifier in {classifier.folder} has none of the labels {', '.join(labels)}; it has {has}"
        )
    return lambda frame_HWC: float(classifier.probabilities(frame_HWC)[columns].sum().clamp(0, 1))


@dataclass
class Nsfw:
    """Maximum detector score of exposed intimate parts on the first, middle and last thumbnail [0, 1]; lower is safer.

    Attributes:
        weights: nudenet's detector (an ONNX file), or the folder of an image classifier (transformers).
        labels: Labels of the image classifier whose probabilities are summed; not used by the detector.
    """

    weights: str = "pip:nudenet==3.4.2:nudenet/320n.onnx"
    labels: tuple[str, ...] = ("nsfw", "porn", "hentai", "unsafe")

    _score: Callable[[NDArray[np.uint8]], float] | None = field(default=None, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {"nsfw": pa.float32()}
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()

    def setup(self) -> None:
        """Load the detector or the classifier; nothing is downloaded."""
        cv2.setNumThreads(1)
        if Path(self.weights).is_dir():
            self._score = label_score(ImageClassifier(self.weights, "float32"), self.labels)
            return
        detector = load_detector(self.weights)
        exposed = detector.indices(EXPOSED)
        self._score = lambda frame: float(np.clip(detector.places(frame)[1][:, exposed].max(), 0.0, 1.0))

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id`, `nsfw`.

        Raises:
            RuntimeError: called before `setup`.
            ValueError: the model's output is not finite.
        """
        return [{"clip_id": clip.clip_id, "nsfw": self._measure(clip)} for clip in clips]

    def _measure(self, clip: Clip) -> float:
        if self._score is None:
            raise RuntimeError("call setup() before Nsfw is called")
        frames = [clip.first, clip.middle, clip.last][: max(1, len(clip.jpegs))]
        found = float(np.max([self._score(frame) for frame in frames]))
        if not np.isfinite(found):
            raise ValueError(f"clip {clip.clip_id}: the output of the classifier is not finite")
        return found
