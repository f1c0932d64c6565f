"""Inflation: Stable Diffusion's image UNet becomes a video UNet that, at step 0, does to each frame what the image UNet did.

| architecture | what is made | new layers | from |
|---|---|---|---|
| unet3d | `UNet3DConditionModel` (ModelScopeT2V, ZeroScope) | temp_convs, temp_attentions, transformer_in | SD 2.x; SD 1.x |
| spatiotemporal | `UNetSpatioTemporalConditionModel` (SVD) | temporal_res_block, temporal_transformer_blocks, time_mixer, ... | SD 2.x |
| videocrafter, lavie | `VideoUNet` (train_hooks/video_unet.py) | temporal_conv, temporal_transformer; attn_temp | SD 2.x; SD 1.x |

The spatial keys keep their names (SVD: `resnets.j.` becomes `resnets.j.spatial_res_block.`), so inflating is one load. What diffusers leaves at
random values and would destroy the image prior is zeroed here: the last layer of every temporal branch. The result is compared with
the image UNet, frame by frame, before training starts.

Shapes: B clips, C channels, T frames, h and w in latents.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import UNet3DConditionModel, UNetSpatioTemporalConditionModel
from diffusers.models.attention import TemporalBasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D, SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel, TransformerTemporalModel
from diffusers.models.unets import unet_3d_condition
from torch import Tensor, nn

from train_hooks.errors import TrainError
from train_hooks.video_unet import VideoUNet

IDENTITY_BOUND = 5e-6
"""Largest difference allowed between image and video UNet at step 0, fp32, outputs of scale 1. Ours: 4 times what rounding gives."""
IMAGE_EPS = 1e-5
"""Epsilon of Stable Diffusion's group norms; SVD's blocks have 1e-6 in most places, which alone moves outputs by 1e-4."""
NEW_KEYS = (
    "temp_", "_temp.", "temporal_", "time_mixer.", "time_pos_embed.", "transformer_in.", "add_embedding.", "init_attn.", "fps_embedding.",
    "image_proj.", ".processor.",
)  # fmt: skip
"""What the name of a parameter that inflation adds holds."""


@dataclass(frozen=True)
class KeyReport:
    """State dict keys that were copied from the image UNet, are new in the video UNet, or have no place in it."""

    matched: tuple[str, ...]
    new: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.matched)} keys copied, {len(self.new)} new temporal keys, {len(self.unexpected)} unexpected"


def inflate(unet2d: Any, like: Callable[[Any], Any] | None = None) -> tuple[Any, KeyReport, float]:
    """Makes a video UNet from an image UNet; `like` builds one of its sizes, by default ModelScope's (`video_unet_like`).

    Returns the video UNet, the key report and the step-0 difference to the image UNet at T = 4.

    Raises TrainError when the image UNet is of another kind or the two outputs differ by more than IDENTITY_BOUND.
    """
    video = (like or video_unet_like)(unet2d)
    report = copy_spatial(unet2d, video)
    zero_temporal_outputs(video)
    with image_eps(video):
        error = identity_error(unet2d, video, frames=4)
    if not error <= IDENTITY_BOUND:  # also stops a NaN
        raise TrainError(
            "the inflated UNet does not equal the image UNet at step 0: "
            f"they differ by {error:.1e}, and {IDENTITY_BOUND:.0e} is allowed"
        )
    return video, report, error


def video_unet_like(unet2d: Any) -> Any:
    """ModelScope's UNet3DConditionModel with the sizes of the image UNet and random weights.

    SD 1.x has eight heads at every level; SD 2.x has heads of 64 channels. Raises TrainError when the image UNet is neither.
    """
    config = unet2d.config
    # SD's `attention_head_dim` holds numbers of heads; UNet3D wants channels per head.
    heads = heads_of(unet2d)
    head_dims = tuple(c // h for c, h in zip(config.block_out_channels, heads, strict=True))
    if len(set(head_dims)) != 1 and len(set(heads)) != 1:
        raise TrainError(f"this UNet has {list(heads)} heads of {list(head_dims)} channels: neither SD 1.x nor SD 2.x")
    same_name = inspect.signature(UNet3DConditionModel.__init__).parameters.keys() & config.keys()
    kept = {key: config[key] for key in same_name - {"attention_head_dim", "num_attention_heads"}}
    kept["down_block_types"] = tuple(name.replace("2D", "3D") for name in config.down_block_types)
    kept["up_block_types"] = tuple(name.replace("2D", "3D") for name in config.up_block_types)
    if len(set(head_dims)) == 1:
        return UNet3DConditionModel(**kept, attention_head_dim=head_dims[0])
    with head_dim_per_level():
        return UNet3DConditionModel(**kept, attention_head_dim=head_dims)


@contextmanager
def head_dim_per_level() -> Iterator[None]:
    """Lets UNet3DConditionModel be built with a head dimension for each level, as SD 1.x needs.

    diffusers 0.42 hands the whole list to `transformer_in`, which fails; that layer is at the first level.
    """

    def first(num_attention_heads: int, attention_head_dim: Any, **options: Any) -> Any:
        dim = attention_head_dim if isinstance(attention_head_dim, int) else attention_head_dim[0]
        return TransformerTemporalModel(num_attention_heads, dim, **options)

    plain = unet_3d_condition.TransformerTemporalModel
    unet_3d_condition.TransformerTemporalModel = first
    try:
        yield
    finally:
        unet_3d_condition.TransformerTemporalModel = plain


def spatiotemporal_unet_like(unet2d: Any, image_condition: bool, frames: int = 25) -> Any:
    """SVD's UNetSpatioTemporalConditionModel with the sizes of the image UNet: text-to-video, or with a first frame in 4 more channels.

    Raises TrainError when the image UNet is not SD 2.x.
    """
    config = unet2d.config
    if not config.use_linear_projection:
        raise TrainError(
            "this UNet projects attention by convolutions, as Stable Diffusion 1 does; SVD's layers need an SD 2.x base"
        )
    in_channels = config.in_channels * (2 if image_condition else 1)
    video = UNetSpatioTemporalConditionModel(
        sample_size=config.sample_size,
        in_channels=in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.block_out_channels,
        down_block_types=tuple(name.replace("2D", "SpatioTemporal") for name in config.down_block_types),
        up_block_types=tuple(name.replace("2D", "SpatioTemporal") for name in config.up_block_types),
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.cross_attention_dim,
        num_attention_heads=heads_of(unet2d),
        projection_class_embeddings_input_dim=256 * (3 if image_condition else 2),
        num_frames=frames,
    )
    for ours, theirs in zip(group_norms(video), group_norms(unet2d), strict=True):
        if ours.num_groups != theirs.num_groups:
            raise TrainError(f"SVD's layers normalise {ours.num_groups} groups, and this UNet {theirs.num_groups}")
    return video


def heads_of(unet2d: Any) -> tuple[int, ...]:
    """Numbers of attention heads, one for each level; SD calls them `attention_head_dim`."""
    heads = unet2d.config.attention_head_dim
    return (heads,) * len(unet2d.config.block_out_channels) if isinstance(heads, int) else tuple(heads)


def group_norms(unet: Any) -> list[nn.GroupNorm]:
    """The norms of the spatial residual blocks, in order."""
    return [block.norm1 for block in unet.modules() if isinstance(block, ResnetBlock2D)]


def copy_spatial(unet2d: Any, video: Any) -> KeyReport:
    """Copies every weight of the image UNet.

    Raises TrainError for keys without a place or a new key that is not temporal.
    """
    source = unet2d.state_dict()
    if isinstance(video, UNetSpatioTemporalConditionModel):
        source = {spatiotemporal_key(key): value for key, value in source.items()}
    own = (video.unet if isinstance(video, VideoUNet) else video).state_dict()
    for key, value in source.items():
        if key in own and own[key].shape != value.shape:
            source[key] = _fitted(key, value, own[key])
    new = [key for key in own if key not in source]
    unexpected = [key for key in source if key not in own]
    strange = [key for key in new if not any(word in key for word in NEW_KEYS)]
    if unexpected or strange:
        raise TrainError(
            f"the base UNet does not fit the video UNet: no match for {', '.join([*unexpected, *strange][:3])}"
        )
    (video.unet if isinstance(video, VideoUNet) else video).load_state_dict(source, strict=False)
    return KeyReport(tuple(source), tuple(new), ())


def spatiotemporal_key(key: str) -> str:
    """The name that a key of the image UNet has in SVD's."""
    head, dot, tail = key.partition(".resnets.")
    number, _, rest = tail.partition(".")
    return f"{head}.resnets.{number}.spatial_res_block.{rest}" if dot else key


