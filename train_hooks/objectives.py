"""What the net is shown, what it is asked for, and what an error costs.

| prediction | input | target | source |
|---|---|---|---|
| epsilon | x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps | eps | Ho et al. 2020 |
| v_prediction | the same | v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0 | Salimans & Ho 2022 |
| sample | the same | x_0 | Ho et al. 2020 |
| edm | c_in(sigma) (x_0 + sigma eps) | (x_0 - c_skip(sigma) x) / c_out(sigma) | Karras et al. 2022, table 1; constants of SVD, appendix D |

The discrete schedule's arithmetic is diffusers', so that training and sampling cannot disagree. In EDM, SVD has sigma_data = 1: then
c_skip = 1 / (sigma^2 + 1), c_out = -sigma / sqrt(sigma^2 + 1), c_in = 1 / sqrt(sigma^2 + 1), c_noise = ln(sigma) / 4, and the weight
(1 + sigma^2) / sigma^2 = 1 / c_out^2 of the denoiser's error makes it the plain error of the net's answer.

Shapes: B clips, C latent channels, T frames, h and w in latents; one noise level for each clip.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from train_hooks.recipe import Recipe
from train_hooks.rng import Rng

SIGNAL_SCALE_STEPS = 400  # VideoCrafter's ddpm3d.py: the scale falls linearly over this many timesteps


@dataclass(frozen=True)
class Noised:
    """One draw: what the net is given, what it should answer, and the weight of its squared error for each clip."""

    input_BCTHW: Tensor  # noqa: N815
    time_B: Tensor  # noqa: N815
    """The net's noise-level input: a timestep, or c_noise."""
    target_BCTHW: Tensor  # noqa: N815
    weight_B: Tensor  # noqa: N815
    level_B: Tensor  # noqa: N815
    """How much noise there is, from 0 to 1: t / n, or the quantile of ln(sigma)."""

    def loss(self, answer_BCTHW: Tensor) -> Tensor:
        """Weighted mean squared error, one number for each clip and frame, shape (B, T)."""
        return self.weight_B[:, None] * (answer_BCTHW - self.target_BCTHW).square().mean(dim=(1, 3, 4))


def schedule(recipe: Recipe) -> Any:
    """The scheduler of a discrete recipe. With `zero_terminal_snr` its alphas_cumprod are rescaled, not its betas alone."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=recipe.beta_start,
        beta_end=recipe.beta_end,
        beta_schedule=recipe.schedule,
        rescale_betas_zero_snr=recipe.zero_terminal_snr,
        prediction_type="epsilon" if recipe.prediction == "edm" else recipe.prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        # Sampling starts at the last timestep, which training reaches too (Lin et al. 2023, section 3.3).
        timestep_spacing="trailing",
    )


def noised(recipe: Recipe, scheduler: Any, x0_BCTHW: Tensor, noise_BCTHW: Tensor, u_B: Tensor) -> Noised:
    """The draw for noise levels u in [0, 1): timestep n u ** power, or ln(sigma) at the quantile u of its normal distribution."""
    if recipe.prediction == "edm":
        return edm(x0_BCTHW, noise_BCTHW, log_sigma(u_B, recipe.sigma_log_mean, recipe.sigma_log_std).exp(), u_B)
    n = scheduler.config.num_train_timesteps
    t_B = (n * u_B**recipe.timestep_power).long().clamp(max=n - 1)
    signal_BCTHW = x0_BCTHW * _column(signal_scale(t_B, recipe.signal_scale))
    x_BCTHW = scheduler.add_noise(signal_BCTHW, noise_BCTHW, t_B)
    velocity_BCTHW = scheduler.get_velocity(signal_BCTHW, noise_BCTHW, t_B)
    target = {"epsilon": noise_BCTHW, "v_prediction": velocity_BCTHW, "sample": signal_BCTHW}[recipe.prediction]
    weight_B = torch.ones_like(u_B)
    if recipe.min_snr_gamma:
        weight_B = min_snr_weight(snr(scheduler, t_B), recipe.min_snr_gamma, recipe.prediction).to(u_B.dtype)
    return Noised(x_BCTHW, t_B, target, weight_B, t_B / n)


def edm(x0_BCTHW: Tensor, noise_BCTHW: Tensor, sigma_B: Tensor, level_B: Tensor) -> Noised:
    """EDM's preconditioning: the net F sees c_in x and should answer (x_0 - c_skip x) / c_out."""
    c_skip, c_out, c_in, c_noise_B = preconditioning(sigma_B)
    x_BCTHW = x0_BCTHW + _column(sigma_B) * noise_BCTHW
    target_BCTHW = (x0_BCTHW - _column(c_skip) * x_BCTHW) / _column(c_out)
    weight_B = (1 + sigma_B**2) / sigma_B**2 * c_out**2  # 1: the denoiser's weight on the net's own answer
    return Noised(_column(c_in) * x_BCTHW, c_noise_B, target_BCTHW, weight_B, level_B)


