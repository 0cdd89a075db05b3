"""Density: how stroma and nuclei of a slide absorb light, and how they are matched.

Optical density is taken relative to the slide's own glass, channel by channel:

    d = max(0, -ln(max(x, 1/255) / white))

Over tissue, where d exceeds LEAST_DENSITY in some channel, the median s stands for stroma and the
95th percentile n for nuclei. With S and N, those of the target, a pixel becomes

    d' = d + t (S - s) + (b - 1) min(max(d - s, 0), n - s)      at least 0
    t  = min(1, sum of d over channels / sum of s)              b = (N - S) / (n - s)

So stroma becomes the target's, and nuclei stand out from it as the target's do. What is paler is
shifted by as much as it holds of stroma's density: glass stays, and S - s is bounded (STEEPEST), so
that on a very pale slide noise does not become colour. What is denser than nuclei (folds, pigment,
ink) keeps what it differs by.

A layer keeps s as the "mean" of the space `od` and n - s as its "std".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wsi_norm.glass import USUAL_WHITE
from wsi_norm.lstainnorm.background import never_greener
from wsi_norm.lstainnorm.counts import (
    LEAST_DENSITY,
    LEAST_SPREAD,
    NUCLEI_GAIN,
    STEEPEST,
    STRONG,
)


def density(od: Tensor, white: Tensor | None) -> Tensor:
    """Density relative to glass (None: 1), at least 0, of density relative to 1, (..., 3, H, W)."""
    return (od if white is None else od + white.to(od).log()).clamp_min(0)


def measure_density(dense: Tensor, counted: Tensor, group: Tensor | None) -> tuple[Tensor, Tensor]:
    """Median, and how far the 95th percentile lies above it, over tissue.

    Parameters
    ----------
    dense
        (B, 3, H, W), relative to glass.
    counted
        bool (B, 1, H, W): what may be tissue.
    group
        long (B,): images with equal numbers are measured together; None: each by itself.

    Returns
    -------
    (B, 3) each, equal within a group, zero where there is no tissue; differentiable.
    """
    tissue = (dense.detach().amax(1, keepdim=True) > LEAST_DENSITY) & counted
    numbers = torch.arange(len(dense)) if group is None else group.cpu()
    levels = dense.new_zeros(2, len(dense), 3)
    for number in set(numbers.tolist()):
        own = numbers == number
        chosen = dense[own].movedim(1, -1)[tissue[own][:, 0]]
        if len(chosen):
            ordered = chosen.sort(dim=0).values
            both = torch.stack([_at(ordered, quantile) for quantile in (0.5, STRONG)])
            levels = torch.where(own.to(levels.device)[None, :, None], both[:, None], levels)
    return levels[0], levels[1] - levels[0]


def _at(ordered: Tensor, quantile: float) -> Tensor:
    """A quantile of sorted rows (n, 3): between the two nearest, as numpy's default."""
    place = quantile * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def matched_density(
    dense: Tensor, location: Tensor, spread: Tensor, target: Tensor, target_spread: Tensor
) -> Tensor:
    """Matched densities (B, 3, H, W); own location and spread (B or 1, 3), the target's (3,)."""
    stroma = location.sum(-1, keepdim=True).clamp_min(LEAST_SPREAD)
    amount = (dense.sum(1, keepdim=True) / stroma[..., None, None]).clamp_max(1)
    shift = torch.minimum(target - location, STEEPEST * stroma)
    more = _gain(spread, target_spread) - 1
    location, spread, shift, more = (x[..., None, None] for x in (location, spread, shift, more))
    nuclei = torch.minimum((dense - location).clamp_min(0), spread)
    return (dense + amount * shift + more * nuclei).clamp_min(0)


def _gain(spread: Tensor, target_spread: Tensor) -> Tensor:
    return (target_spread / spread.clamp_min(LEAST_SPREAD)).clamp(*NUCLEI_GAIN)


def light(dense: Tensor) -> Tensor:
    """RGB of densities relative to glass, on a slide with the usual glass."""
    return USUAL_WHITE * torch.exp(-dense)


def recoloured(dense: Tensor, matched: Tensor) -> Tensor:
    """RGB of matched densities, (B, 3, H, W).

    What matching does to colours that the statistics do not speak of has a bound: no pixel becomes
    greener than red that was not. Purple nuclei of a very red slide would turn teal.
    """
    return never_greener(light(dense), light(matched))
