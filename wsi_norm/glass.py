"""What is glass, and how white it is: one estimate for overviews, fields, tiles and groups.

Arrays in, numbers out; on bytes, because bytes are what slides hold and what a run meets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

BLACK = 8  # every channel (of 255) below: not scanned, or JPEG noise there
GLASS_SATURATION = 0.25  # largest (max - min) / max of glass; a yellow 240/225/205 has 0.15
GLASS_MAGENTA = 0.05  # largest (min(R, B) - G) / max of glass; pale H&E has more, tints less
GLASS_DARKEST = 128  # every channel of glass is at least this
WHITE_PERCENTILE = 99
DARKEST_WHITE = 0.5
"""Bounds the estimate from below, so that a black image has no "glass"."""
NEAR_WHITE = 0.93
"""Glass is at least this share of the high percentile in every channel."""
LEAST_GLASS = 0.005
"""A smaller share of the scanned pixels is no glass to be sure of."""

GLASS_ABSORPTION, TISSUE_ABSORPTION = 0.05, 0.15
"""Glass absorbs less than the first in every channel, tissue more than the second in one."""


def white_level(pixels: Rgb, tissue: Mask | None = None) -> Floats:
    """Colour of clear glass, float64 (3,) in [0, 1].

    The median of the bright background, padding and `tissue` left out. Hardly any background: each
    channel's 99th percentile, at least 0.5; or 1 where the only white is pure, as saturated glass.

    Parameters
    ----------
    pixels
        uint8 (..., 3): an overview, a tile, or all tiles of a slide or group.
    tissue
        bool (...): what is known to be none.
    """
    scanned = ~unscanned(pixels)
    counted = pixels[scanned]
    if not len(counted):
        return np.ones(3)
    high = np.maximum(_percentile(counted, WHITE_PERCENTILE) / 255.0, DARKEST_WHITE)
    if tissue is not None and (scanned & ~tissue).any():
        counted = pixels[scanned & ~tissue]
    lowest = np.ceil(NEAR_WHITE * 255.0 * high).astype(np.uint8)
    red, green, blue = (counted[..., channel] >= lowest[channel] for channel in range(3))
    bright = counted[red & green & blue]
    glass = bright[is_glass_coloured(bright)]
    if len(glass) >= LEAST_GLASS * scanned.sum():
        return _percentile(glass, 50) / 255.0
    pure = (_least(pixels) == 255).mean() >= LEAST_GLASS
    return np.ones(3) if pure else high


def unscanned(pixels: Rgb) -> Mask:
    """Pixels (..., 3) that the scanner did not record: pure white, or black."""
    return np.asarray((_least(pixels) == 255) | (_most(pixels) < BLACK), dtype=np.bool_)


def is_glass_coloured(pixels: Rgb) -> Mask:
    """Whether pixels (..., 3) are bright and nearly neutral, or tinted but not towards H&E."""
    saturation, magenta = saturation_magenta(pixels)
    bright = _least(pixels) >= GLASS_DARKEST
    return np.asarray(bright & (saturation < GLASS_SATURATION) & (magenta < GLASS_MAGENTA))


def saturation_magenta(pixels: NDArray[Any]) -> tuple[Floats, Floats]:
    """Of RGB (..., 3): (max - min) / max, and how far green lies below both others over max."""
    values = np.asarray(pixels, dtype=np.float64)
    brightest = np.maximum(_most(values), 1.0)
    saturation = (brightest - _least(values)) / brightest
    magenta = (np.minimum(values[..., 0], values[..., 2]) - values[..., 1]) / brightest
    return saturation, magenta


def _least(pixels: NDArray[Any]) -> NDArray[Any]:
    """The smallest channel of (..., 3): three planes are faster than a short axis."""
    return np.asarray(np.minimum(np.minimum(pixels[..., 0], pixels[..., 1]), pixels[..., 2]))


def _most(pixels: NDArray[Any]) -> NDArray[Any]:
    """The largest channel of (..., 3)."""
    return np.asarray(np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2]))


def _percentile(pixels: Rgb, percent: float) -> Floats:
    """numpy's percentile (n, 3) -> (3,), by counting: many times as fast on bytes."""
    place = percent / 100 * (len(pixels) - 1)
    below, above = int(np.floor(place)), int(np.ceil(place))
    levels = np.empty(3)
    for channel in range(3):
        reached = np.bincount(pixels[:, channel], minlength=256).cumsum()
        low, high = np.searchsorted(reached, (below, above), side="right")
        levels[channel] = np.percentile([low, high], 100 * (place - below))
    return levels
