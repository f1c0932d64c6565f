"""Gradient checkpointing for every video UNet: activations are not kept but computed again on the way back.

diffusers refuses it for UNet3DConditionModel (0.42: `_supports_gradient_checkpointing` is False, and its blocks ignore the flag). Outputs
and gradients are bit-equal, dropout included.

- blocks: every residual block, temporal convolution and transformer: the least memory, one more forward.
- selective: temporal convolutions and feed-forwards alone: cheap to compute again, and large. (Ours.)
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D, SpatioTemporalResBlock, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel, TransformerTemporalModel
from torch.utils.checkpoint import checkpoint

from train_hooks.blocks import TemporalTransformer

BEHIND = (TemporalConvLayer, TemporalTransformer)
SELECTIVE = (TemporalConvLayer, FeedForward)
BLOCKS = (
    ResnetBlock2D, SpatioTemporalResBlock, TemporalConvLayer, Transformer2DModel, TransformerTemporalModel,
    TransformerSpatioTemporalModel, TemporalTransformer,
)  # fmt: skip


def checkpoint_activations(unet: Any, policy: str) -> int:
    """Sets the policy `none`, `blocks` or `selective` for the training of a UNet; returns how many modules it concerns."""
    kinds = {"none": (), "blocks": BLOCKS, "selective": SELECTIVE}[policy]
    n = 0
    inside: set[int] = set()
    for module in unet.modules():
        if isinstance(module, kinds) and id(module) not in inside:
            # Nested modules are covered by the outer one, except VideoUNet's temporal layers, which run after their owner.
            inside |= {id(child) for child in module.modules() if not isinstance(child, BEHIND)}
            module.forward = partial(_again, module.forward)
            n += 1
    return n


def _again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
