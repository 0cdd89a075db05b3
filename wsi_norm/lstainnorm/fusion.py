"""From one normalised image per colour space to one image: attention, and the plain alternatives.

Every fusion is a module that maps branches (B, S, 3, H, W) in [0, 1] to an image (B, 3, H, W) in
[0, 1]; equation numbers are those of Ke et al., Medical Image Analysis 101:103424, 2025.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_norm.lstainnorm.attention import direct_attention, linear_attention
from wsi_norm.lstainnorm.chebyshev import nodes_of
from wsi_norm.lstainnorm.config import MIN_WEIGHT, TOKEN_PX

AttentionForm = Literal["auto", "direct", "linear"]


class SingleFusion(nn.Module):
    """One space only: its branch is the image."""

    def forward(self, branches: Tensor) -> Tensor:
        """(B, 1, 3, H, W) -> (B, 3, H, W)."""
        return branches[:, 0]


class MeanFusion(nn.Module):
    """Constant weights: eq. 14 without attention."""

    def __init__(self, spaces: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(spaces))

    def forward(self, branches: Tensor) -> Tensor:
        """(B, S, 3, H, W) -> (B, 3, H, W)."""
        weight = self.weight.clamp_min(MIN_WEIGHT)
        return torch.einsum("s,bschw->bchw", weight / weight.sum(), branches).clamp(0, 1)


class ColourAttention(nn.Module):
    """Attention maps of the branches, each over its own space's tokens (eqs. 11 and 12).

    Queries and keys are 1x1 convolutions to one channel, max-pooled; values are pooled branches.
    """

    def __init__(self, spaces: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(3)  # torch's default for a convolution with three inputs
        self.query_weight = nn.Parameter(torch.empty(spaces, 3).uniform_(-bound, bound))
        self.query_bias = nn.Parameter(torch.empty(spaces).uniform_(-bound, bound))
        self.key_weight = nn.Parameter(torch.empty(spaces, 3).uniform_(-bound, bound))
        self.key_bias = nn.Parameter(torch.empty(spaces).uniform_(-bound, bound))
        self.form: AttentionForm = "auto"

    def nodes(self) -> int:
        """Chebyshev nodes that the present weights ask for; they never depend on the batch."""
        query, key = (
            w.detach().double().cpu().numpy() for w in (self.query_weight, self.key_weight)
        )
        return nodes_of(query, key)

    def forward(self, branches: Tensor) -> Tensor:
        """(B, S, 3, H, W) -> attention maps M of the same shape."""
        batch, spaces, _, height, width = branches.shape
        query = _tokens(_score(branches, self.query_weight, self.query_bias))
        key = _tokens(_score(branches, self.key_weight, self.key_bias))
        value = _tokens(branches)
        rows, columns = value.shape[-2:]
        query, key = (x.reshape(batch * spaces, rows * columns) for x in (query, key))
        attended = self._attend(query, key, value.reshape(batch * spaces, 3, rows * columns))
        maps = upsample(attended.reshape(batch * spaces, 3, rows, columns), height, width)
        return maps.reshape(branches.shape)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.form == "direct":
            return direct_attention(query, key, value)
        nodes = self.nodes()
        if self.form == "auto" and query.shape[-1] <= 2 * nodes:
            return direct_attention(query, key, value)
        return linear_attention(query, key, value, nodes)


class PaperFusion(nn.Module):
    """Step 4 of the paper as its figure draws it (eq. 14)."""

    def __init__(self, spaces: int) -> None:
        super().__init__()
        self.attention = ColourAttention(spaces)
        self.delta = nn.Parameter(torch.ones(spaces, 3))
        self.scale = nn.Parameter(torch.ones(spaces))
        self.shift = nn.Parameter(torch.ones(spaces))

    def forward(self, branches: Tensor) -> Tensor:
        """(B, S, 3, H, W) -> (B, 3, H, W)."""
        delta = self.delta.clamp_min(0)[:, :, None, None]
        evidence: Tensor = delta * self.attention(branches) + branches
        pixelwise = evidence / (evidence.sum(dim=1, keepdim=True) + 1e-7)
        scale, shift = self.scale[:, None, None, None], self.shift[:, None, None, None]
        weight = (scale * pixelwise + shift).clamp_min(MIN_WEIGHT)
        fused: Tensor = (weight * branches).sum(dim=1) / weight.sum(dim=1)
        return fused.clamp(0, 1)


class ProductFusion(nn.Module):
    """Step 4 as the paper's text reads: attention maps times branches, weighted over spaces."""

    def __init__(self, spaces: int) -> None:
        super().__init__()
        self.attention = ColourAttention(spaces)
        self.logits = nn.Parameter(torch.zeros(spaces))

    def forward(self, branches: Tensor) -> Tensor:
        """(B, S, 3, H, W) -> (B, 3, H, W)."""
        product = self.attention(branches) * branches
        return torch.einsum("s,bschw->bchw", self.logits.softmax(0), product).clamp(0, 1)


def upsample(tokens: Tensor, height: int, width: int) -> Tensor:
    """(M, C, h, w) tokens back to (M, C, height, width) pixels, bilinear, padding cropped."""
    size = tokens.shape[-2] * TOKEN_PX, tokens.shape[-1] * TOKEN_PX
    pixels = F.interpolate(tokens, size=size, mode="bilinear", align_corners=False)
    return pixels[..., :height, :width]


def _score(branches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution to one channel, per space: (B, S, 3, H, W) -> (B, S, 1, H, W)."""
    red, green, blue = (
        branches[:, :, channel] * weight[:, channel, None, None] for channel in range(3)
    )
    return (red + green + blue + bias[:, None, None]).unsqueeze(2)


def _tokens(maps: Tensor) -> Tensor:
    """Max-pool (B, S, C, H, W) to (B, S, C, h, w); edges replicated to a multiple of 8."""
    batch, spaces, channels, height, width = maps.shape
    flat = maps.reshape(batch * spaces, channels, height, width)
    padding = (0, -width % TOKEN_PX, 0, -height % TOKEN_PX)
    if any(padding):
        flat = F.pad(flat, padding, mode="replicate")
    pooled = F.max_pool2d(flat, TOKEN_PX)
    return pooled.reshape(batch, spaces, channels, *pooled.shape[-2:])
