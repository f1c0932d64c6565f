"""A stage of a recipe on the clips of a shards folder: its feed, and the small random base that is fitted to their frames."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from train_hooks.feed import Feed, stack
from train_hooks.latent_cache import LatentCache
from train_hooks.recipe import Recipe
from train_hooks.shard_index import ShardIndex
from train_hooks.tiny_base import build_base, save_base
from train_hooks.tiny_vae import fit_vae


def feed_of(
    stage: Recipe, shards: str | Path, index: ShardIndex | None = None, cache: LatentCache | None = None
) -> Feed:
    """The clips as a stage sees them."""
    return Feed(
        shards, sizes=stage.sizes, fps=stage.fps, batch=stage.batch, windows_per_clip=stage.windows_per_clip,
        heldout_share=stage.heldout_share, seed=stage.seed, tagged=stage.tagged_frames, still=stage.still_frame,
        images=stage.image_folder, index=index, cache=cache, with_variance=stage.sample_posterior,
    )  # fmt: skip


def build_tiny(recipe: Recipe, feed: Feed, folder: Path, say: Callable[[str], None]) -> None:
    """Writes the small random base, its VAE fitted to the clips' frames, as a diffusers folder."""
    base = build_base(recipe)
    first_error, last_error = fit_vae(base.vae, vae_frames(recipe, feed), recipe.vae_fit_steps, recipe.vae_fit_lr, say)
    say(
        f"small VAE fitted to the clips' frames in {recipe.vae_fit_steps} steps: "
        f"mean error {first_error:.3f} -> {last_error:.3f} (pixels are -1..1)"
    )
    save_base(base, folder)


def vae_frames(plan: Recipe, feed: Feed) -> Iterator[Tensor]:
    """Batches of single frames (N, 3, H, W) for the VAE, from the same windows that the loop will train on; endless."""
    rng = torch.Generator().manual_seed(plan.seed)
    step = 0
    while True:
        frames_NCHW = stack(feed.samples(step % plan.steps)).transpose(1, 2).flatten(0, 1)
        yield frames_NCHW[torch.randperm(len(frames_NCHW), generator=rng)[: plan.vae_fit_batch]]
        step += 1
