"""What the net is asked to predict, and what the loss is: mean squared error on the noise eps, the velocity v or x_0.

With the scheduler's abar_t: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, v_t = sqrt(abar_t) eps - sqrt(1 - abar_t)
x_0 (Ho et al. 2020; Salimans & Ho 2022). The schedule's arithmetic is diffusers', so that training and sampling
cannot disagree.

Shapes: B clips, C latent channels, T frames, h and w in latents; one timestep per clip.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def noised(scheduler: Any, latents_BCTHW: Tensor, noise_BCTHW: Tensor, t_B: Tensor) -> Tensor:  # noqa: N803
    """x_t: the latents at timestep t_B, the same timestep for every frame of a clip."""
    noisy: Tensor = scheduler.add_noise(latents_BCTHW, noise_BCTHW, t_B)
    return noisy


def target(scheduler: Any, latents_BCTHW: Tensor, noise_BCTHW: Tensor, t_B: Tensor) -> Tensor:  # noqa: N803
    """What the net should answer for x_t, by the scheduler's `prediction_type`: noise, velocity, or clean latents."""
    if scheduler.config.prediction_type == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(latents_BCTHW, noise_BCTHW, t_B)
        return velocity
    if scheduler.config.prediction_type == "epsilon":
        return noise_BCTHW
    if scheduler.config.prediction_type == "sample":
        return latents_BCTHW
    raise ValueError(f"no objective for prediction_type {scheduler.config.prediction_type!r}")


def loss_per_clip(
    unet: Any,
    scheduler: Any,
    latents_BCTHW: Tensor,  # noqa: N803
    text_BLD: Tensor,  # noqa: N803
    noise_BCTHW: Tensor,  # noqa: N803
    t_B: Tensor,  # noqa: N803
) -> Tensor:
    """Mean squared error of the net's answer, one number per clip, shape (B,)."""
    answer: Tensor = unet(noised(scheduler, latents_BCTHW, noise_BCTHW, t_B), t_B, text_BLD).sample
    return (answer - target(scheduler, latents_BCTHW, noise_BCTHW, t_B)).square().mean(dim=(1, 2, 3, 4))


def draw_timesteps(n: int, n_timesteps: int, power: float, generator: torch.Generator) -> Tensor:
    """Timesteps t = n_timesteps u ** power with u uniform in [0, 1), shape (n,): uniform at power 1, noisier below."""
    return (n_timesteps * torch.rand(n, generator=generator) ** power).long().clamp(max=n_timesteps - 1)


def drop_captions(captions: Sequence[str], share: float, generator: torch.Generator) -> list[str]:
    """Empties each caption with probability `share`, so that the net also learns without (Ho & Salimans 2022)."""
    drawn = torch.rand(len(captions), generator=generator)
    return ["" if dropped else caption for caption, dropped in zip(captions, (drawn < share).tolist(), strict=True)]
