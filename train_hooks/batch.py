"""From the samples of a step to what the net is given: latents, stills behind them or instead of them, and the conditions.

Shapes: B clips, C latent channels, T frames, M stills, F = T + M, h and w in latents; L tokens of D channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from train_hooks.base import Base
from train_hooks.conditioning import (
    MotionBuckets,
    encode_image,
    encode_image_tokens,
    encode_text,
    encode_video,
    first_frame_latents,
    noisy_first_frame,
)
from train_hooks.feed import Sample, stack
from train_hooks.net import Conditions
from train_hooks.objectives import Noised, drop_captions
from train_hooks.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """What one step trains on."""

    clip_ids: list[str]
    latents_BCFhw: Tensor  # noqa: N815
    told: Conditions

    def loss(self, recipe: Recipe, draw: Noised, answer_BCFhw: Tensor) -> Tensor:  # noqa: N803
        """One number for each clip: L_video + alpha L_image (LaVie), each a mean over its pictures."""
        loss_BF = draw.loss(answer_BCFhw)
        n = loss_BF.shape[1] - self.told.images
        video_B = loss_BF[:, :n].mean(dim=1)
        return video_B + recipe.image_loss_weight * loss_BF[:, n:].mean(dim=1) if self.told.images else video_B


def shows_images(step: int, rank: int, world: int, share: float) -> bool:
    """Whether a rank trains on stills at a step: with a share of 1/8, one in eight (step, rank) pairs.

    With eight ranks it is always the same one, as in ModelScope's trainer; with fewer they take turns.
    """
    return share > 0 and (step * world + rank) % max(1, round(1 / share)) == 0


def make_batch(
    recipe: Recipe,
    base: Base,
    samples: Sequence[Sample],
    stills: Sequence[Sample],
    motion: MotionBuckets,
    draws: torch.Generator,
    stills_only: bool = False,
) -> Batch:
    """Encodes a step's samples. `stills`: M for each, clip by clip. `stills_only`: of each clip only its first frame, as a video of one."""
    if stills_only:
        samples = [replace(sample, video_CTHW=sample.video_CTHW[:, :1]) for sample in samples]
    video_BCTHW = stack(samples)
    latents_BCFhw = encode_video(base.vae, video_BCTHW)
    n_images = len(stills) // len(samples)
    if n_images:
        stills_BCMhw = encode_video(base.vae, stack(stills)).unflatten(0, (-1, n_images))[:, :, :, 0].transpose(1, 2)
        latents_BCFhw = torch.cat([latents_BCFhw, stills_BCMhw], dim=2)
    fps_B = torch.tensor([sample.fps for sample in samples], dtype=torch.float32)
    bucket_B = torch.tensor([motion.bucket(sample.motion) for sample in samples])
    if recipe.image_condition == "concatenate":
        told = _with_first_frame(recipe, base, video_BCTHW[:, :, 0], draws)
        told = replace(told, fps_B=fps_B, motion_bucket_B=bucket_B)
    else:
        captions = [sample.caption for sample in samples]
        text = encode_text(base, drop_captions(captions, recipe.caption_dropout, draws))
        if n_images:
            own = drop_captions([still.caption for still in stills], recipe.caption_dropout, draws)
            own_BMLD = encode_text(base, own).unflatten(0, (-1, n_images))
            frames = video_BCTHW.shape[2]
            text = torch.cat([text[:, None].expand(-1, frames, -1, -1), own_BMLD], dim=1)
        told = Conditions(text, fps_B, bucket_B, images=n_images)
        if recipe.image_condition == "attention":
            tokens_BLD = encode_image_tokens(base, video_BCTHW[:, :, 0])
            kept_B = torch.rand(len(samples), generator=draws) >= recipe.image_dropout
            told = replace(told, image_tokens_BLD=tokens_BLD * kept_B[:, None, None])
    return Batch([sample.clip_id for sample in samples], latents_BCFhw, told)


def _with_first_frame(recipe: Recipe, base: Base, first_BCHW: Tensor, draws: torch.Generator) -> Conditions:  # noqa: N803
    """SVD's image-to-video: CLIP's view of the first frame in the text's place, and the frame, with noise, behind every latent.

    With probability p each the one, the other or both are zero (SVD_Xtend's reading of the paper, after InstructPix2Pix).
    """
    noisy_BCHW, sigma_B = noisy_first_frame(first_BCHW, recipe.image_noise_log_mean, recipe.image_noise_log_std, draws)
    embedding_B1D = encode_image(base, first_BCHW)
    latents_BChw = first_frame_latents(base.vae, noisy_BCHW)
    p = recipe.image_dropout
    u_B = torch.rand(len(first_BCHW), generator=draws)
    embedding_B1D = embedding_B1D * (u_B >= 2 * p)[:, None, None]
    latents_BChw = latents_BChw * ((u_B < p) | (u_B >= 3 * p))[:, None, None, None]
    nothing_B = torch.zeros_like(sigma_B)
    return Conditions(embedding_B1D, nothing_B, nothing_B, latents_BChw, sigma_B)
