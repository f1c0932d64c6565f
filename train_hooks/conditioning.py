"""Conditions of the net besides the noise level: text, frame rate, motion, a first frame and its noise level.

SVD's convention to encode the frame rate as fps - 1 is applied here and nowhere else; diffusers' pipeline subtracts by itself.

It is unpublished how SVD's motion score becomes the motion bucket 0..255 (generative-models issues 148, 196, 279 and 354). Ours: the share
of the trained clips that move less, times 255. The quantiles that this takes are written into the checkpoint, so that a bucket can be read back.

Shapes: B clips, C channels, H and W in pixels, h and w in latents; L tokens of D channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train_hooks.rng import Rng

BUCKETS = 256
KNOTS = 33
"""Quantiles that are kept of the motion scores. Ours."""
DEFAULT_BUCKET = 127
"""For a clip without a motion score: the default of diffusers' pipeline."""
N_TOKENS = 77  # CLIP's context length
FRAMES_AT_ONCE = 64  # of the VAE, so that a large batch does not need much memory; ours


@dataclass(frozen=True)
class MotionBuckets:
    """Quantiles of the trained clips' motion scores, evenly spaced from the least to the largest."""

    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, scores: Sequence[float | None]) -> "MotionBuckets":
        """The mapping for these clips; those without a score do not count."""
        known = [score for score in scores if score is not None]
        return cls(tuple(float(q) for q in np.quantile(known, np.linspace(0, 1, KNOTS))) if known else ())

    def bucket(self, score: float | None) -> int:
        """0 for the least motion, 255 for the most; `DEFAULT_BUCKET` where nothing is known."""
        if score is None or not self.quantiles:
            return DEFAULT_BUCKET
        ranks = np.linspace(0, 1, len(self.quantiles))
        if self.quantiles[0] == self.quantiles[-1]:
            return DEFAULT_BUCKET
        return round((BUCKETS - 1) * float(np.interp(score, self.quantiles, ranks)))

    def score(self, bucket: int) -> float | None:
        """The motion score in the middle of a bucket: what to ask a sampler for."""
        if not self.quantiles:
            return None
        return float(np.interp(bucket / (BUCKETS - 1), np.linspace(0, 1, len(self.quantiles)), self.quantiles))


def added_time_ids(fps_B: Tensor, bucket_B: Tensor, noise_B: Tensor | None) -> Tensor:
    """SVD's micro-conditions (B, 2 or 3): fps - 1, motion bucket, and with a first frame the standard deviation of its noise."""
    parts = [fps_B - 1, bucket_B.to(fps_B.dtype)]
    return torch.stack(parts if noise_B is None else [*parts, noise_B], dim=1)


def noisy_first_frame(
    frames_BCHW: Tensor,
    log_mean: float,
    log_std: float,
    rng: Rng,
) -> tuple[Tensor, Tensor]:
    """First frames in -1..1 with Gaussian noise of ln(sigma) ~ N(log_mean, log_std^2), and sigma (B,) (SVD, appendix D)."""
    sigma_B = torch.exp(log_mean + log_std * rng.normal()).to(frames_BCHW.device)
    noise = rng.normal(*frames_BCHW.shape[1:]).to(frames_BCHW.device)
    return frames_BCHW + sigma_B[:, None, None, None] * noise, sigma_B


@torch.no_grad()
def encode_text(base: Any, captions: Sequence[str]) -> Tensor:
    """Text states (B, 77, D) of the frozen encoder; captions beyond 77 tokens are cut, as CLIP does."""
    tokens = base.tokenizer(
        list(captions), padding="max_length", max_length=N_TOKENS, truncation=True, return_tensors="pt"
    )
    states: Tensor = base.text_encoder(tokens.input_ids.to(base.text_encoder.device))[0]
    return states


@torch.no_grad()
def encode_image(base: Any, frames_BCHW: Tensor) -> Tensor:
    """CLIP's embedding of pictures in -1..1, (B, 1, D)."""
    embedding: Tensor = _seen(base, frames_BCHW).image_embeds
    return embedding[:, None]


@torch.no_grad()
def encode_image_tokens(base: Any, frames_BCHW: Tensor) -> Tensor:
    """All of CLIP's tokens of pictures in -1..1, (B, 1 + patches, D)."""
    tokens: Tensor = _seen(base, frames_BCHW).last_hidden_state
    return tokens


def _seen(base: Any, frames_BCHW: Tensor) -> Any:
    """CLIP on pictures as StableVideoDiffusionPipeline shows them to it: antialiased, no crop."""
    size = base.image_encoder.config.image_size
    small = torch.nn.functional.interpolate(frames_BCHW, (size, size), mode="bicubic", antialias=True)
    mean, std = (
        torch.tensor(getattr(base.feature_extractor, key), device=small.device)[:, None, None]
        for key in ("image_mean", "image_std")
    )
    return base.image_encoder(((small + 1) / 2 - mean) / std)


@torch.no_grad()
def encode_video(vae: Any, video_BCTHW: Tensor) -> Tensor:
    """Latents (B, C, T, h, w) at unit scale, frame by frame: the posterior's mean times the scaling factor."""
    return encode_moments(vae, video_BCTHW)[0] * float(vae.config.scaling_factor)


@torch.no_grad()
def encode_moments(vae: Any, video_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the posterior of every frame, not scaled, each (B, C, T, h, w)."""
    frames_NCHW = video_BCTHW.transpose(1, 2).flatten(0, 1)
    posteriors = [vae.encode(part).latent_dist for part in frames_NCHW.split(FRAMES_AT_ONCE)]
    mean, logvar = (
        torch.cat([getattr(p, what) for p in posteriors]).unflatten(0, (len(video_BCTHW), -1)).transpose(1, 2)
        for what in ("mean", "logvar")
    )
    return mean, logvar


@torch.no_grad()
def first_frame_latents(vae: Any, frames_NCHW: Tensor) -> Tensor:
    """The posterior's mean for pictures, not scaled: so does SVD concatenate its first frame."""
    mean: Tensor = vae.encode(frames_NCHW).latent_dist.mean
    return mean
