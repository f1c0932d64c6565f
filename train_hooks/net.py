"""One way to call every video UNet: latents (B, C, F, h, w), noise level, text, and the conditions that it knows.

Shapes: B clips, C latent channels, F = T frames + M stills, h and w in latents; L tokens of D channels.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet3DConditionModel, UNetSpatioTemporalConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from safetensors import safe_open
from torch import Tensor, nn

from train_hooks.conditioning import added_time_ids
from train_hooks.errors import TrainError
from train_hooks.inflate import KeyReport, head_dim_per_level, inflate, spatiotemporal_unet_like, video_unet_like
from train_hooks.joint import ImageOnly, Layout, PerFrameText, images_pass
from train_hooks.recipe import Recipe
from train_hooks.video_unet import CLASS, WEIGHTS, Style, VideoUNet, condition_on_frame_rate

SHAW_FRAMES = 16  # VideoCrafter's temporal_length


@dataclass(frozen=True)
class Conditions:
    """Conditions of a batch. A net ignores those that it has no input for."""

    text: Tensor
    """One for each clip (B, L, D), or for each frame and still (B, F, L, D)."""
    fps_B: Tensor  # noqa: N815
    """True frames per second of the frames shown; SVD's fps - 1 is taken in `added_time_ids`."""
    motion_bucket_B: Tensor  # noqa: N815
    first_frame_BChw: Tensor | None = None  # noqa: N815
    """SVD's first frame, as latents that are not scaled."""
    first_frame_noise_B: Tensor | None = None  # noqa: N815
    images: int = 0
    """How many of the F are stills."""
    image_tokens_BLD: Tensor | None = None  # noqa: N815
    """VideoCrafter's first frame, as its encoder's tokens."""


class Net:
    """A video UNet with the switches that its architecture needs.

    `unet` is what is trained and saved. `Net(unet)` adds no parameter but `fps_embedding`, where the recipe asks for it on a UNet3D. What the
    switches were set to holds until the next call: activations may be computed again on the way back.
    """

    def __init__(self, unet: Any, fps_condition: bool = False) -> None:
        self.unet = unet
        self.autocast: Callable[[], Any] = nullcontext
        """The precision in which the UNet is called; its answer is float32."""
        self._layout = unet.layout if isinstance(unet, VideoUNet) else Layout()
        self._text: PerFrameText | None = None
        self._fps_B: Tensor | None = None
        if isinstance(unet, UNetSpatioTemporalConditionModel):
            self._image_only = ImageOnly(unet)
        if not isinstance(unet, VideoUNet):
            self._text = PerFrameText(unet)
        if isinstance(unet, UNet3DConditionModel):
            images_pass(unet, self._layout)
            if fps_condition and not hasattr(unet, "fps_embedding"):
                add_fps_embedding(unet)
            if hasattr(unet, "fps_embedding"):
                condition_on_frame_rate(unet, lambda: self._fps_B)

    def __call__(self, x_BCFhw: Tensor, time_B: Tensor, conditions: Conditions) -> Tensor:
        """The net's answer, shaped as the latents."""
        with self.autocast():
            return self._answer(x_BCFhw, time_B, conditions).float()

    def _answer(self, x_BCFhw: Tensor, time_B: Tensor, conditions: Conditions) -> Tensor:
        n_frames = x_BCFhw.shape[2]
        self._layout.frames, self._layout.images = n_frames - conditions.images, conditions.images
        text = conditions.text
        if self._text is not None:
            self._text.text_NLD = text.flatten(0, 1) if text.ndim == 4 else None
            text = text[:, 0] if text.ndim == 4 else text
        if isinstance(self.unet, UNetSpatioTemporalConditionModel):
            return self._spatiotemporal(x_BCFhw, time_B, text, conditions)
        self._fps_B = conditions.fps_B
        if isinstance(self.unet, VideoUNet):
            self.unet.fps_B = conditions.fps_B
        seen = {} if conditions.image_tokens_BLD is None else {"image_tokens": conditions.image_tokens_BLD}
        answer: Tensor = self.unet(x_BCFhw, time_B, encoder_hidden_states=text, **seen).sample
        return answer

    def _spatiotemporal(self, x_BCFhw: Tensor, time_B: Tensor, text: Tensor, conditions: Conditions) -> Tensor:
        x_BFChw = x_BCFhw.transpose(1, 2)
        first = conditions.first_frame_BChw
        if first is not None:
            x_BFChw = torch.cat([x_BFChw, first[:, None].expand(-1, x_BFChw.shape[1], -1, -1, -1)], dim=2)
        ids = added_time_ids(conditions.fps_B, conditions.motion_bucket_B, conditions.first_frame_noise_B)
        indicator_BF = x_BFChw.new_zeros(x_BFChw.shape[:2])
        if conditions.images:
            indicator_BF[:, -conditions.images :] = 1
        self._image_only.indicator_BF = indicator_BF
        answer: Tensor = self.unet(x_BFChw, time_B, text, added_time_ids=ids).sample
        return answer.transpose(1, 2)


