"""Sampling from a finished folder: text, a first frame, or a video to resample, to frames.

One loop for every architecture, over diffusers' schedulers: DDIM, DPM-Solver++ or Euler on EDM's noise levels. Guidance may rise over the frames
(SVD: from 1 to 3, linearly). A video to start from is noised to `strength` and denoised from there: ZeroScope XL's second pass.

Shapes: B = 1 clip, C channels, T frames, H and W in pixels, h and w in latents. Pixels are 0..1 where they leave this file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from train_hooks.base import Base, latent_factor, load_base
from train_hooks.conditioning import (
    BUCKETS,
    DEFAULT_BUCKET,
    encode_image,
    encode_image_tokens,
    encode_text,
    encode_video,
    first_frame_latents,
)
from train_hooks.errors import NotFoundError, RecipeError, TrainError
from train_hooks.net import Conditions, Net
from train_hooks.objectives import schedule, signal_scale
from train_hooks.out_folder import RECORD
from train_hooks.pictures import check_ending, read_picture, read_video, write_video
from train_hooks.recipe import Recipe
from train_hooks.recipe_files import check_value
from train_hooks.rng import Rng

SIGMA_MIN, SIGMA_MAX = 0.002, 700.0  # SVD, appendix D
_SAMPLE = -3  # the step of sampling's draws: none of training
FIRST_FRAME_NOISE = 0.02  # generative-models' default of cond_aug


@dataclass(frozen=True)
class Ask:
    """Prompt, seed and conditions of one sample."""

    prompt: str = ""
    seed: int = 0
    motion_bucket: int = DEFAULT_BUCKET
    first_frame_CHW: Tensor | None = None  # noqa: N815
    """For image-to-video: pixels in -1..1."""
    video_CTHW: Tensor | None = None  # noqa: N815
    """For a second pass: pixels in -1..1, at the size wanted."""
    strength: float = 0.7
    """How much of the noise a second pass starts from. ZeroScope XL's card: 0.66 to 0.85."""


def open_folder(folder: Path) -> tuple[Recipe, Base, Net]:
    """A finished training, ready to sample, with the recipe of the sampled stage.

    Raises TrainError when the folder is not a finished training or cannot be read.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        recipe = recipe_of(record["recipe"]).shown()
    except (OSError, ValueError, KeyError, TypeError):
        hint = "a folder of another kind is sampled with its own pipeline of diffusers"
        raise NotFoundError(
            f"{folder} is not a finished training: it has no {RECORD} that can be read; {hint}"
        ) from None
    base = load_base(folder, recipe)
    return recipe, base, Net(base.unet)


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """The recipe in a record: JSON knows no tuples."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Recipe(**plain)


