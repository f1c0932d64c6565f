"""The tiny recipe's VAE: its start, and the fit to the shards' own frames.

A random VAE decodes to noise, and a minute does not train one. So it starts as a picture pyramid, which is exact
arithmetic (ours): the first three latent channels are the frame's red, green and blue averaged over each cell, and
the decoder enlarges them again. A short fit then adds detail through the other channels. It is an AutoencoderKL of
Stable Diffusion's architecture all the same.

Shapes: N images, B clips, T frames, C channels, H and W in pixels, h and w in latents. Pixels are -1..1.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

KL_WEIGHT = 1e-6  # the KL weight of SD's autoencoder (latent-diffusion, autoencoder_kl_32x32x4.yaml)
NORM_GROUPS = 2  # SD: 32. Ours: the first group must hold five channels of the narrowest level; with 32 that takes 160
RGB = (0, 1, 2)  # channels that carry the picture
CONSTANTS = {
    3: 8.0,
    4: -8.0,
}  # and two that carry a constant, so large that the statistics of their norm group hardly see the picture
PASSED = (*RGB, *CONSTANTS)
LINEAR = 12.0  # SiLU(x + 12) is x + 12 within 1e-4 for small x
QUIET_S = 10.0  # between two progress lines; ours
WARMUP_STEPS = 20  # ours; without it Adam's first steps spoil the start
START_LOGVAR = (
    -6.0
)  # the posterior starts with a standard deviation of 0.05; at SD's 1 the noise would drown the picture


@torch.no_grad()
def start_as_pyramid(vae: Any) -> None:
    """Sets the weights so that encoding averages and decoding enlarges.

    Needs at least five channels in a norm group.
    """
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):  # every residual branch starts at zero
            _zero(module.conv2)
            if module.conv_shortcut is not None:
                _pass(module.conv_shortcut, 0)
        elif isinstance(module, Attention):
            _zero(module.to_out[0])
    for half in (vae.encoder, vae.decoder):
        _pass(half.conv_in, 1)
        for c, value in CONSTANTS.items():
            half.conv_in.weight[c] = 0.0
            half.conv_in.bias[c] = value
        _linear_output(half.conv_norm_out, half.conv_out)
    for block in vae.encoder.down_blocks:
        for down in block.downsamplers or ():
            _pass(down.conv, slice(0, 2), gain=0.25)  # the mean of 2 x 2; diffusers pads below and to the right
    for block in vae.decoder.up_blocks:
        for up in block.upsamplers or ():
            _pass(up.conv, 1)
    n_latents = vae.config.latent_channels
    vae.encoder.conv_out.weight[n_latents:] = 0.0
    vae.encoder.conv_out.bias[n_latents:] = START_LOGVAR
    for conv in (vae.quant_conv, vae.post_quant_conv):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)


def _zero(layer: Any) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def _zero_output(conv: Any, c: int) -> None:
    conv.weight[c] = 0.0
    conv.bias[c] = 0.0


def _pass(conv: Any, taps: int | slice, gain: float = 1.0) -> None:
    """Makes a convolution hand on the PASSED channels from the given taps of its kernel.

    Its other outputs stay random, blind to the constants.
    """
    if conv.in_channels > max(CONSTANTS):
        conv.weight[:, list(CONSTANTS)] = 0.0
    for c in PASSED:
        _zero_output(conv, c)
        if c < conv.in_channels:
            conv.weight[c, c, taps, taps] = gain


def _linear_output(norm: Any, conv: Any) -> None:
    """Undoes norm and SiLU on RGB: the distance to the middle of the two constants, times the group's deviation."""
    per_group = norm.num_channels // norm.num_groups
    deviation = max(CONSTANTS.values()) * math.sqrt(2 / per_group)  # of a group with both constants and all else near 0
    for c in PASSED:
        norm.bias[c] = LINEAR
    for c in RGB:
        _zero_output(conv, c)
        conv.weight[c, c, 1, 1] = deviation
        for constant in CONSTANTS:
            conv.weight[c, constant, 1, 1] = -deviation / 2


def fit_vae(
    vae: Any, frames: Iterator[Tensor], steps: int, lr: float, say: Callable[[str], None] = lambda line: None
) -> tuple[float, float]:
    """Fits the VAE to batches of frames (N, 3, H, W) by L1 and a little KL, sets its scaling factor, freezes it.

    The scaling factor is 1 / std of the latents, which is how Stable Diffusion's 0.18215 came about. Without steps, that is all.

    Returns the mean absolute error before and after on one batch, in units of -1..1.
    """
    held_NCHW = next(frames)
    before = reconstruction_error(vae, held_NCHW)
    vae.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=lr, weight_decay=0.0)
    logged_s = time.monotonic()
    for step in range(steps):
        if time.monotonic() - logged_s >= QUIET_S:
            say(f"small VAE: step {step}/{steps}")
            logged_s = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / WARMUP_STEPS) * (1 - step / steps)
        frames_NCHW = next(frames)
        posterior = vae.encode(frames_NCHW).latent_dist
        error = (vae.decode(posterior.sample()).sample - frames_NCHW).abs().mean()
        (error + KL_WEIGHT * posterior.kl().mean()).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    vae.eval().requires_grad_(False)
    latents_NCHW = vae.encode(held_NCHW).latent_dist.mean
    vae.register_to_config(scaling_factor=1.0 / max(latents_NCHW.std().item(), 1e-6))
    return before, reconstruction_error(vae, held_NCHW)


@torch.no_grad()
def reconstruction_error(vae: Any, frames_NCHW: Tensor) -> float:
    """Mean absolute error of decoding the mean latent, in units of -1..1."""
    decoded_NCHW: Tensor = vae.decode(vae.encode(frames_NCHW).latent_dist.mean).sample
    return (decoded_NCHW - frames_NCHW).abs().mean().item()
