"""Temporal layers: what the video UNets put between, after and inside the layers of Stable Diffusion.

| layer | source |
|---|---|
| `TemporalTransformer` | two self-attentions over frames, a feed-forward (ModelScope; VideoCrafter, its first version with Shaw positions) |
| `ShawAttention` | relative positions in keys and values (Shaw et al. 2018), clipped |
| `RotaryAttention` | rotary embedding (Su et al. 2021) on 32 channels of each head, and T5's relative bias: LaVie's `attn_temp` |

Temporal convolutions are diffusers' `TemporalConvLayer`, which is ModelScope's. Every layer starts as the identity: its last layer is zero.

Shapes: B clips, T frames, N = B T, or B h w where attention is over frames; C channels, h and w in latents; D channels of a token.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

ROTARY_CHANNELS = 32  # of each head: LaVie's base/models/attention.py
BIAS_BUCKETS, BIAS_DISTANCE = 32, 32  # the same


class FrameAttention(nn.Module):
    """Self-attention over frames: (N, T, D) to (N, T, D). Keys are named as in diffusers and lvdm."""

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads, self.scale = heads, head_dim**-0.5
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(channels, inner, bias=False)
        self.to_v = nn.Linear(channels, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, channels), nn.Dropout(0.0))

    def forward(self, x_NTD: Tensor) -> Tensor:
        """Attends over the frames."""
        q, k, v = (layer(x_NTD).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in self._qkv())
        out_NTD: Tensor = self.to_out(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return out_NTD

    def _qkv(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.to_q, self.to_k, self.to_v

    def attend(self, q_NHTd: Tensor, k_NHTd: Tensor, v_NHTd: Tensor) -> Tensor:
        """Softmax of scaled products: heads H of d channels."""
        out_NHTd: Tensor = F.scaled_dot_product_attention(q_NHTd, k_NHTd, v_NHTd, scale=self.scale)
        return out_NHTd


class ShawAttention(FrameAttention):
    """Adds a learned vector for the distance j - i, clipped to +-`longest`, to key and value (Shaw et al. 2018, equations 3 and 4)."""

    def __init__(self, channels: int, heads: int, head_dim: int, longest: int) -> None:
        super().__init__(channels, heads, head_dim)
        self.relative_position_k = RelativePosition(head_dim, longest)
        self.relative_position_v = RelativePosition(head_dim, longest)

    def attend(self, q_NHTd: Tensor, k_NHTd: Tensor, v_NHTd: Tensor) -> Tensor:
        """Softmax of scaled products of queries with keys and with distances."""
        n = q_NHTd.shape[2]
        distances = torch.einsum("nhid,ijd->nhij", q_NHTd, self.relative_position_k(n))
        weights = ((q_NHTd @ k_NHTd.transpose(-1, -2) + distances) * self.scale).softmax(-1)
        out_NHTd: Tensor = weights @ v_NHTd + torch.einsum("nhij,ijd->nhid", weights, self.relative_position_v(n))
        return out_NHTd


class RelativePosition(nn.Module):
    """A vector for each distance between frames; those further apart than `longest` share the last."""

    def __init__(self, head_dim: int, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.embeddings_table = nn.Parameter(torch.empty(2 * longest + 1, head_dim))
        nn.init.xavier_uniform_(self.embeddings_table)

    def forward(self, n: int) -> Tensor:
        """The vectors of all pairs, (n, n, d)."""
        at = torch.arange(n, device=self.embeddings_table.device)
        vectors: Tensor = self.embeddings_table[
            (at[None] - at[:, None]).clamp(-self.longest, self.longest) + self.longest
        ]
        return vectors


class RotaryAttention(FrameAttention):
    """LaVie's temporal attention: queries and keys are rotated by their time, and a bias for the distance is added."""

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__(channels, heads, head_dim)
        self.time_rel_pos_bias = RelativeBias(heads)
        self.rotated = min(ROTARY_CHANNELS, head_dim)

    def attend(self, q_NHTd: Tensor, k_NHTd: Tensor, v_NHTd: Tensor) -> Tensor:
        """Softmax of scaled products of rotated queries and keys, with the bias."""
        q, k = rotate(q_NHTd, self.rotated), rotate(k_NHTd, self.rotated)
        bias_1HTT = self.time_rel_pos_bias(q.shape[2])[None].to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v_NHTd, attn_mask=bias_1HTT, scale=self.scale)


