"""EfficientNet-lite0, an ImageNet classifier of 1,000 classes: its input, its weights, the names of its classes.

Source: Tan and Le 2019, arXiv 1905.11946; 224 px, x = (rgb - 127) / 128; class names from torchvision's public metadata.

H height, W width, in pixels.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE_PX = 224
WIDEST = 4 / 3
"""A wider (or taller) frame is cropped at its centre to this aspect ratio. Ours: see `annotate.Labels`."""


def network_input(frame_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The frame cropped to at most 4:3, resized to 224 x 224 and scaled as in training, shape (3, 224, 224)."""
    height_px, width_px = frame_HWC.shape[:2]
    keep_px = round(WIDEST * min(height_px, width_px))
    top, left = max(0, height_px - keep_px) // 2, max(0, width_px - keep_px) // 2
    frame_HWC = frame_HWC[top : top + keep_px, left : left + keep_px]
    how = cv2.INTER_AREA if min(frame_HWC.shape[:2]) >= SIDE_PX else cv2.INTER_LINEAR
    square = cv2.resize(frame_HWC, (SIDE_PX, SIDE_PX), interpolation=how)
    return np.ascontiguousarray(((square.astype(np.float32) - 127.0) / 128.0).transpose(2, 0, 1))


def load_classifier(weights: str) -> tuple[Any, list[str]]:
    """The network from a PyTorch state dict, in evaluation mode, and the names of its 1,000 classes."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from torchvision.models import EfficientNet_B0_Weights

    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval(), list(EfficientNet_B0_Weights.DEFAULT.meta["categories"])
