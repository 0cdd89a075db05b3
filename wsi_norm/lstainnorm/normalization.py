"""Step 1 and 2 of the layer: match mean and std in every colour space, return to RGB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from wsi_norm.colorspace import CONVERSIONS, HUE, Space
from wsi_norm.lstainnorm.template import Template

MAX_GAIN = 4.0
"""Contrast is raised at most this much: the floor of sigma is the target's std over it."""

GAMMA_RANGE = (0.2, 3.0)
"""Bounds of the learned std, in units of the template's."""

EPS = 1e-7


class SpaceNormalization(nn.Module):
    """xhat = gamma (x' - mu) / sigma + beta in every space, then back to RGB and clip (eq. 9).

    gamma and beta are the template's std and mean (buffers) plus trainable offsets in units of the
    template's std, zero at the start.
    """

    template_mean: Tensor
    template_std: Tensor

    def __init__(self, spaces: Sequence[Space], template: Template, circular_hue: bool) -> None:
        super().__init__()
        self.spaces = tuple(spaces)
        self.circular_hue = circular_hue
        self.register_buffer("template_mean", torch.tensor([template.mean[s] for s in spaces]))
        self.register_buffer("template_std", torch.tensor([template.std[s] for s in spaces]))
        self.mean_offset = nn.Parameter(torch.zeros(len(self.spaces), 3))
        self.std_offset = nn.Parameter(torch.zeros(len(self.spaces), 3))

    @property
    def target_mean(self) -> Tensor:
        """beta, (S, 3): the mean that is aimed at now."""
        return self.template_mean + self.template_std * self.mean_offset

    @property
    def target_std(self) -> Tensor:
        """gamma, (S, 3): the std that is aimed at now."""
        return self.template_std * (1 + self.std_offset).clamp(*GAMMA_RANGE)

    def convert(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) of every space."""
        return [CONVERSIONS[space].from_rgb(image) for space in self.spaces]

    def measure(
        self, image: Tensor, weight: Tensor, inside: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Weighted mean and std of every channel in every space.

        Parameters
        ----------
        image, weight
            (B, 3, H, W) and (B, 1, H, W); an image without weight gives mean 0.
        inside
            What `convert` gives, if it is known.

        Returns
        -------
        mean, std: (B, S, 3) each; differentiable.
        """
        low_precision = torch.finfo(image.dtype).bits < 32
        if low_precision:  # sums over a tile overflow half precision
            mean, std = self.measure(image.float(), weight.float())
            return mean.to(image.dtype), std.to(image.dtype)
        share = weight / weight.sum(dim=(-2, -1), keepdim=True).clamp_min(EPS)
        moments = [
            self._moments(channels[:, channel], share[:, 0], space, channel)
            for space, channels in zip(self.spaces, inside or self.convert(image), strict=True)
            for channel in range(3)
        ]
        mean, std = (torch.stack(values, dim=-1) for values in zip(*moments, strict=True))
        shape = len(image), len(self.spaces), 3
        return mean.reshape(shape), std.reshape(shape)

    def pool(
        self, mean: Tensor, std: Tensor, amount: Tensor, group: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and std over all images of a group, from those of each image.

        Parameters
        ----------
        mean, std
            (B, S, 3), as `measure` gives them.
        amount
            (B,): how much tissue each image has.
        group
            long (B,): images with equal numbers belong together.

        Returns
        -------
        mean, std: (B, S, 3) each, equal within a group; differentiable.
        """
        share = amount[:, None, None]
        share = share / shared(share, group, "sum").clamp_min(EPS)
        centre = shared(share * mean, group, "sum")
        within = std.square() + (mean - centre).square()
        spread = (shared(share * within, group, "sum") + 1e-12).sqrt()
        if not (self.circular_hue and HUE[0] in self.spaces):
            return centre, spread
        index = self.spaces.index(HUE[0]), HUE[1]
        length = (-std[:, *index].square() / 2).exp()
        angle = mean[:, *index]
        flat = share[:, 0, 0]
        sine = shared(flat * length * angle.sin(), group, "sum")
        cosine = shared(flat * length * angle.cos(), group, "sum")
        is_hue = torch.zeros_like(centre[0], dtype=torch.bool)
        is_hue[index] = True
        hue_mean, hue_std = (x[:, None, None] for x in _angle(sine, cosine))
        return torch.where(is_hue, hue_mean, centre), torch.where(is_hue, hue_std, spread)

    def forward(
        self, image: Tensor, mean: Tensor, std: Tensor, inside: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Branches (B, S, 3, H, W) in [0, 1] of an image whose mean and std are (B or 1, S, 3)."""
        inside = inside or self.convert(image)
        target, target_std = self.target_mean, self.target_std
        floor = target_std.detach() / MAX_GAIN
        gain = target_std / (torch.maximum(std, floor) + EPS)
        branches = []
        for index, space in enumerate(self.spaces):
            deviation = inside[index] - mean[:, index, :, None, None]
            if self.circular_hue and space == HUE[0]:
                deviation = torch.cat([_wrap(deviation[:, :1]), deviation[:, 1:]], dim=1)
            matched = gain[:, index, :, None, None] * deviation + target[index, :, None, None]
            branches.append(CONVERSIONS[space].to_rgb(matched).clamp(0, 1))
        return torch.stack(branches, dim=1)

    def _moments(
        self, x: Tensor, share: Tensor, space: Space, channel: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and std (B,) of one channel (B, H, W); `share` sums to one."""
        if self.circular_hue and (space, channel) == HUE:
            sine = (share * x.sin()).sum(dim=(-2, -1))
            cosine = (share * x.cos()).sum(dim=(-2, -1))
            return _angle(sine, cosine)
        mean = (share * x).sum(dim=(-2, -1))
        variance = (share * (x - mean[:, None, None]).square()).sum(dim=(-2, -1))
        return mean, (variance + 1e-12).sqrt()


def numbered(group: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of group (B,), sorted, and the place of each row's value among them."""
    values, place = torch.unique(group, return_inverse=True)
    return values, place


def shared(x: Tensor, group: Tensor, how: Literal["sum", "mean", "amax"]) -> Tensor:
    """x (B, ...) with every row replaced by the sum, mean or maximum over its group's rows."""
    _, number = numbered(group.to(x.device))
    index = number.view(-1, *[1] * (x.ndim - 1)).expand_as(x)
    pooled = x.new_zeros(int(number.max()) + 1, *x.shape[1:])
    return pooled.scatter_reduce(0, index, x, how, include_self=False).gather(0, index)


def _angle(sine: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
    """Circular mean in [0, 2 pi) and circular std of mean sine and cosine."""
    resultant = (sine.square() + cosine.square() + 1e-12).sqrt().clamp_max(1 - 1e-6)
    return torch.atan2(sine, cosine + 1e-12) % math.tau, (-2 * resultant.log()).sqrt()


def _wrap(angle: Tensor) -> Tensor:
    """An angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, math.tau) - math.pi
