"""VideoUNet: a UNet2DConditionModel of diffusers with temporal layers of our own, as VideoCrafter and LaVie have them.

Pictures run through the image UNet as one batch; the new layers see which of them are frames of one clip. The image UNet's keys do not change.

- videocrafter: after each residual block a temporal convolution (version 2), after each spatial transformer a temporal one, one more behind
  `conv_in`; the frame rate's embedding is added to the time's. Image-to-video: the first frame's tokens beside the text's.
- lavie: inside each transformer block, between text attention and feed-forward, a temporal attention; no temporal convolution.

Shapes: B clips, C channels, F frames and stills, N = B F, h and w in latents; L tokens of D channels.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from train_hooks.blocks import RotaryAttention, TemporalTransformer
from train_hooks.image_context import DualCrossAttention, ImageTokens
from train_hooks.joint import Layout, images_pass

WEIGHTS = "diffusion_pytorch_model.safetensors"
CLASS = "VideoUNet"
INIT_HEADS = 8  # of the temporal transformer behind conv_in: ModelScope, VideoCrafter


@dataclass(frozen=True)
class Style:
    """Which temporal layers there are.

    Attributes:
        longest: Frames that Shaw's positions distinguish; 0 for no positions.
        fps: Whether the frame rate is a condition.
        image: Channels of the tokens of a first frame that is seen beside the text; 0 for none.
    """

    architecture: Literal["videocrafter", "lavie"]
    temporal_convs: bool = False
    longest: int = 0
    fps: bool = False
    image: int = 0


class VideoUNet(nn.Module):
    """`video(x_BCFhw, t, text)` as UNet3DConditionModel; `layout` says how many of the F are stills."""

    def __init__(self, unet2d: Any, style: Style) -> None:
        super().__init__()
        self.unet = unet2d
        self.style = style
        self.layout = Layout()
        self.fps_B: Tensor | None = None
        if style.architecture == "videocrafter":
            self._add_videocrafter()
        else:
            self._add_lavie()
        images_pass(self, self.layout)

    @classmethod
    def like(cls, unet2d: Any, style: Style) -> "VideoUNet":
        """One with the sizes of an image UNet and random weights."""
        return cls(UNet2DConditionModel.from_config(unet2d.config), style)

    @property
    def config(self) -> Any:
        """The image UNet's."""
        return self.unet.config

    @property
    def dtype(self) -> torch.dtype:
        """The weights'."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The weights'."""
        return next(self.parameters()).device

    def _add_videocrafter(self) -> None:
        config = self.unet.config
        groups = config.norm_num_groups
        head_dim = next(m for m in self.unet.modules() if isinstance(m, Transformer2DModel)).config.attention_head_dim
        for module in list(self.unet.modules()):
            if isinstance(module, ResnetBlock2D) and self.style.temporal_convs:
                channels = module.out_channels
                module.temporal_conv = TemporalConvLayer(channels, channels, dropout=0.1, norm_num_groups=groups)
                module.register_forward_hook(self._after_resnet)
            elif isinstance(module, Transformer2DModel):
                heads, dim = module.config.num_attention_heads, module.config.attention_head_dim
                made = TemporalTransformer(module.in_channels, heads, dim, groups, self.style.longest)
                module.temporal_transformer = made
                module.register_forward_hook(self._after_transformer)
        first = config.block_out_channels[0]
        self.unet.init_attn = TemporalTransformer(first, INIT_HEADS, head_dim, groups, self.style.longest)
        self.unet.conv_in.register_forward_hook(lambda _, args, out: self.unet.init_attn(out, self.layout.each))
        if self.style.image:
            context = config.cross_attention_dim
            self.unet.image_proj = ImageTokens(self.style.image, context)
            for module in self.unet.modules():
                if isinstance(module, BasicTransformerBlock):
                    inner = module.attn2.inner_dim
                    module.attn2.set_processor(DualCrossAttention(inner, context, self.layout))
        if self.style.fps:
            self.unet.fps_embedding = TimestepEmbedding(first, 4 * first)
            condition_on_frame_rate(self.unet, self._fps_of_each)

    def _after_resnet(self, module: Any, args: Any, out: Tensor) -> Tensor:
        after: Tensor = module.temporal_conv(out, num_frames=self.layout.each)
        return after

    def _after_transformer(self, module: Any, args: Any, out: Any) -> tuple[Tensor]:
        return (module.temporal_transformer(out[0], num_frames=self.layout.each),)

    def _fps_of_each(self) -> Tensor | None:
        return None if self.fps_B is None else self.fps_B.repeat_interleave(self.layout.each)

    def _add_lavie(self) -> None:
        for module in list(self.unet.modules()):
            if isinstance(module, Transformer2DModel):
                blocks = module.transformer_blocks
                for i, block in enumerate(blocks):
                    blocks[i] = LavieBlock(block, self.layout)

    def temporal_outputs(self) -> list[nn.Module]:
        """The last layer of every temporal branch."""
        last: list[nn.Module] = []
        for module in self.modules():
            if isinstance(module, TemporalTransformer):
                last.append(module.proj_out)
            elif isinstance(module, TemporalConvLayer):
                last.append(module.conv4[-1])
            elif isinstance(module, LavieBlock):
                last.append(module.attn_temp.to_out[0])
            elif isinstance(module, DualCrossAttention):
                last.append(module.to_v_ip)
        if self.style.fps:
            last.append(self.unet.fps_embedding.linear_2)
        return last

    def forward(
        self,
        sample: Tensor,
        timestep: Any,
        encoder_hidden_states: Tensor,
        return_dict: bool = True,
        image_tokens: Tensor | None = None,
        **_: Any,
    ) -> Any:
        """The answer for `sample` (B, C, F, h, w).

        Args:
            sample: Noisy latents.
            timestep: One number, or one for each clip.
            encoder_hidden_states: One text for each clip (B, L, D), or for each frame (B, F, L, D).
            return_dict: As in diffusers: an object with `.sample`, or a tuple.
            image_tokens: What the image encoder sees in the first frame (B, L, `style.image`).
        """
        n_frames = sample.shape[2]
        if n_frames <= self.layout.images:
            raise ValueError(f"{n_frames} frames, {self.layout.images} of which should be stills")
        self.layout.frames = n_frames - self.layout.images
        t_B = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        text = encoder_hidden_states
        text_NLD = text.flatten(0, 1) if text.ndim == 4 else text.repeat_interleave(n_frames, dim=0)
        self.layout.text_tokens = text_NLD.shape[1]
        if image_tokens is not None:
            seen_BQD = self.unet.image_proj(image_tokens)
            text_NLD = torch.cat([text_NLD, seen_BQD.repeat_interleave(n_frames, dim=0)], dim=1)
        x_NChw = sample.transpose(1, 2).flatten(0, 1)
        out_NChw = self.unet(x_NChw, t_B.repeat_interleave(n_frames), text_NLD).sample
        out = out_NChw.unflatten(0, (-1, n_frames)).transpose(1, 2)
        return SimpleNamespace(sample=out) if return_dict else (out,)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and the weights, the image UNet's under its own keys."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        image = {key: value for key, value in self.unet.config.items() if not key.startswith("_")}
        config = {"_class_name": CLASS, "style": asdict(self.style), "image": image}
        (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
        save_file({key: value.contiguous() for key, value in self.unet.state_dict().items()}, folder / WEIGHTS)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "VideoUNet":
        """Reads what `save_pretrained` wrote."""
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        video = cls(UNet2DConditionModel.from_config(config["image"]), Style(**config["style"]))
        video.unet.load_state_dict(load_file(Path(folder) / WEIGHTS))
        return video.eval()


def condition_on_frame_rate(unet: Any, fps: Callable[[], Tensor | None]) -> None:
    """Adds to the time's embedding `unet.fps_embedding` of the rates that `fps()` gives, one for each timestep; nothing where it gives None."""

    def add(module: Any, args: Any, out: Tensor) -> Tensor:
        rates = fps()
        return out if rates is None else out + unet.fps_embedding(unet.time_proj(rates).to(out.dtype))

    unet.time_embedding.register_forward_hook(add)


class LavieBlock(nn.Module):
    """A transformer block of Stable Diffusion with a temporal attention before its feed-forward; stills go around it."""

    def __init__(self, block: BasicTransformerBlock, layout: Layout) -> None:
        super().__init__()
        self.norm1, self.attn1, self.norm2, self.attn2 = block.norm1, block.attn1, block.norm2, block.attn2
        channels = block.norm3.normalized_shape[0]
        heads = block.attn1.heads
        self.norm_temp = nn.LayerNorm(channels)
        self.attn_temp = RotaryAttention(channels, heads, channels // heads)
        self.norm3, self.ff = block.norm3, block.ff
        self._layout = layout
        self.last_branch: Tensor | None = None
        """What the temporal attention added in the last call without gradients, to be looked at."""

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        """(N, h w, D) to the same."""
        x_NLD = hidden_states
        x_NLD = x_NLD + self.attn1(self.norm1(x_NLD))
        x_NLD = x_NLD + self.attn2(self.norm2(x_NLD), encoder_hidden_states=encoder_hidden_states)
        branch_NLD = self._over_time(x_NLD)
        self.last_branch = None if torch.is_grad_enabled() else branch_NLD
        x_NLD = x_NLD + branch_NLD
        out: Tensor = x_NLD + self.ff(self.norm3(x_NLD))
        return out

    def _over_time(self, x_NLD: Tensor) -> Tensor:
        layout = self._layout
        frames_BTLD = x_NLD.unflatten(0, (-1, layout.each))[:, : layout.frames]
        size = frames_BTLD.shape
        frames_NTD = frames_BTLD.transpose(1, 2).flatten(0, 1)  # (B L, T, D)
        out_BTLD = self.attn_temp(self.norm_temp(frames_NTD)).unflatten(0, (size[0], size[2])).transpose(1, 2)
        stills = out_BTLD.new_zeros(size[0], layout.images, *size[2:])
        return torch.cat([out_BTLD, stills], dim=1).flatten(0, 1)
