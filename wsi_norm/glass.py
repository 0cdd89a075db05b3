"""Clear glass: its colour, and which pixels of an image can be it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Rgb = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

BLACK_PADDING = 8  # every channel below: not scanned, or JPEG noise there
GLASS_SATURATION = 0.25  # largest (max - min) / max of glass; a yellow 240/225/205 has 0.15
GLASS_MAGENTA = 0.05  # largest (min(R, B) - G) / max of glass; pale H&E has more, tints less


def white_level(thumbnail: Rgb, tissue: Mask | None = None) -> Floats:
    """Colour of clear glass, float64 (3,) in [0, 1].

    The median of the bright background of a uint8 (h, w, 3) image, padding and `tissue`, bool
    (h, w), left out. Hardly any background: each channel's 99th percentile, at least 0.5.
    """
    candidates = ~unscanned(thumbnail)
    if not candidates.any():
        return np.ones(3)
    pixels = thumbnail[candidates]
    high = np.maximum(np.percentile(pixels, 99, axis=0) / 255.0, 0.5)
    if tissue is not None and (candidates & ~tissue).any():
        pixels = thumbnail[candidates & ~tissue]
    glass = pixels[is_glass_coloured(pixels) & (pixels >= 0.93 * 255.0 * high).all(axis=-1)]
    if len(glass) < 0.005 * candidates.sum():
        return np.asarray(high, dtype=np.float64)
    return np.asarray(np.median(glass, axis=0) / 255.0, dtype=np.float64)


def unscanned(thumbnail: Rgb) -> Mask:
    """Pixels the scanner did not record: pure white, or black."""
    white = (thumbnail == 255).all(axis=-1)
    return np.asarray(white | (thumbnail < BLACK_PADDING).all(axis=-1), dtype=np.bool_)


def is_glass_coloured(pixels: Rgb) -> Mask:
    """Whether uint8 (..., 3) pixels are bright and nearly neutral."""
    saturation, magenta = saturation_magenta(pixels)
    bright = pixels.min(axis=-1) >= 128
    return np.asarray(bright & (saturation < GLASS_SATURATION) & (magenta < GLASS_MAGENTA))


def saturation_magenta(pixels: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Of RGB (..., 3): (max - min) / max, and how far green lies below both others over max."""
    values = np.asarray(pixels, dtype=np.float64)
    brightest = np.maximum(values.max(axis=-1), 1.0)
    saturation = (brightest - values.min(axis=-1)) / brightest
    magenta = (np.minimum(values[..., 0], values[..., 2]) - values[..., 1]) / brightest
    return saturation, magenta
