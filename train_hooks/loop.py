"""The training loop, top to bottom: samples -> latents and conditions -> noise -> loss -> AdamW.

Every random draw is a function of (seed, step, rank), but for dropout inside the temporal layers, which takes torch's
own generator (seeded at the start). The losses that may be compared are those of the grid: the same clips, noise levels
and noise before and after training. The training loss of one step is drawn anew at each step and says little by
itself.

Shapes: B clips, C latent channels, T frames, M stills, F = T + M, h and w in latents; u_B one noise level for each clip.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from train_hooks import trainable
from train_hooks.base import Base
from train_hooks.batch import Batch, make_batch, shows_images
from train_hooks.checkpointing import checkpoint_activations
from train_hooks.conditioning import MotionBuckets
from train_hooks.errors import TrainError
from train_hooks.fast import speed_up
from train_hooks.feed import Feed
from train_hooks.net import Net
from train_hooks.objectives import draw_levels, draw_noise, noised
from train_hooks.recipe import Recipe

GRID_LEVELS = (0.1, 0.35, 0.6, 0.85)  # shares of the noise levels; ours
GRID_CLIPS = 4  # ours


@dataclass(frozen=True)
class Losses:
    """Mean loss on the fixed grid before and after, the training loss of every step, and the time of all steps."""

    grid_before: float
    grid_after: float
    grid_clips: tuple[str, ...]
    per_step: tuple[float, ...]
    steps_s: float


def run_loop(
    whole: Recipe,
    base: Base,
    net: Net,
    scheduler: Any,
    feeds: list[Feed],
    motion: MotionBuckets,
    say: Callable[[str], None],
) -> Losses:
    """Trains the video UNet in place, stage by stage; `feeds` has one feed for each.

    Raises TrainError when a loss or a gradient stops being finite; the message names the step and the clips.
    """
    plan, shown = whole.plan(), whole.shown()
    rank, world = _ranks()
    torch.manual_seed(shown.seed + rank)
    grid_batch = make_grid(shown, base, feeds[plan.index(shown)], motion)
    before = grid_loss(shown, net, scheduler, grid_batch)
    say(f"loss on the fixed grid before training: {before:.4f}")

    ema: dict[str, Tensor] = {}
    per_step: list[float] = []
    started_s = time.monotonic()
    n_steps = sum(stage.steps for stage in plan)
    if shown.fast:
        speed_up(net.unet)
    checkpoint_activations(net.unet, shown.checkpointing)
    net.unet.train()
    for stage, feed in zip(plan, feeds, strict=True):
        weights = trainable.choose(net.unet, stage)
        unscale = trainable.scale_inherited(net.unet, stage.inherited_grad_scale)
        optimizer = torch.optim.AdamW(weights.values(), lr=stage.lr, weight_decay=stage.weight_decay)
        if len(plan) > 1:
            say(f"stage {stage.stage or len(per_step)}: {stage.steps} steps, {stage.trainable} weights trained")
        for step in range(stage.steps):
            at = len(per_step)
            seen = at % stage.overfit if stage.overfit else at
            draws = step_draws(stage.seed, seen, rank)
            stills_only = shows_images(seen, rank, world, stage.image_rank_share)
            samples = feed.samples(seen * world + rank)
            stills = feed.stills(seen * world + rank, stage.images_per_video) if stage.images_per_video else []
            batch = make_batch(stage, base, samples, stills, motion, draws, stills_only)
            noise_BCFhw = draw_noise(batch.latents_BCFhw.shape, stage.offset_noise, draws)
            u_B = draw_levels(len(samples), stage.stratified_timesteps, draws, rank, world)
            draw = noised(stage, scheduler, batch.latents_BCFhw, noise_BCFhw, u_B)

            loss_B = batch.loss(stage, draw, net(draw.input_BCTHW, draw.time_B, batch.told))
            stop_unless_finite(loss_B, batch.clip_ids, at, "loss")
            loss_B.mean().backward()
            _average_gradients(weights, world)
            norm = torch.nn.utils.clip_grad_norm_(weights.values(), stage.grad_clip)
            stop_unless_finite(norm.expand(len(samples)), batch.clip_ids, at, "gradient")
            for group in optimizer.param_groups:
                group["lr"] = stage.lr * lr_factor(step, stage)
            optimizer.step()
            optimizer.zero_grad()
            update_ema(ema, net.unet, shown.ema_decay, at)

            per_step.append(loss_B.mean().item())
            if (at + 1) % shown.log_every == 0 or at + 1 == n_steps:
                recent = per_step[-shown.log_every :]
                each_s = (time.monotonic() - started_s) / (at + 1)
                say(f"step {at + 1}/{n_steps}  loss {sum(recent) / len(recent):.4f}  {each_s:.2f} s/step")
        unscale()

    steps_s = time.monotonic() - started_s
    net.unet.load_state_dict(ema, strict=False)
    net.unet.eval()
    after = grid_loss(shown, net, scheduler, grid_batch)
    return Losses(before, after, tuple(grid_batch.clip_ids), tuple(per_step), steps_s)


def step_draws(seed: int, step: int, rank: int) -> torch.Generator:
    """What all random numbers of a step but dropout's come from: a function of these three alone."""
    digest = hashlib.sha256(f"{seed}:{step}:{rank}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def lr_factor(step: int, stage: Recipe) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then the peak, or half a cosine down to a tenth."""
    if step < stage.lr_warmup_steps:
        return (step + 1) / stage.lr_warmup_steps
    if stage.lr_decay == "constant":
        return 1.0
    share = (step - stage.lr_warmup_steps) / max(1, stage.steps - 1 - stage.lr_warmup_steps)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], unet: Any, decay: float, step: int) -> None:
    """Moves the average of the trained weights; in the first steps faster, by (1 + step) / (10 + step) (as TensorFlow's). Nothing at 0."""
    if not decay:
        return
    weights = {key: value for key, value in unet.named_parameters() if value.requires_grad or key in ema}
    for key in weights.keys() - ema.keys():
        ema[key] = weights[key].detach().clone()
    kept = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_([ema[key] for key in weights], [w.detach() for w in weights.values()], 1 - kept)


