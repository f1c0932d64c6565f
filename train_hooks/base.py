"""The model a training starts from: a diffusers folder on a disk or on the hub, of Stable Diffusion, ModelScope, ZeroScope or SVD.

Its UNet may be an image UNet, which is inflated, or a video UNet, which is taken as it is. VAE, text encoder and image encoder are frozen.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from train_hooks.errors import NotFoundError, TrainError
from train_hooks.net import load_unet
from train_hooks.recipe import Recipe

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "image_encoder", "feature_extractor", "scheduler")
OTHER_FILES = ["*.fp16.*", "*.non_ema.*", "*.bf16.*"]
"""Weights of the hub that come twice."""
VAES: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderKLTemporalDecoder": AutoencoderKLTemporalDecoder}


@dataclass
class Base:
    """The parts of a diffusion model, as diffusers objects; None what the folder does not have."""

    unet: Any
    vae: Any
    text_encoder: Any = None
    tokenizer: Any = None
    image_encoder: Any = None
    feature_extractor: Any = None


def folder_of(base: str) -> Path:
    """The folder of a base: the path itself, or the local copy fetched from the hub.

    Raises TrainError when it is neither a folder nor can be fetched.
    """
    path = Path(base).expanduser()
    if path.is_dir():
        return path
    if base.count("/") != 1 or base.startswith((".", "/", "~")):
        raise NotFoundError(f"base: there is no folder {base}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = base.partition("@")
    patterns = [f"{part}/{kind}" for part in PARTS for kind in ("*.json", "*.txt", "*.safetensors")]
    try:
        wanted = ["model_index.json", *patterns]
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=wanted, ignore_patterns=OTHER_FILES)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotFoundError(f"base: '{base}' is no folder here and cannot be fetched from the hub: {reason}") from None


def load_base(folder: Path, recipe: Recipe) -> Base:
    """Reads the parts that a recipe needs.

    Raises TrainError, naming the part, when one is missing or cannot be read.
    """
    hush()
    with_image = recipe.image_condition != "none"
    with_text = recipe.image_condition != "concatenate"
    eyes, words = ("image_encoder",) if with_image else (), ("text_encoder", "tokenizer") if with_text else ()
    needed = ["unet", "vae", *eyes, *words]
    lacking = [part for part in needed if not (folder / part).is_dir()]
    if lacking:
        reason = f"it has no {' and no '.join(f'{part}/' for part in lacking)}"
        raise NotFoundError(f"base: {folder} is not a folder that '{recipe.name}' can start from: {reason}")
    made = Base(_read(folder / "unet", load_unet), _read(folder / "vae", _vae))
    if with_image:
        made.image_encoder = _read(folder / "image_encoder", CLIPVisionModelWithProjection.from_pretrained)
        processor = folder / "feature_extractor"
        made.feature_extractor = (
            _read(processor, CLIPImageProcessor.from_pretrained) if processor.is_dir() else CLIPImageProcessor()
        )
    if with_text:
        made.text_encoder = _read(folder / "text_encoder", CLIPTextModel.from_pretrained)
        made.tokenizer = _read(folder / "tokenizer", CLIPTokenizer.from_pretrained)
        given, what = made.text_encoder.config.hidden_size, "text_encoder gives states"
    else:
        given, what = made.image_encoder.config.projection_dim, "image_encoder gives embeddings"
    wanted = made.unet.config.cross_attention_dim
    if given != wanted:
        raise TrainError(f"base: {folder}: its {what} of {given} numbers, and its unet reads {wanted}")
    if made.vae.config.latent_channels != made.unet.config.out_channels:
        channels = (
            f"{made.vae.config.latent_channels} channels, and its unet answers with {made.unet.config.out_channels}"
        )
        raise TrainError(f"base: {folder}: its vae has latents of {channels}")
    for part in (made.vae, made.text_encoder, made.image_encoder):
        if part is not None:
            part.eval().requires_grad_(False)
    if recipe.image_condition == "concatenate":
        made.vae = temporal_vae(made.vae)
    return made


def latent_factor(vae: Any) -> int:
    """How many times smaller a latent frame is than the frame, per side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def check_size(vae: Any, recipe: Recipe) -> None:
    """Raises TrainError when frames of a recipe's size have no whole number of latents."""
    factor = latent_factor(vae)
    if recipe.width_px % factor or recipe.height_px % factor:
        size = f"{recipe.width_px} x {recipe.height_px}"
        raise TrainError(f"frames of {size} px do not fit this VAE, whose latents are {factor} times smaller")


def hush() -> None:
    """Keeps the libraries' progress bars and their remarks on what they deprecate off the screen; warnings and errors stay."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()


def _read(folder: Path, how: Callable[[Path], Any]) -> Any:
    try:
        return how(folder)
    except TrainError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainError(f"base: {folder} cannot be read: {reason}") from None


def _vae(folder: Path) -> Any:
    name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
    if name not in VAES:
        raise TrainError(f"base: {folder} holds a {name}; known are {', '.join(VAES)}")
    return VAES[name].from_pretrained(folder)


@torch.no_grad()
def temporal_vae(vae: Any) -> Any:
    """SVD's VAE from Stable Diffusion's: the same encoder, and a decoder whose temporal layers do nothing yet.

    `post_quant_conv`, which SVD's VAE does not have, is folded into the decoder's first convolution; exact but for the outermost latents, where
    padding meets its bias. Raises TrainError for a VAE whose norms have other groups than SVD's 32.
    """
    if isinstance(vae, AutoencoderKLTemporalDecoder):
        return vae
    config = vae.config
    if config.norm_num_groups != 32:
        raise TrainError(f"SVD's VAE normalises 32 groups, and this one {config.norm_num_groups}")
    made = AutoencoderKLTemporalDecoder(
        down_block_types=config.down_block_types,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        sample_size=config.sample_size,
        scaling_factor=config.scaling_factor,
        force_upcast=config.force_upcast,
    )
    source: dict[str, Tensor] = {}
    for key, value in vae.state_dict().items():
        head, dot, tail = key.partition(".resnets.")
        number, _, rest = tail.partition(".")
        of_decoder = dot and key.startswith("decoder.")
        source[f"{head}.resnets.{number}.spatial_res_block.{rest}" if of_decoder else key] = value
    if "post_quant_conv.weight" in source:
        first, mixed = source["decoder.conv_in.weight"], source.pop("post_quant_conv.weight")[:, :, 0, 0]
        source["decoder.conv_in.bias"] = source["decoder.conv_in.bias"] + torch.einsum(
            "ocij,c->o", first, source.pop("post_quant_conv.bias")
        )
        source["decoder.conv_in.weight"] = torch.einsum("ocij,cd->odij", first, mixed)
    new, unexpected = made.load_state_dict(source, strict=False)
    strange = [key for key in new if "temporal" not in key and "time_" not in key]
    if strange or unexpected:
        raise TrainError(f"this VAE does not fit SVD's: no match for {', '.join([*strange, *unexpected][:3])}")
    for module in made.decoder.modules():
        if hasattr(module, "temporal_res_block"):
            nn.init.zeros_(module.temporal_res_block.conv2.weight)
            nn.init.zeros_(module.temporal_res_block.conv2.bias)
    nn.init.dirac_(made.decoder.time_conv_out.weight)
    nn.init.zeros_(made.decoder.time_conv_out.bias)
    return made.eval().requires_grad_(False)
