"""Whether an overview image can be stained tissue on clear glass at all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsi_norm.glass import (
    GLASS_SATURATION,
    chosen,
    least,
    most,
    percentile,
    percentiles,
    saturation_magenta,
    unscanned,
)

Rgb = npt.NDArray[np.uint8]

DARK = 40  # every channel (of 255) below; fluorescence is mostly dark
LIGHT = 100  # every channel above: glass, pale tissue
LEAST_LIGHT = 0.05  # of what is not dark: none in fluorescence, 0.09 in the darkest of 96 fields
FIELD_SATURATION = 0.48  # largest of a field's palest tissue: 0.41 in 1757 fields of 15 sources


def is_fluorescence(thumbnail: Rgb) -> bool:
    """Whether a uint8 (h, w, 3) image is light on dark: mostly dark, and the rest not near white.

    How much is dark says nothing by itself: it may be padding around a small scan.
    """
    dark = most(thumbnail) < DARK
    if dark.mean() <= 0.6:
        return False
    light = least(thumbnail)[~dark] >= LIGHT
    return not light.size or bool(light.mean() < LEAST_LIGHT)


def colour_problem(thumbnail: Rgb) -> str | None:
    """Say why a uint8 (h, w, 3) image cannot be stained tissue on clear glass, or None if it can.

    Looks at the brightest pixels: glass is nearly neutral; a field of tissue without glass is
    pale pink to violet, with green the least. YCbCr samples taken for RGB are neither.
    """
    scanned = ~unscanned(thumbnail)
    if not scanned.any():
        return None if thumbnail.max() == 255 else "the image is black everywhere"
    pixels = chosen(thumbnail, scanned)
    brightness = pixels.sum(axis=-1, dtype=np.uint16)
    brightest = percentiles(chosen(pixels, brightness >= percentile(brightness, 98)), 50)
    words = "RGB " + "/".join(f"{value:.0f}" for value in brightest)
    grey = percentile(most(pixels) - least(pixels), 99.9) <= 2
    if grey and percentile(pixels.reshape(-1), 5) < 0.8 * brightest.max():
        return "the image is grey everywhere; a channel may be taken for all three"
    if brightest.max() < 128:
        return f"even the brightest part is dark ({words})"
    saturation, magenta = saturation_magenta(brightest)
    gaudy = saturation > FIELD_SATURATION
    if gaudy or (saturation > GLASS_SATURATION and magenta < 0.25 * saturation):
        return f"the glass is not neutral ({words})"
    return None
