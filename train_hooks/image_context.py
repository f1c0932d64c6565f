"""A first frame that the UNet reads beside the text: VideoCrafter's image-to-video (arXiv 2310.19512).

Shapes: B clips, N = B T frames, L tokens, Q queries, D channels of a token.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train_hooks.joint import Layout


class DualCrossAttention(nn.Module):
    """For an `Attention` of diffusers (`attn.set_processor`): text tokens as before, image tokens by keys and values of their own.

    The image's values start at zero, so the answer is that of the text alone.
    """

    def __init__(self, channels: int, context: int, layout: Layout) -> None:
        super().__init__()
        self._layout = layout
        self.to_k_ip = nn.Linear(context, channels, bias=False)
        self.to_v_ip = nn.Linear(context, channels, bias=False)
        nn.init.zeros_(self.to_v_ip.weight)

    def forward(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """Softmax(Q K_text) V_text + Softmax(Q K_image) V_image, for (N, L, D) and context tokens (N, text + image, D)."""
        n = self._layout.text_tokens
        text, image = encoder_hidden_states[:, :n], encoder_hidden_states[:, n:]

        def heads(x: Tensor) -> Tensor:
            split: Tensor = x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return split

        q = heads(attn.to_q(hidden_states))
        out = F.scaled_dot_product_attention(q, heads(attn.to_k(text)), heads(attn.to_v(text)))
        if image.shape[1]:
            out = out + F.scaled_dot_product_attention(q, heads(self.to_k_ip(image)), heads(self.to_v_ip(image)))
        answer: Tensor = attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))
        return answer


class ImageTokens(nn.Module):
    """All tokens of a picture's encoder to a few that the UNet reads as context: a perceiver, as VideoCrafter's I2V has it.

    16 learned queries look at the picture and at each other in 4 layers of 12 heads of 64 channels (lvdm's ip_resampler.py; keys as there).
    """

    def __init__(
        self, width: int, context: int, depth: int = 4, heads: int = 12, head_dim: int = 64, queries: int = 16
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, queries, context) / context**0.5)
        self.proj_in = nn.Linear(width, context)
        self.layers = nn.ModuleList(
            nn.ModuleList([Perceive(context, heads, head_dim), _feed_forward(context)]) for _ in range(depth)
        )
        self.proj_out = nn.Linear(context, context)
        self.norm_out = nn.LayerNorm(context)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, 16, context)."""
        seen_BLD = self.proj_in(tokens_BLD)
        x_BQD = self.latents.expand(len(tokens_BLD), -1, -1)
        for layer in self.layers:
            perceive, feed_forward = layer.children()
            x_BQD = x_BQD + perceive(seen_BLD, x_BQD)
            x_BQD = x_BQD + feed_forward(x_BQD)
        out_BQD: Tensor = self.norm_out(self.proj_out(x_BQD))
        return out_BQD


class Perceive(nn.Module):
    """Queries attend to a picture's tokens and to themselves."""

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_kv = nn.Linear(channels, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, channels, bias=False)

    def forward(self, seen_BLD: Tensor, x_BQD: Tensor) -> Tensor:
        """(B, L, D) and (B, Q, D) to (B, Q, D)."""
        seen_BLD, x_BQD = self.norm1(seen_BLD), self.norm2(x_BQD)
        keys_values = self.to_kv(torch.cat([seen_BLD, x_BQD], dim=1)).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.to_q(x_BQD), *keys_values))
        out_BQD: Tensor = self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out_BQD


def _feed_forward(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(channels),
        nn.Linear(channels, 4 * channels, bias=False),
        nn.GELU(),
        nn.Linear(4 * channels, channels, bias=False),
    )
