"""The same network with the same weights and keys, laid out for a compiler. Results are those of the plain network within rounding.

- 2D convolutions in channels_last.
- Temporal convolutions, 3 x 1 x 1 in three dimensions, as one matrix product for each of the three frames that they see (`gemm`) or as
  one-dimensional convolutions over the frames of every place (`conv1d`).
- Attention over few keys without flash kernels, whose tiles are larger than a clip has frames: two batched products and a softmax.
- `compile_blocks`: torch.compile block by block.

What each is worth on a GPU is what `benchmarks/train_gpu.py` measures. Without the compiler nothing of it helps: on an H200 the steps were
.81 times as fast, for the copies that change the layout (benchmarks/results/training.md). With it nothing is known yet.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from train_hooks.checkpointing import BLOCKS
from train_hooks.errors import StoppedBySignal, TrainError

FEW_KEYS = 32  # attention over no more keys is written out; ours
KINDS_OF_BLOCKS = 256
"""How often torch.compile may compile one `forward`, 8 by itself, then blocks stay as they are: Stable Diffusion's UNet has residual blocks
of 12 pairs of widths, for every size of clips that a training sees. Ours."""
TemporalConv = Literal["gemm", "conv1d", "conv3d"]


def speed_up(
    unet: Any, temporal_conv: TemporalConv = "gemm", short_attention: bool = True, channels_last: bool = True
) -> int:
    """Changes a UNet in place; returns how many temporal convolutions were found. `conv3d` leaves them as they are."""
    n = 0
    over_frames = {"gemm": GemmOverFrames, "conv1d": Conv1dOverFrames, "conv3d": nn.Conv3d}[temporal_conv]
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            if channels_last:
                module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d) and module.kernel_size == (3, 1, 1):
            # One class for all, because torch 2.11 recompiles the block for every module with a `forward` of its own.
            module.__class__ = over_frames
            n += 1
        elif short_attention and isinstance(module, Attention) and type(module.processor) is AttnProcessor2_0:
            module.set_processor(ShortAttention())
    return n


class Conv1dOverFrames(nn.Conv3d):
    """A 3 x 1 x 1 convolution as a one-dimensional one over the frames of every place."""

    def forward(self, x_BCThw: Tensor) -> Tensor:  # noqa: D102
        size = x_BCThw.shape
        x_NCT = x_BCThw.permute(0, 3, 4, 1, 2).flatten(0, 2)
        y_NCT = F.conv1d(x_NCT, self.weight[:, :, :, 0, 0], self.bias, padding=1)
        y_BCThw: Tensor = y_NCT.unflatten(0, (size[0], *size[3:])).permute(0, 3, 4, 1, 2)
        return y_BCThw


class GemmOverFrames(nn.Conv3d):
    """A 3 x 1 x 1 convolution where every frame is a sum of three linear layers: of the frame before, its own and the one behind."""

    def forward(self, x_BCThw: Tensor) -> Tensor:  # noqa: D102
        x_BThwC = x_BCThw.permute(0, 2, 3, 4, 1)
        before, own, behind = (self.weight[:, :, k, 0, 0] for k in range(3))
        y_BThwC = F.linear(x_BThwC, own, self.bias)
        if x_BCThw.shape[2] > 1:
            y_BThwC = y_BThwC + F.pad(F.linear(x_BThwC[:, :-1], before), (0, 0, 0, 0, 0, 0, 1, 0))
            y_BThwC = y_BThwC + F.pad(F.linear(x_BThwC[:, 1:], behind), (0, 0, 0, 0, 0, 0, 0, 1))
        return y_BThwC.permute(0, 4, 1, 2, 3)


class ShortAttention(AttnProcessor2_0):  # type: ignore[misc]
    """diffusers' attention, but written out where there are few keys and queries: the frames of one place."""

    def __call__(  # noqa: D102
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        plain = attn.group_norm is None and attn.spatial_norm is None and not attn.norm_cross
        short = hidden_states.ndim == 3 and hidden_states.shape[1] <= FEW_KEYS
        if encoder_hidden_states is not None or attention_mask is not None or not plain or not short:
            out: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb, **kwargs)
            return out
        q, k, v = (layer(hidden_states).unflatten(-1, (attn.heads, -1)) for layer in (attn.to_q, attn.to_k, attn.to_v))
        if attn.norm_q is not None:
            q = attn.norm_q(q)
        if attn.norm_k is not None:
            k = attn.norm_k(k)
        scores = torch.einsum("nqhd,nkhd->nhqk", q, k) * q.shape[-1] ** -0.5
        seen = torch.einsum("nhqk,nkhd->nqhd", scores.softmax(dim=-1).to(v.dtype), v).flatten(-2)
        answer: Tensor = attn.to_out[1](attn.to_out[0](seen))
        if attn.residual_connection:
            answer = answer + hidden_states
        scaled: Tensor = answer / attn.rescale_output_factor
        return scaled


def compile_blocks(unet: Any, **options: Any) -> int:
    """torch.compile for every block of residual and temporal layers and transformers, in place; returns how many.

    Block by block, because there are few kinds of blocks and many of each: a graph of the whole net takes minutes for every size. State dict and
    results stay (within rounding). A set of sizes that does not change is compiled once for each. `options` go to torch.compile.
    """
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, KINDS_OF_BLOCKS)
    n = 0
    inside: set[int] = set()
    for module in unet.modules():
        if isinstance(module, BLOCKS) and id(module) not in inside:
            inside |= {id(child) for child in module.modules()}
            module.compile(dynamic=False, **options)
            n += 1
    return n


@contextmanager
def compiler_errors(signals: Sequence[int]) -> Iterator[None]:
    """Tells in one sentence what torch.compile could not do, as TrainError.

    Ctrl-C ends the compilers, too, that torch has at work: with a signal among `signals` a failure is that, as StoppedBySignal.
    """
    try:
        yield
    except TorchDynamoException as error:
        if signals:
            message = (
                "stopped while torch.compile was at work; the newest checkpoint is kept: the same command resumes there"
            )
            raise StoppedBySignal(signals[0], message) from error
        cause = getattr(error, "inner_exception", error)  # the error itself says at length where in torch it came up
        reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise TrainError(f"torch.compile failed: {reason}; --set compile=false trains without it") from error
