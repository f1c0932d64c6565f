"""A small base model of the Stable Diffusion 2 architecture, filled at random: UNet, VAE, CLIP text encoder, CLIP's tokenizer, scheduler.

It stands where the weights of Stable Diffusion stand in the other recipes. The tokenizer is the real one (its vocabulary ships inside
open_clip); everything else starts at random. Because a random VAE decodes to noise, `fit_vae` fits it to the shards' own frames; after that
it is frozen, as is the text encoder.

Shapes: N images, B clips, T frames, C channels, H and W in pixels or latents. Pixels are -1..1.
"""

import gzip
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from train_hooks.errors import TrainError
from train_hooks.recipe import Recipe

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
N_TOKENS = 77  # CLIP's context length
NORM_GROUPS = 8  # SD: 32; ours, because the narrowest level has 16 channels
KL_WEIGHT = 1e-6  # the KL weight of SD's autoencoder (latent-diffusion, autoencoder_kl_32x32x4.yaml)


@dataclass
class Base:
    """The parts of an image diffusion model, as diffusers objects."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any


def build_base(recipe: Recipe) -> Base:
    """Builds the base with random weights; the same recipe and seed give the same weights."""
    torch.manual_seed(recipe.seed)
    levels = len(recipe.unet_channels)
    unet = UNet2DConditionModel(
        sample_size=(recipe.height_px // recipe.latent_factor, recipe.width_px // recipe.latent_factor),
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        block_out_channels=recipe.unet_channels,
        layers_per_block=recipe.unet_layers_per_block,
        norm_num_groups=NORM_GROUPS,
        cross_attention_dim=recipe.text_width,
        # The name is historical: in UNet2DConditionModel these are numbers of heads.
        attention_head_dim=tuple(c // recipe.head_dim for c in recipe.unet_channels),
        use_linear_projection=True,
    )
    vae_levels = len(recipe.vae_channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * vae_levels,
        up_block_types=("UpDecoderBlock2D",) * vae_levels,
        block_out_channels=recipe.vae_channels,
        layers_per_block=1,
        latent_channels=recipe.latent_channels,
        norm_num_groups=NORM_GROUPS,
        sample_size=max(recipe.width_px, recipe.height_px),
    )
    tokenizer = clip_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.text_width,
            intermediate_size=4 * recipe.text_width,
            num_hidden_layers=recipe.text_layers,
            num_attention_heads=recipe.text_width // recipe.head_dim,
            max_position_embeddings=N_TOKENS,
            hidden_act="gelu",  # as SD 2's OpenCLIP ViT-H
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    scheduler = DDIMScheduler(
        # Stable Diffusion's schedule.
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=recipe.prediction,
        # Starts sampling at the last timestep, where training reaches too (Lin et al. 2023, arXiv 2305.08891, section 3.3).
        timestep_spacing="trailing",
    )
    return Base(unet, vae.eval(), text_encoder.eval().requires_grad_(False), tokenizer, scheduler)


def clip_tokenizer() -> Any:  # noqa: ANN401
    """CLIP's tokenizer, made from the BPE vocabulary file that open_clip carries. Raises TrainError when open_clip is not installed."""
    found = importlib.util.find_spec("open_clip")  # found, not imported: the import takes seconds
    if found is None or found.origin is None:
        raise TrainError("the tokenizer's vocabulary comes with open_clip, which is not installed: pip install open_clip_torch")
    packed = Path(found.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    # Line 0 is a header; CLIP has 49,408 tokens: 256 bytes, the same with </w>, the merges, and two special ones.
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")[1 : 49408 - 2 * 256 - 2 + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    # CLIP numbers the 256 byte symbols in code point order.
    symbols = sorted(ByteLevel.alphabet())
    tokens = [*symbols, *(s + "</w>" for s in symbols), *(left + right for left, right in merges), BOS, EOS]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=N_TOKENS)


@torch.no_grad()
def encode_text(base: Base, captions: list[str]) -> Tensor:
    """Text states (B, 77, text_width) of the frozen encoder; captions beyond 77 tokens are cut, as CLIP does."""
    tokens = base.tokenizer(
        captions, padding="max_length", max_length=N_TOKENS, truncation=True, return_tensors="pt"
    )
    states: Tensor = base.text_encoder(tokens.input_ids)[0]
    return states


@torch.no_grad()
def encode_video(vae: Any, video_BCTHW: Tensor) -> Tensor:  # noqa: ANN401, N803
    """Latents (B, C, T, h, w) at unit scale: the mean of the VAE's posterior times its scaling factor, frame by frame."""
    frames_NCHW = video_BCTHW.transpose(1, 2).flatten(0, 1)
    latents_NCHW: Tensor = vae.encode(frames_NCHW).latent_dist.mean * vae.config.scaling_factor
    return latents_NCHW.unflatten(0, (video_BCTHW.shape[0], -1)).transpose(1, 2)


def fit_vae(vae: Any, frames: Iterator[Tensor], steps: int, lr: float) -> tuple[float, float]:  # noqa: ANN401
    """Fits the VAE to batches of frames (N, 3, H, W) by L1 and a small KL term, sets its scaling factor, and freezes it.

    The scaling factor is 1 / std of the latents, which is how Stable Diffusion's 0.18215 came about.

    Returns the mean absolute error of the first and of the last batch, in units of -1..1.
    """
    vae.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=lr, weight_decay=0.0)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(steps, 2), pct_start=0.1)
    errors: list[float] = []
    for _ in range(steps):
        frames_NCHW = next(frames)
        posterior = vae.encode(frames_NCHW).latent_dist
        error = (vae.decode(posterior.sample()).sample - frames_NCHW).abs().mean()
        (error + KL_WEIGHT * posterior.kl().mean()).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        plan.step()
        errors.append(error.item())
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        latents_NCHW = vae.encode(next(frames)).latent_dist.mean
    vae.register_to_config(scaling_factor=1.0 / max(latents_NCHW.std().item(), 1e-6))
    return (errors[0], errors[-1]) if errors else (float("nan"), float("nan"))
