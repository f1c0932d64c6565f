"""From loaded samples to what the net is given: latents, stills behind them or instead of them, and the conditions.

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
    encode_moments,
    encode_text,
    first_frame_latents,
    noisy_first_frame,
)
from train_hooks.feed import Sample, as_float, stack
from train_hooks.latent_cache import LatentCache
from train_hooks.net import Conditions
from train_hooks.objectives import Noised, drop_captions
from train_hooks.recipe import Recipe
from train_hooks.rng import Rng


@dataclass(frozen=True)
class Batch:
    """What goes through the net at once."""

    clip_ids: list[str]
    latents_BCFhw: Tensor  # noqa: N815
    conditions: Conditions

    def loss(self, recipe: Recipe, draw: Noised, answer_BCFhw: Tensor) -> Tensor:
        """One number for each clip: L_video + alpha L_image (LaVie), each a mean over its pictures."""
        loss_BF = draw.loss(answer_BCFhw)
        n = loss_BF.shape[1] - self.conditions.images
        video_B = loss_BF[:, :n].mean(dim=1)
        return video_B + recipe.image_loss_weight * loss_BF[:, n:].mean(dim=1) if self.conditions.images else video_B


class Encoder:
    """The frozen parts of a base, with the clips' motion buckets and the text states that were made beforehand: samples -> batches."""

    def __init__(self, base: Base, motion: MotionBuckets, texts: LatentCache | None = None) -> None:
        self.base, self.motion, self.texts = base, motion, texts

    @property
    def device(self) -> torch.device:
        """Where the frozen parts are and the batches go."""
        return next(self.base.vae.parameters()).device  # type: ignore[no-any-return]

    def batch(self, recipe: Recipe, samples: Sequence[Sample], stills: Sequence[Sample], rng: Rng) -> Batch:
        """Encodes samples. `stills`: M for each, clip by clip; each is a sample of one frame."""
        latents_BCFhw = self.latents(recipe, samples, rng)
        n_images = len(stills) // len(samples)
        frames = latents_BCFhw.shape[2]
        if n_images:
            stills_BMCThw = self.latents(recipe, stills, rng, n_images).unflatten(0, (-1, n_images))
            latents_BCFhw = torch.cat([latents_BCFhw, stills_BMCThw[:, :, :, 0].transpose(1, 2)], dim=2)
        fps_B = torch.tensor([sample.fps for sample in samples], dtype=torch.float32, device=self.device)
        bucket_B = torch.tensor([self.motion.bucket(sample.motion) for sample in samples], device=self.device)
        if recipe.image_condition == "concatenate":
            conditions = replace(self._first_frame(recipe, samples, rng), fps_B=fps_B, motion_bucket_B=bucket_B)
        else:
            captions = [sample.caption for sample in samples]
            text = self.text(drop_captions(captions, recipe.caption_dropout, rng))
            if n_images:
                own = drop_captions([still.caption for still in stills], recipe.caption_dropout, rng)
                own_BMLD = self.text(own).unflatten(0, (-1, n_images))
                text = torch.cat([text[:, None].expand(-1, frames, -1, -1), own_BMLD], dim=1)
            conditions = Conditions(text, fps_B, bucket_B, images=n_images)
            if recipe.image_condition == "attention":
                tokens_BLD = encode_image_tokens(self.base, self._first_frames(samples))
                kept_B = (rng.uniform() >= recipe.image_dropout).to(self.device)
                conditions = replace(conditions, image_tokens_BLD=tokens_BLD * kept_B[:, None, None])
        return Batch([sample.clip_id for sample in samples], latents_BCFhw, conditions)

    def latents(self, recipe: Recipe, samples: Sequence[Sample], rng: Rng, each: int = 1) -> Tensor:
        """Latents at unit scale, from the cache or the VAE; `each`: samples for each place of `rng`."""
        vae = self.base.vae
        if samples[0].latents is not None:
            moments = [sample.latents for sample in samples if sample.latents is not None]
            mean = torch.stack([m.mean_cThw for m in moments]).to(self.device).float()
            logvars = [m.logvar_cThw for m in moments if m.logvar_cThw is not None]
            logvar = torch.stack(logvars).to(self.device).float() if logvars else None
        else:
            pixels = torch.stack([sample.pixels_CTHW for sample in samples if sample.pixels_CTHW is not None])
            mean, logvar = encode_moments(vae, as_float(pixels.to(self.device, non_blocking=True)))
        if recipe.sample_posterior and logvar is not None:
            noise = rng.normal(each, *mean.shape[1:]).flatten(0, 1).to(self.device)
            mean = mean + torch.exp(0.5 * logvar) * noise
        return mean * float(vae.config.scaling_factor)

    def text(self, captions: Sequence[str]) -> Tensor:
        """Text states (B, L, D): those made beforehand where all captions have them."""
        if self.texts is not None and self.texts.has_text:
            found = [self.texts.text(caption) for caption in captions]
            known = [states for states in found if states is not None]
            if len(known) == len(captions):
                return torch.stack(known).to(self.device).float()
        return encode_text(self.base, captions)

    def _first_frames(self, samples: Sequence[Sample]) -> Tensor:
        return stack(samples)[:, :, 0].to(self.device)

    def _first_frame(self, recipe: Recipe, samples: Sequence[Sample], rng: Rng) -> Conditions:
        """SVD's image-to-video: CLIP's view of the first frame in the text's place, and the frame, with noise, behind every latent.

        With probability p each the one, the other or both are zero (SVD_Xtend's reading of the paper, after InstructPix2Pix).
        """
        first_BCHW = self._first_frames(samples)
        noisy_BCHW, sigma_B = noisy_first_frame(
            first_BCHW, recipe.image_noise_log_mean, recipe.image_noise_log_std, rng
        )
        embedding_B1D = encode_image(self.base, first_BCHW)
        latents_BChw = first_frame_latents(self.base.vae, noisy_BCHW)
        p = recipe.image_dropout
        u_B = rng.uniform().to(self.device)
        embedding_B1D = embedding_B1D * (u_B >= 2 * p)[:, None, None]
        latents_BChw = latents_BChw * ((u_B < p) | (u_B >= 3 * p))[:, None, None, None]
        nothing_B = torch.zeros_like(sigma_B)
        return Conditions(embedding_B1D, nothing_B, nothing_B, latents_BChw, sigma_B)


def shows_images(step: int, number: int, count: int, share: float) -> bool:
    """Whether micro-batch `number` of `count` shows stills: with a share of 1/8, one in eight (step, number) pairs.

    With eight ranks of one micro-batch each it is always the same rank, as in ModelScope's trainer; with fewer they take turns.
    """
    return share > 0 and (step * count + number) % max(1, round(1 / share)) == 0
