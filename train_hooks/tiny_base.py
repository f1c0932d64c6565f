"""A small base model of the Stable Diffusion 2 architecture, filled at random.

It stands where the weights of Stable Diffusion stand in the other recipes. The tokenizer is the real one (its
vocabulary ships inside open_clip), the VAE starts as `tiny_vae` says; everything else starts at random. VAE and text
encoder are frozen while the UNet trains.

Shapes: B clips, L tokens, D width of a text state.
"""

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from train_hooks import tiny_vae
from train_hooks.errors import TrainError
from train_hooks.recipe import Recipe

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
N_TOKENS = 77  # CLIP's context length
NORM_GROUPS = 8  # of the UNet. SD: 32; ours


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
        norm_num_groups=tiny_vae.NORM_GROUPS,
        sample_size=max(recipe.width_px, recipe.height_px),
    )
    tiny_vae.start_as_pyramid(vae)
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
    # Random states differ more by position and padding than by words, which a short training never gets past. Without
    # both, every state is a mixture of the caption's words, and those of the empty caption are zero. Ours.
    embeddings = text_encoder.embeddings
    with torch.no_grad():
        embeddings.position_embedding.weight.zero_()
        embeddings.token_embedding.weight[[tokenizer.bos_token_id, tokenizer.eos_token_id]] = 0.0
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
        # Sampling starts at the last timestep, which training reaches too (Lin et al. 2023, section 3.3).
        timestep_spacing="trailing",
    )
    return Base(unet, vae.eval(), text_encoder.eval().requires_grad_(False), tokenizer, scheduler)


def clip_tokenizer() -> Any:
    """CLIP's tokenizer, made from the BPE vocabulary file that open_clip carries.

    Raises TrainError when open_clip is not installed.
    """
    found = importlib.util.find_spec("open_clip")  # found, not imported: the import takes seconds
    if found is None or found.origin is None:
        raise TrainError(
            "the tokenizer's vocabulary comes with open_clip, which is not installed: pip install open_clip_torch"
        )
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
    tokens = base.tokenizer(captions, padding="max_length", max_length=N_TOKENS, truncation=True, return_tensors="pt")
    states: Tensor = base.text_encoder(tokens.input_ids)[0]
    return states