def preconditioning(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in and c_noise for noise of standard deviation sigma on data of deviation 1."""
    root = torch.sqrt(sigma**2 + 1)
    return 1 / root**2, -sigma / root, 1 / root, torch.log(sigma) / 4


def log_sigma(u: Tensor, mean: float, std: float) -> Tensor:
    """ln(sigma) at the quantile u of a normal distribution (P_mean and P_std in the paper)."""
    return mean + std * math.sqrt(2) * torch.erfinv((2 * u - 1).clamp(-1 + 1e-6, 1 - 1e-6))


def signal_scale(t_B: Tensor, least: float) -> Tensor:
    """VideoCrafter's factor on x_0: from 1 at t = 0 linearly down to `least` at t = 400, and `least` from there on. 1 is off."""
    return 1 + (least - 1) * (t_B / SIGNAL_SCALE_STEPS).clamp(max=1)


def snr(scheduler: Any, t_B: Tensor) -> Tensor:
    """Signal to noise, abar_t / (1 - abar_t)."""
    abar_B: Tensor = scheduler.alphas_cumprod.to(t_B.device)[t_B]
    return abar_B / (1 - abar_B)


def min_snr_weight(snr_B: Tensor, gamma: float, prediction: str) -> Tensor:
    """The weight under which the error of x_0 counts min(snr, gamma) (Hang et al. 2023)."""
    clipped_B = snr_B.clamp(max=gamma)
    if prediction == "epsilon":
        return clipped_B / snr_B
    return clipped_B / (snr_B + 1) if prediction == "v_prediction" else clipped_B


def draw_noise(shape: Sequence[int], offset: float, rng: Rng) -> Tensor:
    """Gaussian noise for latents of a shape (B, C, F, h, w), with `offset` times one more number for each clip and channel.

    The same for all frames of a clip: an offset drawn for each frame teaches flicker.
    """
    noise_BCFhw = rng.normal(*shape[1:])
    if offset:
        noise_BCFhw = noise_BCFhw + offset * rng.normal(shape[1], 1, 1, 1)
    return noise_BCFhw


def draw_levels(rng: Rng, strata: int = 0) -> Tensor:
    """Numbers u_B in [0, 1), uniform; with `strata`, the size of the whole batch, one in each of as many equal parts (CogVideoX)."""
    u_B = rng.uniform()
    return (torch.tensor(rng.places) + u_B) / strata if strata else u_B


def drop_captions(captions: Sequence[str], share: float, rng: Rng) -> list[str]:
    """Empties each caption with probability `share`, so that the net also learns without (Ho & Salimans 2022). As many for each clip."""
    drawn = rng.uniform(len(captions) // len(rng.places)).flatten()
    return ["" if dropped else caption for caption, dropped in zip(captions, (drawn < share).tolist(), strict=True)]


def _column(value_B: Tensor) -> Tensor:
    return value_B[:, None, None, None, None]
