"""A small base model of Stable Diffusion's architecture, filled at random: 1.x or 2.x, and SVD's image encoder where the recipe needs one.

It replaces the weights of Stable Diffusion of the other recipes. The tokenizer is the real one (its
vocabulary ships inside open_clip), the VAE starts as `tiny_vae` says; everything else starts at random.
"""

import gzip
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from train_hooks import tiny_vae
from train_hooks.base import PARTS, Base
from train_hooks.conditioning import N_TOKENS
from train_hooks.errors import TrainError
from train_hooks.out_folder import BASE
from train_hooks.recipe import Recipe

_MADE_OF = (
    "seed", "family", "architecture", "image_condition", "frames", "fps", "width_px", "height_px", "vae_channels", "latent_channels",
    "vae_fit_steps", "vae_fit_batch", "vae_fit_lr", "unet_channels", "unet_layers_per_block", "head_dim", "text_width", "text_layers",
)  # fmt: skip
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
NORM_GROUPS = 8  # of the UNet. SD: 32; ours
IMAGE_PX = 32  # side of the picture that the image encoder sees. SVD: 224; ours


def name_of_base(recipe: Recipe) -> str:
    """The folder name of a recipe's small random base: a digest of the values that it is built from."""
    values = json.dumps([getattr(recipe, key) for key in _MADE_OF])
    return f"{BASE}{hashlib.sha256(values.encode()).hexdigest()[:8]}"


def build_base(recipe: Recipe) -> Base:
    """Builds the base with random weights; the same recipe and seed give the same weights."""
    torch.manual_seed(recipe.seed)
    with_image = recipe.image_condition != "none"
    with_text = recipe.image_condition != "concatenate"
    tokenizer = clip_tokenizer()
    return Base(
        unet=_unet(recipe),
        vae=_vae(recipe),
        text_encoder=_text_encoder(recipe, tokenizer).eval().requires_grad_(False) if with_text else None,
        tokenizer=tokenizer if with_text else None,
        image_encoder=_image_encoder(recipe).eval().requires_grad_(False) if with_image else None,
        feature_extractor=_image_processor() if with_image else None,
    )


def save_base(base: Base, folder: Path) -> None:
    """Writes the parts as a diffusers folder, which is then read as any other base is."""
    for part in PARTS:
        made = getattr(base, part, None)
        if made is not None:
            made.save_pretrained(folder / part)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}) + "\n")


def _unet(recipe: Recipe) -> Any:
    levels = len(recipe.unet_channels)
    sd1 = recipe.family == "sd1"
    heads = tuple(c // recipe.head_dim for c in recipe.unet_channels)
    return UNet2DConditionModel(
        sample_size=(recipe.height_px // recipe.latent_factor, recipe.width_px // recipe.latent_factor),
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        block_out_channels=recipe.unet_channels,
        layers_per_block=recipe.unet_layers_per_block,
        norm_num_groups=32 if recipe.architecture == "spatiotemporal" else NORM_GROUPS,
        cross_attention_dim=recipe.text_width,
        # The name is historical: in UNet2DConditionModel these are numbers of heads; SD 1 has as many at every level.
        attention_head_dim=heads[0] if sd1 else heads,
        use_linear_projection=not sd1,
    )


def _vae(recipe: Recipe) -> Any:
    levels = len(recipe.vae_channels)
    as_svd = recipe.image_condition == "concatenate"
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=recipe.vae_channels,
        layers_per_block=2 if as_svd else 1,
        latent_channels=recipe.latent_channels,
        norm_num_groups=32 if as_svd else tiny_vae.NORM_GROUPS,
        sample_size=max(recipe.width_px, recipe.height_px),
        force_upcast=False,
    )
    tiny_vae.start_as_pyramid(vae)
    return vae.eval()


def _text_encoder(recipe: Recipe, tokenizer: Any) -> Any:
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
    return text_encoder


def _image_encoder(recipe: Recipe) -> Any:
    """In SVD this is OpenCLIP's ViT-H/14; here a random one of two layers."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=recipe.text_width,
            intermediate_size=4 * recipe.text_width,
            num_hidden_layers=recipe.text_layers,
            num_attention_heads=recipe.text_width // recipe.head_dim,
            image_size=IMAGE_PX,
            patch_size=IMAGE_PX // 4,
            projection_dim=recipe.text_width,
        )
    )


def _image_processor() -> Any:
    return CLIPImageProcessor(
        size={"height": IMAGE_PX, "width": IMAGE_PX}, crop_size={"height": IMAGE_PX, "width": IMAGE_PX}
    )


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
