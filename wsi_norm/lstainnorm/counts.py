"""Density measured by counting bytes: its bounds, its median and spread, and doubts about them.

What they mean stands in `density.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsi_norm.pixels import UInt8
from wsi_norm.spaces import LEAST_LIGHT, Space

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
