"""Weights for CLIPSIM and FVD that are small enough to make: a CLIP with random weights, and a video network whose features are known."""

from pathlib import Path

import torch
from torch import Tensor


class _Means(torch.nn.Module):
    """The mean of every channel, 0..1, where I3D would give 400 features."""

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        return x.mean(dim=(2, 3, 4)) / 255


def write_features(path: Path) -> None:
    """A TorchScript file for `fvd_weights`."""
    torch.jit.script(_Means()).save(str(path))


def write_tiny_clip(folder: Path) -> None:
    """A folder for `clip_weights`."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    from train_hooks.tiny_base import clip_tokenizer

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=small, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    CLIPProcessor(CLIPImageProcessor(size=size, crop_size=size), clip_tokenizer()).save_pretrained(folder)