class RelativeBias(nn.Module):
    """T5's bias for the distance between frames (Raffel et al. 2020): exact for near ones, in logarithmic buckets for others."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(BIAS_BUCKETS, heads)

    def forward(self, n: int) -> Tensor:
        """The bias of all pairs, (H, n, n)."""
        at = torch.arange(n, device=self.relative_attention_bias.weight.device)
        bias: Tensor = self.relative_attention_bias(bucket_of(at[None] - at[:, None])).permute(2, 0, 1)
        return bias


def bucket_of(distance: Tensor) -> Tensor:
    """The bucket of j - i, 0 to 31: the upper half for later frames; within each, 8 exact ones and 8 that widen up to distance 32."""
    half, exact = BIAS_BUCKETS // 2, BIAS_BUCKETS // 4
    size = distance.abs()
    share = torch.log(size.clamp(min=1) / exact) / math.log(BIAS_DISTANCE / exact)
    far = (exact + share * (half - exact)).long().clamp(max=half - 1)
    return torch.where(size < exact, size, far) + half * (distance > 0)


def rotate(x_NHTd: Tensor, channels: int) -> Tensor:
    """Rotates pairs of the first channels by the frame's number times 10000 ** (-2 i / channels)."""
    turned, rest = x_NHTd[..., :channels], x_NHTd[..., channels:]
    i = torch.arange(0, channels, 2, device=x_NHTd.device, dtype=torch.float32)
    time = torch.arange(x_NHTd.shape[2], device=x_NHTd.device, dtype=torch.float32)
    angles = (time[:, None] * 10000.0 ** (-i / channels)).repeat_interleave(2, dim=-1)
    pairs = turned.unflatten(-1, (-1, 2))
    quarter = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return torch.cat([(turned * angles.cos() + quarter * angles.sin()).to(x_NHTd.dtype), rest], dim=-1)


class TemporalBlock(nn.Module):
    """Two self-attentions over frames and a feed-forward, each with its norm and residual."""

    def __init__(self, attention: Callable[[], FrameAttention], channels: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = attention(), attention()
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x_NTD: Tensor) -> Tensor:
        """(N, T, D) to (N, T, D)."""
        x_NTD = x_NTD + self.attn1(self.norm1(x_NTD))
        x_NTD = x_NTD + self.attn2(self.norm2(x_NTD))
        out: Tensor = x_NTD + self.ff(self.norm3(x_NTD))
        return out


class TemporalTransformer(nn.Module):
    """Norm, projection, a `TemporalBlock` over the frames of every place, projection (zero at the start), residual."""

    def __init__(self, channels: int, heads: int, head_dim: int, groups: int, longest: int = 0) -> None:
        super().__init__()
        inner = heads * head_dim

        def attention() -> FrameAttention:
            return ShawAttention(inner, heads, head_dim, longest) if longest else FrameAttention(inner, heads, head_dim)

        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(attention, inner)])
        self.proj_out = nn.Linear(inner, channels)

    def forward(self, x_NChw: Tensor, num_frames: int = 1) -> Tensor:
        """(N, C, h, w) to the same, N = B `num_frames`."""
        x_BCThw = x_NChw.unflatten(0, (-1, num_frames)).transpose(1, 2)
        size = x_BCThw.shape
        x_NTD = self.norm(x_BCThw).permute(0, 3, 4, 2, 1).flatten(0, 2)  # (B h w, T, C)
        x_NTD = self.proj_in(x_NTD)
        for block in self.transformer_blocks:
            x_NTD = block(x_NTD)
        out_BThwC = self.proj_out(x_NTD).unflatten(0, (size[0], *size[3:]))
        out_NChw: Tensor = x_NChw + out_BThwC.permute(0, 3, 4, 1, 2).flatten(0, 1)
        return out_NChw