def add_fps_embedding(unet: Any) -> None:
    """A second time embedding for the frame rate, added to the first; its last layer starts at zero (ModelScope; VideoCrafter)."""
    first = unet.config.block_out_channels[0]
    unet.fps_embedding = TimestepEmbedding(first, 4 * first)
    nn.init.zeros_(unet.fps_embedding.linear_2.weight)
    nn.init.zeros_(unet.fps_embedding.linear_2.bias)


def make(unet: Any, recipe: Recipe, image_width: int = 0) -> tuple[Any, KeyReport | None, float | None]:
    """The video UNet of a recipe: inflated from an image UNet, or the one that the base already has, as it is.

    `image_width`: channels of the image encoder's tokens, where the recipe shows them to the UNet.

    Returns it with the key report and the step-0 difference of an inflation.

    Raises TrainError when the base is of another kind than the recipe needs.
    """
    kind = kind_of(unet)
    if kind == "image":
        _check_family(unet, recipe)
        return inflate(unet, lambda image: _like(image, recipe, image_width))
    if kind != recipe.architecture:
        raise TrainError(f"the base holds a {type(unet).__name__}, and the recipe makes '{recipe.architecture}'")
    if kind == "spatiotemporal":
        wanted = unet.config.out_channels * (2 if recipe.image_condition != "none" else 1)
        if unet.config.in_channels != wanted:
            channels = f"{unet.config.in_channels} input channels, and image_condition '{recipe.image_condition}' needs {wanted}"
            raise TrainError(f"the base has {channels}")
    return unet, None, None


def kind_of(unet: Any) -> str:
    """The architecture of a UNet, or `image`."""
    if isinstance(unet, VideoUNet):
        return unet.style.architecture
    if isinstance(unet, UNetSpatioTemporalConditionModel):
        return "spatiotemporal"
    return "unet3d" if isinstance(unet, UNet3DConditionModel) else "image"


def _like(unet2d: Any, recipe: Recipe, image_width: int) -> Any:
    if recipe.architecture == "unet3d":
        video = video_unet_like(unet2d)
        if not recipe.temporal_convs:
            raise TrainError("UNet3DConditionModel always has temporal convolutions; set temporal_convs to true")
        return video
    if recipe.architecture == "spatiotemporal":
        return spatiotemporal_unet_like(unet2d, recipe.image_condition == "concatenate", recipe.frames)
    longest = SHAW_FRAMES if recipe.frame_positions == "shaw" else 0
    shown = image_width if recipe.image_condition == "attention" else 0
    style = Style(recipe.architecture, recipe.temporal_convs, longest, recipe.fps_condition, shown)
    return VideoUNet.like(unet2d, style)


def _check_family(unet2d: Any, recipe: Recipe) -> None:
    family = "sd2" if unet2d.config.use_linear_projection else "sd1"
    if family != recipe.family:
        names = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2"}
        raise TrainError(f"the base is of {names[family]}'s kind, and the recipe is made for {names[recipe.family]}")


def load_unet(folder: Path) -> Any:
    """A UNet as a finished folder holds it, of whichever class."""
    import json

    from diffusers import UNet2DConditionModel

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config["_class_name"]
    if name == CLASS:
        return VideoUNet.from_pretrained(folder)
    if name == "UNet3DConditionModel":
        with head_dim_per_level():
            unet = UNet3DConditionModel.from_pretrained(folder)
        _restore_fps_embedding(unet, folder / WEIGHTS)
        return unet
    known = {
        "UNet2DConditionModel": UNet2DConditionModel,
        "UNetSpatioTemporalConditionModel": UNetSpatioTemporalConditionModel,
    }
    if name not in known:
        raise TrainError(f"{folder} holds a {name}; known are {', '.join([*known, 'UNet3DConditionModel', CLASS])}")
    return known[name].from_pretrained(folder)


def _restore_fps_embedding(unet: Any, weights: Path) -> None:
    """Loads the fps embedding that we added, which UNet3DConditionModel's own loader ignores."""
    if not weights.is_file():
        return
    with safe_open(weights, framework="pt") as file:
        mine = {k.removeprefix("fps_embedding."): file.get_tensor(k) for k in file.keys() if k.startswith("fps_")}  # noqa: SIM118
    if mine:
        add_fps_embedding(unet)
        unet.fps_embedding.load_state_dict(mine)