@torch.no_grad()
def sample(recipe: Recipe, base: Base, net: Net, ask: Ask) -> Tensor:
    """Frames (T, 3, H, W), 0..1, of the recipe's size and number.

    Raises TrainError when the recipe needs a first frame and `ask` has none.
    """
    device = next(base.vae.parameters()).device
    rng = Rng(ask.seed, _SAMPLE, [0])
    conditions, unconditional = _conditions(recipe, base, ask, rng, device)
    scheduler = sampler(recipe)
    scheduler.set_timesteps(recipe.sample_steps, device=device)
    factor = latent_factor(base.vae)
    size = (1, base.vae.config.latent_channels, recipe.frames, recipe.height_px // factor, recipe.width_px // factor)
    noise_BCThw = rng.normal(*size[1:]).to(device)
    times = scheduler.timesteps
    if ask.video_CTHW is None:
        latents_BCThw = noise_BCThw * scheduler.init_noise_sigma
    else:
        times = times[len(times) - max(1, round(len(times) * ask.strength)) :]
        clean_BCThw = encode_video(base.vae, ask.video_CTHW[None].to(device))
        latents_BCThw = scheduler.add_noise(clean_BCThw, noise_BCThw, times[:1])
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(len(scheduler.timesteps) - len(times))
    net.unet.eval()
    latents_BCThw = denoise(recipe, net, scheduler, times, latents_BCThw, conditions, unconditional)
    return decode(base.vae, latents_BCThw)[0].cpu()


def denoise(
    recipe: Recipe,
    net: Net,
    scheduler: Any,
    times: Tensor,
    latents_BCThw: Tensor,
    conditions: Conditions,
    unconditional: Conditions,
) -> Tensor:
    """The scheduler's steps over the net's answers, with classifier-free guidance that rises over the frames."""
    first = recipe.first_frame_guidance or recipe.guidance
    guidance_T = torch.linspace(first, recipe.guidance, latents_BCThw.shape[2])[:, None, None].to(latents_BCThw.device)
    guided = max(first, recipe.guidance) > 1
    for i, t in enumerate(times):
        input_BCThw = scheduler.scale_model_input(latents_BCThw, t)
        time_B = t.expand(len(latents_BCThw))
        answer = net(input_BCThw, time_B, conditions)
        if guided:
            without = net(input_BCThw, time_B, unconditional)
            answer = without + guidance_T * (answer - without)
        step = scheduler.step(answer, t, latents_BCThw)
        latents_BCThw = step.prev_sample
        if recipe.signal_scale != 1.0:
            after = times[i + 1 : i + 2] if i + 1 < len(times) else torch.zeros_like(times[:1])
            latents_BCThw = latents_BCThw + _signal_step(recipe, scheduler, step.pred_original_sample, t[None], after)
    return latents_BCThw


def _signal_step(recipe: Recipe, scheduler: Any, signal_BCThw: Tensor, t: Tensor, after: Tensor) -> Tensor:
    """What the clean latents grow by when their scale rises from that of t to that of the next timestep (VideoCrafter's DDIM)."""
    ratio = signal_scale(after, recipe.signal_scale) / signal_scale(t, recipe.signal_scale)
    abar = scheduler.alphas_cumprod[int(after)] if int(after) > 0 else scheduler.final_alpha_cumprod
    grown: Tensor = abar.sqrt() * signal_BCThw * (ratio - 1)
    return grown


def sampler(recipe: Recipe) -> Any:
    """The scheduler that a recipe samples with, on the schedule that it was trained with.

    diffusers' DDIM is exact where the number of steps divides 1000; else it steps to other timesteps than it then asks the net about.
    """
    if recipe.prediction == "edm":
        return EulerDiscreteScheduler(
            prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True, sigma_min=SIGMA_MIN,
            sigma_max=SIGMA_MAX, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1,
            timestep_spacing="leading",
        )  # fmt: skip
    trained = schedule(recipe)
    if recipe.sampler == "dpm++":
        return DPMSolverMultistepScheduler.from_config(trained.config, algorithm_type="dpmsolver++", solver_order=2)
    return EulerDiscreteScheduler.from_config(trained.config) if recipe.sampler == "euler" else trained


def _conditions(recipe: Recipe, base: Base, ask: Ask, rng: Rng, device: torch.device) -> tuple[Conditions, Conditions]:
    """The conditions, and the unconditional ones for guidance."""
    fps_B = torch.tensor([recipe.fps], dtype=torch.float32, device=device)
    bucket_B = torch.tensor([ask.motion_bucket], device=device)
    if recipe.image_condition != "none" and ask.first_frame_CHW is None:
        raise TrainError("this model makes a video from its first frame: give one with --image")
    if recipe.image_condition != "concatenate":
        text = encode_text(base, [ask.prompt, ""])
        conditions, unconditional = Conditions(text[:1], fps_B, bucket_B), Conditions(text[1:], fps_B, bucket_B)
        if recipe.image_condition == "attention" and ask.first_frame_CHW is not None:
            tokens_BLD = encode_image_tokens(base, ask.first_frame_CHW[None].to(device))
            conditions = replace(conditions, image_tokens_BLD=tokens_BLD)
            unconditional = replace(unconditional, image_tokens_BLD=torch.zeros_like(tokens_BLD))
        return conditions, unconditional
    assert ask.first_frame_CHW is not None
    first_BCHW = ask.first_frame_CHW[None].to(device)
    noise = rng.normal(*first_BCHW.shape[1:]).to(device)
    latents_BChw = first_frame_latents(base.vae, first_BCHW + FIRST_FRAME_NOISE * noise)
    embedding = encode_image(base, first_BCHW)
    noise_B = torch.tensor([FIRST_FRAME_NOISE], device=device)
    conditions = Conditions(embedding, fps_B, bucket_B, latents_BChw, noise_B)
    nothing = replace(conditions, text=torch.zeros_like(embedding), first_frame_BChw=torch.zeros_like(latents_BChw))
    return conditions, nothing


@torch.no_grad()
def decode(vae: Any, latents_BCThw: Tensor) -> Tensor:
    """Pixels (B, T, 3, H, W), 0..1."""
    frames_NChw = latents_BCThw.transpose(1, 2).flatten(0, 1) / vae.config.scaling_factor
    temporal = {"num_frames": latents_BCThw.shape[2]} if hasattr(vae.decoder, "time_conv_out") else {}
    pixels_NCHW: Tensor = vae.decode(frames_NChw, **temporal).sample
    return (pixels_NCHW / 2 + 0.5).clamp(0, 1).reshape(*latents_BCThw.shape[::2][:2], *pixels_NCHW.shape[1:])


def sample_to(
    folder: Path,
    out: Path,
    changes: Mapping[str, Any],
    prompt: str = "",
    seed: int = 0,
    motion_bucket: int = DEFAULT_BUCKET,
    image: Path | None = None,
    video: Path | None = None,
    strength: float = 0.7,
) -> None:
    """Samples from a finished folder into a file; `changes` are values of its recipe.

    Raises RecipeError for a value that does not fit, TrainError for what cannot be read or written.
    """
    if not 0 < strength <= 1:
        raise RecipeError(f"strength must be above 0 and at most 1, got {strength:g}")
    if not 0 <= motion_bucket < BUCKETS:
        raise RecipeError(f"the motion bucket must be 0 to {BUCKETS - 1}, got {motion_bucket}")
    check_ending(out)
    if not out.parent.is_dir():
        raise TrainError(f"{out} cannot be written: there is no folder {out.parent}")
    recipe, base, net = open_folder(folder)
    for key, value in changes.items():
        check_value(key, value)
    recipe = replace(recipe, **changes)
    torch.set_num_threads(recipe.threads)
    step_px = latent_factor(base.vae) * 2 ** (len(net.unet.config.block_out_channels) - 1)
    if recipe.width_px % step_px or recipe.height_px % step_px:
        raise RecipeError(
            f"width and height must be multiples of {step_px}, got {recipe.width_px} x {recipe.height_px}"
        )
    size = (recipe.width_px, recipe.height_px)
    ask = Ask(
        prompt,
        seed,
        motion_bucket,
        None if image is None else read_picture(image, *size),
        None if video is None else read_video(video, recipe.frames, *size),
        strength,
    )
    frames_TCHW = sample(recipe, base, net, ask)
    try:
        write_video(frames_TCHW, recipe.fps, out)
    except OSError as error:
        raise TrainError(f"{out} cannot be written: {error.strerror or error}") from None