def make_grid(recipe: Recipe, base: Base, feed: Feed, motion: MotionBuckets) -> Batch:
    """The clips of the fixed grid, with all their conditions: held-out ones where there are any."""
    samples = [feed.read(clip, epoch=0) for clip in (feed.heldout or feed.train)[:GRID_CLIPS]]
    whole = replace(recipe, caption_dropout=0.0, image_dropout=0.0)
    return make_batch(whole, base, samples, [], motion, torch.Generator().manual_seed(recipe.seed))


@torch.no_grad()
def grid_loss(recipe: Recipe, net: Net, scheduler: Any, batch: Batch) -> float:
    """Mean loss over every (clip, GRID_LEVELS) pair with noise fixed by the seed, dropout off; deterministic."""
    training = net.unet.training
    net.unet.eval()
    noise_draws = torch.Generator().manual_seed(recipe.seed + 1)
    losses: list[Tensor] = []
    for level in GRID_LEVELS:
        noise_BCFhw = torch.randn(batch.latents_BCFhw.shape, generator=noise_draws)
        # The grid is even in what the net is told, whatever the training draws most of.
        u_B = torch.full((len(batch.clip_ids),), level ** (1 / recipe.timestep_power))
        draw = noised(recipe, scheduler, batch.latents_BCFhw, noise_BCFhw, u_B)
        losses.append(batch.loss(recipe, draw, net(draw.input_BCTHW, draw.time_B, batch.told)))
    net.unet.train(training)
    return torch.stack(losses).mean().item()


def stop_unless_finite(value_B: Tensor, clip_ids: list[str], step: int, what: str) -> None:  # noqa: N803
    """Raises TrainError naming the clips whose value is not finite."""
    bad = [clip_id for clip_id, ok in zip(clip_ids, value_B.isfinite().tolist(), strict=True) if not ok]
    if bad:
        raise TrainError(
            f"the {what} is not finite at step {step}, on clips {', '.join(bad)}; a smaller lr usually helps"
        )


def _ranks() -> tuple[int, int]:
    """This process' number and how many there are."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _average_gradients(weights: dict[str, Tensor], world: int) -> None:
    if world == 1:
        return
    for weight in weights.values():
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        torch.distributed.all_reduce(weight.grad)
        weight.grad /= world
