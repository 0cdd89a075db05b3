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
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsi_norm.colorspace import LEAST_LIGHT, Space
from wsi_norm.glass import USUAL_WHITE
from wsi_norm.lstainnorm.background import never_greener
from wsi_norm.pixels import UInt8

OD: Space = "od"

LEAST_DENSITY = 0.1
"""Tissue is what is denser than this in some channel."""

STRONG = 0.95
"""Quantile of the tissue's densities that stands for nuclei."""

NUCLEI_GAIN = (0.2, 4.0)
"""Bounds of b: a slide with hardly any nuclei, or nothing else, is no reason to go further."""

STEEPEST = 2.0
"""Bound of S - s over the sum of s: below stroma, a channel's noise grows threefold at most."""

UNLIKE = 5.0
"""Stroma that absorbs so many times more or less than the target's is worth a warning."""

LEAST_SPREAD = 1e-4

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


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


def counts_of(pixels: UInt8, white: Sequence[float]) -> Counts:
    """How often each byte is seen in each channel of pixels (n, 3), where they are tissue."""
    dense = byte_densities(white)
    channels = range(3)
    tissue = np.any([dense[c][pixels[:, c]] > LEAST_DENSITY for c in channels], axis=0)
    return np.stack([np.bincount(pixels[tissue, c], minlength=256) for c in channels])


def density_of_counts(counts: Counts, white: Sequence[float]) -> Floats:
    """As `measure_density`, of how often each byte was seen: counts (3, 256) to (2, 3)."""
    dense = byte_densities(white)
    levels = np.zeros((2, 3))
    for channel, (own, seen) in enumerate(zip(dense, counts, strict=True)):
        reached = seen[::-1].cumsum()  # the darker a byte, the denser
        if not reached[-1]:
            continue
        for row, quantile in enumerate((0.5, STRONG)):
            place = quantile * (reached[-1] - 1)
            ends = np.searchsorted(reached, (np.floor(place), np.ceil(place)), side="right")
            low, high = own[::-1][ends]
            levels[row, channel] = low + (high - low) * (place - np.floor(place))
    levels[1] -= levels[0]
    return levels


def byte_densities(white: Sequence[float]) -> Floats:
    """Density of every byte in every channel, (3, 256), relative to glass."""
    light = np.maximum(np.arange(256) / 255, LEAST_LIGHT)
    dense: Floats = np.maximum(0, np.log(white)[:, None] - np.log(light))
    return dense


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


def doubts(
    location: Sequence[float],
    spread: Sequence[float],
    target: Sequence[float],
    target_spread: Sequence[float],
) -> list[str]:
    """Where a slide is unlike the target: a line for stroma, one for nuclei."""
    lines = []
    stroma, nuclei = (
        np.maximum(aim, LEAST_SPREAD) / np.maximum(own, LEAST_SPREAD)
        for aim, own in ((target, location), (target_spread, spread))
    )
    if (np.abs(np.log(stroma)) > np.log(UNLIKE)).any():
        lines.append(
            "colours unlike the target's: its stroma absorbs red, green and blue "
            f"{_listed(stroma)} times as much as this slide's (which may have one stain only)"
        )
    if (nuclei < NUCLEI_GAIN[0]).any() or (nuclei > NUCLEI_GAIN[1]).any():
        lines.append(
            "colours unlike the target's: its nuclei stand out from stroma by "
            f"{_listed(nuclei)} times as much in red, green and blue as this slide's (which may "
            "have hardly any, or nothing else); bounded"
        )
    return lines


def _listed(values: Floats) -> str:
    return ", ".join(f"{value:.2g}" for value in values)


def light(dense: Tensor) -> Tensor:
    """RGB of densities relative to glass, on a slide with the usual glass."""
    return USUAL_WHITE * torch.exp(-dense)


def recoloured(dense: Tensor, matched: Tensor) -> Tensor:
    """RGB of matched densities, (B, 3, H, W).

    What matching does to colours that the statistics do not speak of has a bound: no pixel becomes
    greener than red that was not. Purple nuclei of a very red slide would turn teal.
    """
    return never_greener(light(dense), light(matched))
