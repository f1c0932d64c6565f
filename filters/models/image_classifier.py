"""An image classifier of transformers, loaded from a folder; `Nsfw` and `Watermark` accept one as `weights`.

H height, W width, in pixels; K classes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class ImageClassifier:
    """Probabilities of the classes of one frame.

    Attributes:
        folder: Where the model was loaded from.
        labels: Class number to label, as the model's configuration defines them.
    """

    def __init__(self, folder: str, dtype: str = "auto") -> None:
        """Loads model and image processor from `folder`; nothing is downloaded and no code of the checkpoint runs.

        Args:
            folder: Folder in transformers' format.
            dtype: "float32", or "auto" for the type that the weights are stored in.
        """
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        self.folder = folder
        self._model = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, dtype=dtype, trust_remote_code=False
        ).eval()
        self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.labels = {int(i): str(label) for i, label in self._model.config.id2label.items()}

    def probabilities(self, frame_HWC: NDArray[np.uint8]) -> Any:
        """A tensor of shape (K,) on the CPU with sum 1, from a frame RGB 0..255."""
        import torch

        with torch.inference_mode():
            logits_1K = self._model(**self._processor(images=frame_HWC, return_tensors="pt")).logits
            return torch.softmax(logits_1K[0].float(), dim=0)
