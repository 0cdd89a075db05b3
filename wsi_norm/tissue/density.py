"""Optical density relative to the image's own clear glass: ``-log10(rgb / white)``.

Ratios between the channels' densities tell dyes apart whatever their amount. By Ruifrok and
Johnston (Anal Quant Cytol Histol 2001, 23:291), haematoxylin has R/G 0.93 and B/G 0.41, eosin
R/G 0.07 and B/G 0.11: green is absorbed most. Blue and green ink absorb red most, red ink absorbs
blue as strongly as green, black ink absorbs all alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from wsi_norm.glass import white_level

Rgb = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


BAND_PX = 1 << 14
"""So many pixels' densities fit into a core's cache, and those of a whole overview into none."""


def optical_density(pixels: Rgb) -> Floats:
    """Density of uint8 (..., 3), float64 (..., 3), at least 0."""
    return np.ascontiguousarray(np.moveaxis(densities(pixels, density_of_bytes(pixels)), 0, -1))


def density_of_bytes(pixels: Rgb) -> Floats:
    """Density that a byte has in each channel of uint8 (..., 3), float64 (3, 256), at least 0."""
    white = 255.0 * white_level(pixels)
    of_bytes = -np.log10(np.maximum(np.arange(256.0), 1.0) / white[:, None])
    return np.asarray(np.maximum(of_bytes, 0.0))


def densities(pixels: Rgb, of_bytes: Floats) -> Floats:
    """`optical_density` channel by channel, (3, ...): many times as fast to go on with."""
    dense = np.empty((3, *pixels.shape[:-1]))
    for channel in range(3):
        of_bytes[channel].take(pixels[..., channel], out=dense[channel], mode="clip")  # unbuffered
    return dense


def bands(image: Rgb) -> Iterator[slice]:
    """Rows of (h, w, 3), a few at a time: for what is done pixel by pixel."""
    height, width, _ = image.shape
    rows = max(1, BAND_PX // width)
    return (slice(top, top + rows) for top in range(0, height, rows))
