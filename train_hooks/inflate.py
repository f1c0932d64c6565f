"""Inflation: Stable Diffusion 2's image UNet becomes a video UNet that, at step 0, does the same to each frame.

`UNet3DConditionModel` keeps every key of `UNet2DConditionModel` under the same name and shape and adds temporal
layers: `temp_convs`, `temp_attentions` and `transformer_in` (ModelScopeT2V). diffusers zero-initialises the last
layer of the temporal convolutions but not `TransformerTemporalModel.proj_out`, so a plain load destroys the image
prior; we zero it, and check the result before training.

Shapes: B clips, C channels, T frames, h and w in latents.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet3DConditionModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor, nn

from train_hooks.errors import TrainError

IDENTITY_BOUND = 5e-6
"""Largest difference allowed between image and video UNet at step 0, fp32, outputs of scale 1.

Ours: 4 times what rounding gives.
"""


@dataclass(frozen=True)
class KeyReport:
    """State dict keys that were copied from the image UNet, are new in the video UNet, or have no place in it."""

    matched: tuple[str, ...]
    new: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.matched)} keys copied, {len(self.new)} new temporal keys, {len(self.unexpected)} unexpected"


def inflate(unet2d: Any) -> tuple[Any, KeyReport, float]:
    """Makes the video UNet from an SD 2.x image UNet.

    Returns the video UNet, the key report and the step-0 difference to the image UNet at T = 4.

    Raises TrainError when the image UNet is not of the SD 2.x kind or the two outputs differ by more than
    IDENTITY_BOUND.
    """
    unet3d = video_unet_like(unet2d)
    report = copy_spatial(unet2d, unet3d)
    zero_temporal_outputs(unet3d)
    error = identity_error(unet2d, unet3d, frames=4)
    if not error <= IDENTITY_BOUND:  # also stops a NaN
        raise TrainError(
            "the inflated UNet does not equal the image UNet at step 0: "
            f"they differ by {error:.1e}, and {IDENTITY_BOUND:.0e} is allowed"
        )
    return unet3d, report, error


def video_unet_like(unet2d: Any) -> Any:
    """A UNet3DConditionModel with the sizes of the image UNet and random weights.

    Raises TrainError when the base is not SD 2.x.
    """
    config = unet2d.config
    if not config.use_linear_projection:
        raise TrainError(
            "this UNet projects attention by convolutions, as Stable Diffusion 1 does; the recipe needs an SD 2.x base"
        )
    # SD's `attention_head_dim` holds numbers of heads; UNet3D wants channels per head, one number for all levels.
    channels = tuple(config.block_out_channels)
    heads = config.attention_head_dim
    heads = (heads,) * len(channels) if isinstance(heads, int) else tuple(heads)
    head_dims = {c // h for c, h in zip(channels, heads, strict=True)}
    if len(head_dims) != 1:
        raise TrainError(
            f"this UNet has attention heads of different widths {sorted(head_dims)}; the recipe needs an SD 2.x base"
        )
    same_name = inspect.signature(UNet3DConditionModel.__init__).parameters.keys() & config.keys()
    kept = {key: config[key] for key in same_name - {"attention_head_dim", "num_attention_heads"}}
    kept["down_block_types"] = tuple(name.replace("2D", "3D") for name in config.down_block_types)
    kept["up_block_types"] = tuple(name.replace("2D", "3D") for name in config.up_block_types)
    return UNet3DConditionModel(**kept, attention_head_dim=head_dims.pop())


def copy_spatial(unet2d: Any, unet3d: Any) -> KeyReport:
    """Copies every weight of the image UNet.

    Raises TrainError for keys without a place or a new key that is not temporal.
    """
    source = unet2d.state_dict()
    try:
        new, unexpected = unet3d.load_state_dict(source, strict=False)
    except RuntimeError as error:  # a shape that differs
        raise TrainError(f"the base UNet does not fit the video UNet: {str(error).splitlines()[-1].strip()}") from None
    strange = [key for key in new if "temp_" not in key and not key.startswith("transformer_in.")]
    if unexpected or strange:
        raise TrainError(
            f"the base UNet does not fit the video UNet: no match for {', '.join([*unexpected, *strange][:3])}"
        )
    return KeyReport(tuple(key for key in source if key not in unexpected), tuple(new), tuple(unexpected))


def zero_temporal_outputs(unet3d: Any) -> int:
    """Zeroes the output projection of every temporal transformer, so that it starts as the identity.

    Returns how many there are.
    """
    temporal = [module for module in unet3d.modules() if isinstance(module, TransformerTemporalModel)]
    for module in temporal:
        nn.init.zeros_(module.proj_out.weight)
        nn.init.zeros_(module.proj_out.bias)
    return len(temporal)


@torch.no_grad()
def identity_error(unet2d: Any, unet3d: Any, frames: int) -> float:
    """Largest absolute difference between the two on random latents (2, C, T, h, w), each with its own timestep."""
    generator = torch.Generator().manual_seed(0)
    size = unet2d.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    dtype = next(unet2d.parameters()).dtype
    noisy_BCTHW = torch.randn(2, unet2d.config.in_channels, frames, height, width, generator=generator).to(dtype)
    text = torch.randn(2, 8, unet2d.config.cross_attention_dim, generator=generator).to(dtype)
    t = torch.tensor([20, 700])
    training = unet2d.training, unet3d.training
    unet2d.eval(), unet3d.eval()
    video: Tensor = unet3d(noisy_BCTHW, t, text).sample
    images = torch.stack([unet2d(noisy_BCTHW[:, :, i], t, text).sample for i in range(frames)], dim=2)
    unet2d.train(training[0]), unet3d.train(training[1])
    return float((video - images).abs().max())
