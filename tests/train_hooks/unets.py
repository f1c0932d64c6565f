"""Small UNets of every kind, filled at random."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from train_hooks.inflate import inflate, spatiotemporal_unet_like
from train_hooks.net import Conditions
from train_hooks.video_unet import Style, VideoUNet

STYLES = {
    "videocrafter": Style("videocrafter", temporal_convs=True, fps=True),
    "videocrafter v1": Style("videocrafter", longest=16),
    "lavie": Style("lavie"),
}


def image_unet(**changes):
    """SD 2.x: heads of one width, linear projections."""
    torch.manual_seed(3)
    sizes = {
        "sample_size": (8, 12), "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8,
        "cross_attention_dim": 32, "attention_head_dim": (2, 4), "use_linear_projection": True,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    return UNet2DConditionModel(**(sizes | changes))


def sd1_unet():
    """SD 1.x: as many heads at every level, projections by convolution."""
    return image_unet(use_linear_projection=False, attention_head_dim=4)


def svd_base():
    """An SD 2.x UNet with SVD's 32 norm groups."""
    return image_unet(norm_num_groups=32)


def video_unet(kind: str, image=None):
    """An inflated UNet: `unet3d`, `svd`, `svd i2v`, or one of STYLES."""
    if kind == "unet3d":
        return inflate(image or image_unet())[0]
    if kind.startswith("svd"):
        return inflate(image or svd_base(), lambda unet: spatiotemporal_unet_like(unet, kind == "svd i2v"))[0]
    return inflate(image or image_unet(), lambda unet: VideoUNet.like(unet, STYLES[kind]))[0]


ALL = ["unet3d", "svd", *STYLES]
ONE = ["unet3d", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ALL if kind != "unet3d")]
"""ALL, of which `make test` runs one and `make test-all` the rest."""


@torch.no_grad()
def stirred(unet, seed=0, size=0.2):
    """The same with every zero weight moved away from zero, so that temporal layers do something."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in unet.parameters():
        if not parameter.any():
            parameter += size * torch.randn(parameter.shape, generator=rng)
    return unet


def inputs(batch=1, frames=3, images=0, seed=0, per_frame=False, fps=8.0, bucket=127.0):
    """Latents, noise levels and conditions for a small UNet."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 4, frames + images, 8, 12, generator=rng)
    shape = (batch, frames + images, 8, 32) if per_frame else (batch, 8, 32)
    conditions = Conditions(
        torch.randn(shape, generator=rng), torch.full((batch,), fps), torch.full((batch,), bucket), images=images
    )
    return x, torch.full((batch,), 400), conditions
