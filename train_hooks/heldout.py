"""The loss that may be compared: the same clips, noise levels and noise, before, during and after training; and how much the temporal layers do.

Shapes: B clips, C latent channels, F frames and stills, h and w in latents.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.resnet import AlphaBlender, TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor

from train_hooks.batch import Batch, Encoder
from train_hooks.blocks import TemporalTransformer
from train_hooks.feed import Feed
from train_hooks.net import Net
from train_hooks.objectives import noised
from train_hooks.recipe import Recipe
from train_hooks.rng import Rng
from train_hooks.video_unet import LavieBlock

GRID_LEVELS = (0.1, 0.35, 0.6, 0.85)  # shares of the noise levels; ours
GRID_CLIPS = 4  # ours
TEMPORAL = (TemporalConvLayer, TransformerTemporalModel, TemporalTransformer, AlphaBlender, LavieBlock)
_GRID = -1  # the grid's step for `Rng`; training uses steps from 0


def make_grid(recipe: Recipe, encoder: Encoder, feed: Feed) -> Batch:
    """The clips of the fixed grid, with all their conditions: held-out ones where there are any."""
    samples = feed.grid_samples(GRID_CLIPS)
    whole = replace(recipe, caption_dropout=0.0, image_dropout=0.0, sample_posterior=False)
    return encoder.batch(whole, samples, [], Rng(recipe.seed, _GRID, range(len(samples))))


def grid_loss(recipe: Recipe, net: Net, scheduler: Any, batch: Batch) -> float:
    """Mean loss over every (clip, GRID_LEVELS) pair with noise fixed by the seed, dropout off; deterministic."""
    rng = Rng(recipe.seed, _GRID - 1, range(len(batch.clip_ids)))
    return grid_losses(recipe, net, scheduler, batch, rng).mean().item()


@torch.no_grad()
def grid_losses(recipe: Recipe, net: Net, scheduler: Any, batch: Batch, rng: Rng) -> Tensor:
    """The loss of every clip at every level of GRID_LEVELS, (levels, B), the noise from `rng`, dropout off."""
    training = net.unet.training
    net.unet.eval()
    losses: list[Tensor] = []
    for level in GRID_LEVELS:
        noise_BCFhw = rng.normal(*batch.latents_BCFhw.shape[1:]).to(batch.latents_BCFhw.device)
        # The grid is even in the net's noise level, whichever levels the training favours.
        u_B = torch.full((len(batch.clip_ids),), level ** (1 / recipe.timestep_power), device=noise_BCFhw.device)
        draw = noised(recipe, scheduler, batch.latents_BCFhw, noise_BCFhw, u_B)
        losses.append(batch.loss(recipe, draw, net(draw.input_BCTHW, draw.time_B, batch.conditions)))
    net.unet.train(training)
    return torch.stack(losses)


@contextmanager
def temporal_share(unet: Any) -> Iterator[list[float]]:
    """Collects |out - in| / |out| of every temporal layer that runs inside.

    It is 0 at the start of an inflated UNet, and stays there where no motion is learned.

    For LaVie's block, whose temporal attention is in its middle, it is the attention's output over the block's.
    """
    shares: list[float] = []

    def compare(module: Any, args: Any, kwargs: Any, out: Any) -> None:
        answer = out[0] if isinstance(out, tuple) else getattr(out, "sample", out)
        before = args[0] if args else kwargs.get("x_spatial", kwargs.get("hidden_states"))
        branch: Any = module.last_branch if isinstance(module, LavieBlock) else answer.float() - before.float()
        shares.append((branch.float().norm() / answer.float().norm().clamp(min=1e-12)).item())

    found = [module for module in unet.modules() if isinstance(module, TEMPORAL)]
    hooks = [module.register_forward_hook(compare, with_kwargs=True) for module in found]
    try:
        yield shares
    finally:
        for hook in hooks:
            hook.remove()
