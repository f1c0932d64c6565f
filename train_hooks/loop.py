"""The training loop, top to bottom: samples -> latents and text -> noise -> loss -> AdamW.

Every random draw comes from a generator made of the seed, but for dropout inside the temporal layers, which takes
torch's own (seeded at the start). The losses that may be compared are those of the grid: the same clips, timesteps
and noise before and after training. The training loss of one step is drawn anew at each step and says little by
itself.

Shapes: B clips, C latent channels, T frames, h and w in latents; t_B one timestep per clip.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train_hooks.errors import TrainError
from train_hooks.feed import Feed, Sample, stack
from train_hooks.objectives import draw_timesteps, drop_captions, loss_per_clip
from train_hooks.recipe import Recipe
from train_hooks.tiny_base import Base, encode_text
from train_hooks.tiny_vae import encode_video

GRID_TIMESTEPS = (100, 350, 600, 850)  # of 1000; ours
GRID_CLIPS = 4  # ours


@dataclass(frozen=True)
class Losses:
    """Mean loss on the fixed grid before and after, the training loss of every step, and the time of all steps."""

    grid_before: float
    grid_after: float
    grid_clips: tuple[str, ...]
    per_step: tuple[float, ...]
    steps_s: float


def run_loop(recipe: Recipe, base: Base, unet: Any, feed: Feed, say: Callable[[str], None]) -> Losses:
    """Trains every parameter of the video UNet in place.

    Raises TrainError when a loss or a gradient stops being finite; the message names the step and the clips.
    """
    torch.manual_seed(recipe.seed)
    draws = torch.Generator().manual_seed(recipe.seed)
    n_timesteps = base.scheduler.config.num_train_timesteps
    grid = [feed.read(clip, epoch=0) for clip in (feed.heldout or feed.train)[:GRID_CLIPS]]
    before = grid_loss(base, unet, grid, recipe.seed)
    say(f"loss on the fixed grid before training: {before:.4f}")

    optimizer = torch.optim.AdamW(unet.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    unet.train()
    per_step: list[float] = []
    started_s = time.monotonic()
    for step in range(recipe.steps):
        samples = feed.samples(step)
        latents_BCTHW = encode_video(base.vae, stack(samples))
        text_BLD = encode_text(base, drop_captions([s.caption for s in samples], recipe.caption_dropout, draws))
        noise_BCTHW = torch.randn(latents_BCTHW.shape, generator=draws)
        t_B = draw_timesteps(len(samples), n_timesteps, recipe.timestep_power, draws)

        loss_B = loss_per_clip(unet, base.scheduler, latents_BCTHW, text_BLD, noise_BCTHW, t_B)
        stop_unless_finite(loss_B, samples, step, "loss")
        loss_B.mean().backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(unet.parameters(), recipe.grad_clip)
        stop_unless_finite(norm.expand(len(samples)), samples, step, "gradient")
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * lr_factor(step, recipe.steps, recipe.lr_warmup_steps)
        optimizer.step()
        optimizer.zero_grad()

        per_step.append(loss_B.mean().item())
        if (step + 1) % recipe.log_every == 0 or step + 1 == recipe.steps:
            recent = per_step[-recipe.log_every :]
            each_s = (time.monotonic() - started_s) / (step + 1)
            say(f"step {step + 1}/{recipe.steps}  loss {sum(recent) / len(recent):.4f}  {each_s:.2f} s/step")

    steps_s = time.monotonic() - started_s
    unet.eval()
    after = grid_loss(base, unet, grid, recipe.seed)
    return Losses(before, after, tuple(s.clip_id for s in grid), tuple(per_step), steps_s)


def lr_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then half a cosine down to a tenth."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def grid_loss(base: Base, unet: Any, samples: list[Sample], seed: int) -> float:
    """Mean loss over every (clip, GRID_TIMESTEPS) pair with noise fixed by the seed, dropout off; deterministic."""
    training = unet.training
    unet.eval()
    noise_draws = torch.Generator().manual_seed(seed + 1)
    latents_BCTHW = encode_video(base.vae, stack(samples))
    text_BLD = encode_text(base, [sample.caption for sample in samples])
    losses: list[Tensor] = []
    for t in GRID_TIMESTEPS:
        noise_BCTHW = torch.randn(latents_BCTHW.shape, generator=noise_draws)
        t_B = torch.full((len(samples),), t)
        losses.append(loss_per_clip(unet, base.scheduler, latents_BCTHW, text_BLD, noise_BCTHW, t_B))
    unet.train(training)
    return torch.stack(losses).mean().item()


def stop_unless_finite(value_B: Tensor, samples: list[Sample], step: int, what: str) -> None:  # noqa: N803
    """Raises TrainError naming the clips whose value is not finite."""
    bad = [sample.clip_id for sample, ok in zip(samples, value_B.isfinite().tolist(), strict=True) if not ok]
    if bad:
        raise TrainError(
            f"the {what} is not finite at step {step}, on clips {', '.join(bad)}; a smaller lr usually helps"
        )