def _fitted(key: str, value: Tensor, own: Tensor) -> Tensor:
    """A weight in the shape of its place: SD 1.x's 1 x 1 convolutions are linear layers; new input channels start at zero."""
    if value.ndim == 4 and value.shape[2:] == (1, 1) and own.shape == value.shape[:2]:
        return value[:, :, 0, 0]
    if key == "conv_in.weight" and own.shape[1] > value.shape[1]:
        return torch.cat([value, torch.zeros_like(own[:, value.shape[1] :])], dim=1)
    raise TrainError(f"the base UNet does not fit the video UNet: {key} is {list(value.shape)}, not {list(own.shape)}")


def zero_temporal_outputs(video: Any) -> int:
    """Zeroes the last layer of every temporal branch, weight and bias, so that each starts as the identity; returns how many.

    With SVD's learned blend of the branches both are then equal, whatever the blend.
    """
    last: list[Any] = []
    for module in video.modules():
        if isinstance(module, TransformerTemporalModel):
            last.append(module.proj_out)
        elif isinstance(module, SpatioTemporalResBlock):
            last.append(module.temporal_res_block.conv2)
        elif isinstance(module, TemporalBasicTransformerBlock):
            last += [module.ff_in.net[2], module.attn1.to_out[0], module.attn2.to_out[0], module.ff.net[2]]
        elif isinstance(module, TransformerSpatioTemporalModel):
            last.append(module.time_pos_embed.linear_2)
        elif isinstance(module, UNetSpatioTemporalConditionModel):
            last.append(module.add_embedding.linear_2)
    if isinstance(video, VideoUNet):
        last += video.temporal_outputs()
    for layer in last:
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return len(last)


