"""Other projects' names for our weights: lvdm's `model.ckpt` (VideoCrafter) and `lavie_base.pt` (LaVie).

VideoCrafter numbers its blocks as latent-diffusion does: `input_blocks`, `middle_block`, `output_blocks`, each a list of residual block, spatial
transformer, temporal transformer and resampling. LaVie keeps diffusers' names of its time. Both are checked by going there and back.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

PREFIX = "model.diffusion_model."
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection", "temporal_conv": "temopral_conv",
}  # fmt: skip
"""Parts of a residual block; the last is misspelt in lvdm and ModelScope alike."""
ENDS = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2", "fps_embedding.linear_1": "fps_embedding.0", "fps_embedding.linear_2": "fps_embedding.2",
    "init_attn": "init_attn.0",
}  # fmt: skip


def videocrafter_keys(unet: Any) -> dict[str, str]:
    """Our key to lvdm's, for every weight of a VideoCrafter-style `VideoUNet`."""
    config = unet.config
    layers, levels = config.layers_per_block, len(config.block_out_channels)
    modules: dict[str, str] = dict(ENDS)
    for level in range(levels):
        attends = "CrossAttn" in config.down_block_types[level]
        for j in range(layers):
            at = f"input_blocks.{(layers + 1) * level + j + 1}"
            modules |= _block(f"down_blocks.{level}", j, at, attends)
        modules[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{(layers + 1) * (level + 1)}.0.op"
        attends = "CrossAttn" in config.up_block_types[level]
        for j in range(layers + 1):
            at = f"output_blocks.{(layers + 1) * level + j}"
            modules |= _block(f"up_blocks.{level}", j, at, attends)
        last = 3 if attends else 1  # behind residual block and, where there are any, both transformers
        up = f"output_blocks.{(layers + 1) * level + layers}.{last}"
        modules[f"up_blocks.{level}.upsamplers.0"] = up
    modules |= _block("mid_block", 0, "middle_block", True)
    modules["mid_block.resnets.1"] = "middle_block.3"
    # Longest first: `down_blocks.0.attentions.0.temporal_transformer` is inside `down_blocks.0.attentions.0`.
    names = sorted(modules, key=len, reverse=True)
    made: dict[str, str] = {}
    for key in unet.unet.state_dict():
        if key.startswith("image_proj."):  # lvdm keeps it beside the UNet
            made[key] = key.replace("image_proj.", "image_proj_model.", 1)
            continue
        name = next(name for name in names if key.startswith(f"{name}."))
        rest = key.removeprefix(f"{name}.")
        made[key] = f"{PREFIX}{modules[name]}.{_inside(name, rest)}"
    return made


def _block(ours: str, j: int, theirs: str, attends: bool) -> dict[str, str]:
    names = {f"{ours}.resnets.{j}": f"{theirs}.0"}
    if attends:
        names[f"{ours}.attentions.{j}"] = f"{theirs}.1"
        names[f"{ours}.attentions.{j}.temporal_transformer"] = f"{theirs}.2"
    return names


def _inside(name: str, rest: str) -> str:
    if re.search(r"\.resnets\.\d+$", name):
        part, _, tail = rest.partition(".")
        return f"{RESNET[part]}.{tail}"
    return rest.replace(".processor.", ".")  # `attn2.to_k_ip`


def as_videocrafter(unet: Any) -> dict[str, Tensor]:
    """The weights of a VideoCrafter-style `VideoUNet` under lvdm's names; of its `model.ckpt` that is the UNet."""
    keys = videocrafter_keys(unet)
    made = {keys[key]: value.contiguous() for key, value in unet.unet.state_dict().items()}
    # In lvdm the first temporal transformer projects by a convolution over one frame, the others by a linear layer.
    for key in made:
        if re.search(r"init_attn\.0\.proj_(in|out)\.weight$", key):
            made[key] = made[key][:, :, None]
    return made


def from_videocrafter(weights: Mapping[str, Tensor], unet: Any) -> dict[str, Tensor]:
    """lvdm's weights under our names, for a `VideoUNet` of the same sizes."""
    back = {theirs: ours for ours, theirs in videocrafter_keys(unet).items()}
    own = unet.unet.state_dict()
    return {back[key]: value.reshape(own[back[key]].shape) for key, value in weights.items() if key in back}


def as_lavie(unet: Any) -> dict[str, Tensor]:
    """The weights of a LaVie-style `VideoUNet` under the names of `lavie_base.pt`."""
    return {key: value.contiguous() for key, value in unet.unet.state_dict().items()}
