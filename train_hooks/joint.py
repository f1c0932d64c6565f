"""Stills that train beside videos, and frames with captions of their own.

Stills (LaVie: four behind sixteen frames) follow a clip's frames, and `images_pass` routes them around every temporal layer.
`PerFrameText` gives each frame its own caption, `ImageOnly` sets what diffusers fixes at zero: which of SVD's inputs are stills.

Shapes: B clips, T frames, M stills, F = T + M, N = B F; C channels, h and w in latents; L tokens of D channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.models.resnet import AlphaBlender, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel, TransformerTemporalModel
from torch import Tensor

from train_hooks.blocks import TemporalTransformer


@dataclass
class Layout:
    """How the N pictures of a batch belong together: clips of `frames` frames, each with `images` stills behind it."""

    frames: int = 1
    images: int = 0
    text_tokens: int = 77
    """How many of the context's tokens are text; those of an image come after them."""

    @property
    def each(self) -> int:
        """F: pictures of one clip."""
        return self.frames + self.images


def images_pass(unet: Any, layout: Layout) -> None:
    """From now on stills go around every temporal layer of UNet3D or VideoUNet: their gradients and the video's never meet."""
    for module in unet.modules():
        if isinstance(module, TransformerTemporalModel | TemporalConvLayer | TemporalTransformer):
            module.forward = partial(_frames_only, module.forward, layout)  # type: ignore[method-assign]


def _frames_only(forward: Callable[..., Any], layout: Layout, x_NChw: Tensor, num_frames: int = 1, **how: Any) -> Any:
    if layout.images == 0:
        return forward(x_NChw, num_frames=num_frames, **how)
    x_BFChw = x_NChw.unflatten(0, (-1, layout.each))
    frames, stills = x_BFChw[:, : layout.frames], x_BFChw[:, layout.frames :]
    out = forward(frames.flatten(0, 1), num_frames=layout.frames, **how)
    out_BTChw = (out[0] if isinstance(out, tuple) else out).unflatten(0, (-1, layout.frames))
    out_NChw = torch.cat([out_BTChw, stills], dim=1).flatten(0, 1)
    return (out_NChw,) if isinstance(out, tuple) else out_NChw


class PerFrameText:
    """While `text_NLD` is set, each picture's text attention reads its own caption instead of its clip's."""

    def __init__(self, unet: Any) -> None:
        self.text_NLD: Tensor | None = None
        for module in unet.modules():
            if isinstance(module, Transformer2DModel | TransformerSpatioTemporalModel):
                module.register_forward_pre_hook(self._set, with_kwargs=True)

    def _set(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs if self.text_NLD is None else {**kwargs, "encoder_hidden_states": self.text_NLD}


class ImageOnly:
    """While `indicator_BF` is set, SVD's blend of spatial and temporal branch is the spatial one alone where it is 1."""

    def __init__(self, unet: Any) -> None:
        self.indicator_BF: Tensor | None = None
        for module in unet.modules():
            if isinstance(module, AlphaBlender):
                module.get_alpha = partial(self._alpha, module.get_alpha)

    def _alpha(self, plain: Callable[..., Tensor], image_only_indicator: Tensor, ndims: int) -> Tensor:
        return plain(image_only_indicator if self.indicator_BF is None else self.indicator_BF, ndims)