@contextmanager
def image_eps(video: Any) -> Iterator[None]:
    """For the comparison: the norms of SVD's spatial blocks as Stable Diffusion has them.

    A folder that stock diffusers loads has its own, so the video UNet keeps these and differs by about 1e-4 at step 0.
    """
    norms: list[tuple[Any, float]] = []
    if isinstance(video, UNetSpatioTemporalConditionModel):
        spatial = [module for module in video.modules() if isinstance(module, ResnetBlock2D)]
        norms = [(norm, norm.eps) for block in spatial for norm in (block.norm1, block.norm2)]
    try:
        for norm, _ in norms:
            norm.eps = IMAGE_EPS
        yield
    finally:
        for norm, eps in norms:
            norm.eps = eps


@torch.no_grad()
def identity_error(unet2d: Any, video: Any, frames: int) -> float:
    """Largest absolute difference between the two on random latents (2, C, T, h, w), each with its own timestep."""
    generator = torch.Generator().manual_seed(0)
    size = unet2d.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    dtype = next(unet2d.parameters()).dtype
    noisy_BCTHW = torch.randn(2, unet2d.config.in_channels, frames, height, width, generator=generator).to(dtype)
    text = torch.randn(2, 8, unet2d.config.cross_attention_dim, generator=generator).to(dtype)
    t = torch.tensor([20, 700])
    training = unet2d.training, video.training
    unet2d.eval(), video.eval()
    answer_BCTHW: Tensor = as_text_to_video(video)(noisy_BCTHW, t, text)
    images = torch.stack([unet2d(noisy_BCTHW[:, :, i], t, text).sample for i in range(frames)], dim=2)
    unet2d.train(training[0]), video.train(training[1])
    return float((answer_BCTHW - images).abs().max())


def as_text_to_video(video: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The UNet as a function of latents (B, C, T, h, w), timesteps and text alone: other conditions are zero, SVD's first frame black."""
    if not isinstance(video, UNetSpatioTemporalConditionModel):
        return lambda x, t, text: video(x, t, encoder_hidden_states=text).sample
    return partial(_spatiotemporal, video)


def _spatiotemporal(video: Any, x_BCTHW: Tensor, t: Tensor, text: Tensor) -> Tensor:
    x_BTCHW = x_BCTHW.transpose(1, 2)
    more = video.config.in_channels - x_BTCHW.shape[2]
    black = x_BTCHW.new_zeros(*x_BTCHW.shape[:2], more, *x_BTCHW.shape[3:])
    ids = x_BTCHW.new_zeros(len(x_BTCHW), video.add_embedding.linear_1.in_features // 256)
    answer: Tensor = video(torch.cat([x_BTCHW, black], dim=2), t, text, added_time_ids=ids).sample
    return answer.transpose(1, 2)
