"""Step 1 and 2 of the layer: match mean and std in every colour space, return to RGB."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsi_norm.colorspace import CONVERSIONS
from wsi_norm.lstainnorm.config import GAMMA_RANGE, MAX_GAIN
from wsi_norm.lstainnorm.counts import OD
from wsi_norm.lstainnorm.density import density, matched_density, measure_density, recoloured
from wsi_norm.lstainnorm.moments import EPS, MIN_TISSUE_SHARE, mean_and_std
from wsi_norm.lstainnorm.sums import power_sums, shared
from wsi_norm.lstainnorm.template import Template
from wsi_norm.spaces import HUE, Space


class Matching(nn.Module):
    """A target in several colour spaces: template (buffers) and trainable offsets, zero at first.

    Raises
    ------
    ValueError
        The template lacks a colour space.
    """

    template_mean: Tensor
    template_std: Tensor

    def __init__(self, spaces: Sequence[Space], template: Template) -> None:
        super().__init__()
        missing = [s for s in spaces if s not in template.mean or s not in template.std]
        if missing:
            raise ValueError(f"the template lacks colour space {missing[0]!r}")
        self.spaces = tuple(spaces)
        self.register_buffer("template_mean", torch.tensor([template.mean[s] for s in spaces]))
        self.register_buffer("template_std", torch.tensor([template.std[s] for s in spaces]))
        self.mean_offset = nn.Parameter(torch.zeros(len(self.spaces), 3))
        self.std_offset = nn.Parameter(torch.zeros(len(self.spaces), 3))

    def convert(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) of every space."""
        return [CONVERSIONS[space].from_rgb(image) for space in self.spaces]


class SpaceNormalization(Matching):
    """xhat = gamma (x' - mu) / sigma + beta in every space, then back to RGB and clip (eq. 9).

    gamma and beta are the template's std and mean plus offsets in units of the template's std.
    """

    def __init__(self, spaces: Sequence[Space], template: Template, circular_hue: bool) -> None:
        super().__init__(spaces, template)
        self.circular_hue = circular_hue

    @property
    def target_mean(self) -> Tensor:
        """beta, (S, 3): the mean that is aimed at now."""
        return self.template_mean + self.template_std * self.mean_offset

    @property
    def target_std(self) -> Tensor:
        """gamma, (S, 3): the std that is aimed at now."""
        return self.template_std * (1 + self.std_offset).clamp(*GAMMA_RANGE)

    def measure(
        self,
        image: Tensor,
        weight: Tensor,
        inside: Sequence[Tensor] | None = None,
        group: Tensor | None = None,
        white: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted mean and std of every channel in every space, of each image or each group.

        Those of `od` are the median and the spread above it; see `wsi_norm.lstainnorm.density`.

        Parameters
        ----------
        image, weight
            (B, 3, H, W) and (B, 1, H, W).
        inside
            What `convert` gives, if it is known.
        group
            long (B,): images with equal numbers are measured together.
        white
            (B, 3, 1, 1) or (3, 1, 1): RGB of clear glass, for density; None: 1.

        Returns
        -------
        mean, std: (B, S, 3) each, equal within a group; differentiable. And bool (B,): whether
        there is tissue enough to rely on them.
        """
        if torch.finfo(image.dtype).bits < 32:  # sums over a tile overflow half precision
            mean, std, usable = self.measure(
                image.float(), weight.float(), group=group, white=white
            )
            return mean.to(image.dtype), std.to(image.dtype), usable
        inside = inside or self.convert(image)
        sums = power_sums(inside, weight, self.spaces, self.circular_hue)
        amount = weight.sum(dim=(-3, -2, -1))
        pixels = torch.full_like(amount, weight[0].numel())
        if group is not None:
            sums, amount, pixels = (shared(x, group, "sum") for x in (sums, amount, pixels))
        mean, std = mean_and_std(sums, amount, self.spaces, self.circular_hue)
        if OD in self.spaces:
            place = self.spaces.index(OD)
            robust = measure_density(density(inside[place], white), weight > 0, group)
            is_od = torch.arange(len(self.spaces), device=mean.device)[:, None] == place
            mean, std = (
                torch.where(is_od, own[:, None], moment)
                for own, moment in zip(robust, (mean, std), strict=True)
            )
        return mean, std, amount >= (MIN_TISSUE_SHARE * pixels).clamp_min(1)

    def measure_rgb(
        self, image: Tensor, weight: Tensor, group: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Weighted mean and std (B, 3) of R, G, B, of each image or each group; no gradient."""
        with torch.no_grad():
            pixels, weight = image.float(), weight.float()
            sums = power_sums([pixels], weight, ("rgb",), circular_hue=False)
            amount = weight.sum(dim=(-3, -2, -1))
            if group is not None:
                sums, amount = (shared(x, group, "sum") for x in (sums, amount))
            mean, std = mean_and_std(sums, amount, ("rgb",), circular_hue=False)
        return mean[:, 0], std[:, 0]

    def forward(
        self,
        image: Tensor,
        mean: Tensor,
        std: Tensor,
        inside: Sequence[Tensor] | None = None,
        white: Tensor | None = None,
    ) -> Tensor:
        """Branches (B, S, 3, H, W) in [0, 1] of an image whose mean and std are (B or 1, S, 3)."""
        inside = inside or self.convert(image)
        target, target_std = self.target_mean, self.target_std
        floor = target_std.detach() / MAX_GAIN
        gain = target_std / (torch.maximum(std, floor) + EPS)
        branches = []
        for index, space in enumerate(self.spaces):
            if space == OD:
                dense = density(inside[index], white)
                own = mean[:, index], std[:, index], target[index], target_std[index]
                branches.append(recoloured(dense, matched_density(dense, *own)))
                continue
            deviation = inside[index] - mean[:, index, :, None, None]
            if self.circular_hue and space == HUE[0]:
                deviation = torch.cat([_wrap(deviation[:, :1]), deviation[:, 1:]], dim=1)
            matched = gain[:, index, :, None, None] * deviation + target[index, :, None, None]
            branches.append(CONVERSIONS[space].to_rgb(matched).clamp(0, 1))
        return torch.stack(branches, dim=1)


def _wrap(angle: Tensor) -> Tensor:
    """An angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, math.tau) - math.pi
