"""The layer as one would write it down from the paper: kornia, softmax over N x N, float32.

Ke et al., Medical Image Analysis 101:103424, 2025: eqs. 9, 11, 12 and 14 (docs/layer.md). Each
tile has its own statistics; glass is transformed like tissue. What our layer's speed is held to.
"""

from __future__ import annotations

import math

import torch
from kornia import color
from torch import Tensor, nn
from torch.nn import functional as F

TO = {"rgb": lambda x: x, "lab": color.rgb_to_lab, "hsv": color.rgb_to_hsv}
BACK = {"rgb": lambda u: u, "lab": color.lab_to_rgb, "hsv": color.hsv_to_rgb}


class PlainLayer(nn.Module):
    """RGB in [0, 1], (1, 3, H, W) with H and W multiples of 8, to the same."""

    def __init__(self, mean: dict[str, Tensor], std: dict[str, Tensor]) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.query = nn.ModuleDict({space: nn.Conv2d(3, 1, 1) for space in TO})
        self.key = nn.ModuleDict({space: nn.Conv2d(3, 1, 1) for space in TO})
        self.delta = nn.Parameter(torch.ones(len(TO), 3, 1, 1))
        self.scale = nn.Parameter(torch.ones(len(TO), 1, 1, 1))
        self.shift = nn.Parameter(torch.ones(len(TO), 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Step 4: fusion of the spaces' images."""
        y = torch.cat([self.normalized(x, space) for space in TO])
        maps = torch.cat([self.attention(y[i : i + 1], space) for i, space in enumerate(TO)])
        evidence = self.delta.clamp_min(0) * maps + y
        weight = self.scale * evidence / (evidence.sum(0) + 1e-7) + self.shift
        weight = weight.clamp_min(1e-3)
        return ((weight * y).sum(0, keepdim=True) / weight.sum(0)).clamp(0, 1)

    def normalized(self, x: Tensor, space: str) -> Tensor:
        """Steps 1 and 2: the moments of a space, back in RGB."""
        u = TO[space](x)
        mean, std = u.mean((2, 3), keepdim=True), u.std((2, 3), keepdim=True)
        u = self.std[space] * (u - mean) / (std + 1e-7) + self.mean[space]
        if space == "hsv":
            u = torch.cat([u[:, :1] % (2 * math.pi), u[:, 1:].clamp(0, 1)], 1)
        return BACK[space](u).clamp(0, 1)

    def attention(self, y: Tensor, space: str) -> Tensor:
        """Step 3."""
        query = F.max_pool2d(self.query[space](y), 8).flatten(2)
        key = F.max_pool2d(self.key[space](y), 8).flatten(2)
        value = F.max_pool2d(y, 8)
        share = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        attended = (value.flatten(2) @ share.transpose(1, 2)).reshape(value.shape)
        return F.interpolate(attended, y.shape[2:], mode="bilinear", align_corners=False)
