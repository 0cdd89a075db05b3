"""Power sums of tensors, per image and per group of images: what `moments.py` makes moments of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsi_norm.colorspace import CONVERSIONS
from wsi_norm.lstainnorm.counts import OD, counts_of
from wsi_norm.lstainnorm.moments import NO_PIVOT, PIVOT, MomentPool
from wsi_norm.spaces import HUE, Space
from wsi_norm.tensors import to_bytes


def power_sums(
    inside: Sequence[Tensor], weight: Tensor, spaces: Sequence[Space], circular_hue: bool
) -> Tensor:
    """Weighted sums over each image: of every channel's distance from its pivot, and its square.

    Parameters
    ----------
    inside
        (B, 3, H, W) of every space.
    weight
        (B, 1, H, W).
    circular_hue
        Hue's two sums are those of sine and cosine.

    Returns
    -------
    (B, S, 3, 2); differentiable.
    """
    sums = []
    for space, channels in zip(spaces, inside, strict=True):
        x = channels - channels.new_tensor(PIVOT.get(space, NO_PIVOT))[:, None, None]
        first, second = x, x.square()
        if circular_hue and space == HUE[0]:
            angle = channels[:, HUE[1]]
            first = _with_channel(first, HUE[1], angle.sin())
            second = _with_channel(second, HUE[1], angle.cos())
        sums.append(torch.stack([(weight * p).sum(dim=(-2, -1)) for p in (first, second)], dim=-1))
    return torch.stack(sums, dim=1)


def add_pixels(pool: MomentPool, pixels: Tensor, weight: Tensor) -> None:
    """Take pixels (B, 3, H, W) in [0, 1] with weights (B, 1, H, W) in [0, 1] into a pool."""
    inside = [CONVERSIONS[space].from_rgb(pixels).double() for space in pool.spaces]
    sums = power_sums(inside, weight.double(), pool.spaces, pool.circular_hue)
    counts = np.zeros((3, 256), np.int64)
    if OD in pool.spaces:
        assert pool.white is not None
        seen = to_bytes(pixels)[(weight > 0)[:, 0].cpu().numpy()]
        counts = counts_of(seen, pool.white)
    total = float(weight.double().sum())
    pool.add_sums(sums.sum(dim=0).cpu().numpy(), counts, total, weight.numel())


def numbered(group: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of group (B,), sorted, and the place of each row's value among them."""
    values, place = torch.unique(group, return_inverse=True)
    return values, place


def shared(x: Tensor, group: Tensor, how: Literal["sum", "mean"]) -> Tensor:
    """x (B, ...) with every row replaced by the sum or mean over its group's rows."""
    _, number = numbered(group.to(x.device))
    index = number.view(-1, *[1] * (x.ndim - 1)).expand_as(x)
    pooled = x.new_zeros(int(number.max()) + 1, *x.shape[1:])
    return pooled.scatter_reduce(0, index, x, how, include_self=False).gather(0, index)


def _with_channel(x: Tensor, channel: int, values: Tensor) -> Tensor:
    """x (B, 3, H, W) with one channel replaced by (B, H, W), out of place."""
    planes = list(x.unbind(1))
    planes[channel] = values
    return torch.stack(planes, dim=1)
