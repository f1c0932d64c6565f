"""The same network with the same weights and keys, laid out for speed.

- 2D convolutions in channels_last.
- Temporal convolutions, 3 x 1 x 1 in three dimensions, as what they are: one-dimensional ones over the frames of every place. cuDNN's 3D kernels
  know little of such shapes.

Results are those of the plain network within rounding. How much faster it is stands nowhere yet: it has not been measured on a GPU.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train_hooks.checkpointing import BLOCKS


def speed_up(unet: Any) -> int:
    """Changes a UNet in place; returns how many temporal convolutions were found."""
    n = 0
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d) and module.kernel_size == (3, 1, 1):
            module.forward = partial(_over_frames, module)  # type: ignore[method-assign]
            n += 1
    return n


def _over_frames(conv: nn.Conv3d, x_BCThw: Tensor) -> Tensor:  # noqa: N803
    size = x_BCThw.shape
    x_NCT = x_BCThw.permute(0, 3, 4, 1, 2).flatten(0, 2)
    y_NCT = F.conv1d(x_NCT, conv.weight[:, :, :, 0, 0], conv.bias, padding=1)
    y_BCThw: Tensor = y_NCT.unflatten(0, (size[0], *size[3:])).permute(0, 3, 4, 1, 2)
    return y_BCThw


def compile_blocks(unet: Any) -> int:
    """torch.compile for every block of residual and temporal layers and transformers, in place; returns how many.

    Block by block, because there are few kinds of blocks and many of each: a graph of the whole net takes minutes for every size. State dict and
    results stay (within rounding). A set of sizes that does not change is compiled once for each.
    """
    n = 0
    inside: set[int] = set()
    for module in unet.modules():
        if isinstance(module, BLOCKS) and id(module) not in inside:
            inside |= {id(child) for child in module.modules()}
            module.compile(dynamic=False)
            n += 1
    return n
