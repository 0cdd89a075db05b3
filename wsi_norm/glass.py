"""What is glass, and how white it is: one estimate for overviews, fields, tiles and groups.

Arrays in, numbers out; on bytes, because bytes are what slides hold and what a run meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

BLACK = 8  # every channel (of 255) below: not scanned, or JPEG noise there
GLASS_SATURATION = 0.25  # largest (max - min) / max of glass; a yellow 240/225/205 has 0.15
GLASS_MAGENTA = 0.05  # largest (min(R, B) - G) / max of glass; pale H&E has more, tints less
GLASS_DARKEST = 128  # every channel of glass is at least this
USUAL_WHITE = 0.95  # of glass in every channel, in most scanners: 240 to 246 of 255 were seen
DIMMEST_GLASS = 0.75  # a little glass is at least this bright in a channel; a yellow one has 0.87
PLENTY_OF_GLASS = 0.25  # of the scanned pixels: then it may be dimmer, and of any tint
LEAST_WHITE, MOST_MAGENTA = 0.88, 0.08  # of less: it may be pale tissue, which absorbs green most
FILL_PX = 16  # black fill is black over a square of this
RIM_PX, RIM_LEVEL = 8, 48  # a JPEG block around fill, and how bright its ringing gets there
LIGHT_FILL = 220  # padding this bright and neutral passes for glass
PADDED_LINES = 4  # fewer constant lines at an edge may be chance
WHITE_PERCENTILE = 99
DARKEST_WHITE = 0.5
"""Bounds the estimate from below, so that a black image has no "glass"."""
NEAR_WHITE = 0.93
"""Glass is at least this share of the high percentile in every channel."""
LEAST_GLASS = 0.005
"""A smaller share of the scanned pixels is no glass to be sure of."""

GLASS_ABSORPTION, TISSUE_ABSORPTION = 0.05, 0.15
"""Glass absorbs less than the first in every channel, tissue more than the second in one."""


LEAST_SATURATED, LEAST_MAGENTA = (
    np.array([(np.arange(256) / max(most, 1) < limit).sum() for most in range(256)], np.uint8)
    for limit in (GLASS_SATURATION, GLASS_MAGENTA)
)
"""By a pixel's largest byte: the least difference of two that is too large for glass."""


def white_level(pixels: Rgb, tissue: Mask | None = None) -> Floats:
    """Colour of clear glass, float64 (3,) in [0, 1]; a neutral one where no glass is seen.

    See `glass_level`; without glass it is USUAL_WHITE, or the brightest channel if that is more.
    """
    level = glass_level(pixels, tissue)
    return neutral_white(pixels) if level is None else level


def white_of_tiles(tiles: Rgb | Sequence[Rgb]) -> Floats:
    """`white_level` of tiles (H, W, 3) of one slide, of any sizes; fill in them does not count."""
    fills = [fill_mask(tile) for tile in tiles]
    if isinstance(tiles, np.ndarray) and all(fill is None for fill in fills):
        return white_level(tiles)
    kept = [t if f is None else t[~f] for t, f in zip(tiles, fills, strict=True)]
    return white_level(np.concatenate([pixels.reshape(-1, 3) for pixels in kept]))


def glass_level(pixels: Rgb, tissue: Mask | None = None) -> Floats | None:
    """Colour of the glass in an image, float64 (3,) in [0, 1]; None where hardly any is seen.

    The median of the bright background, padding, fill and `tissue` left out; 1 where the only
    white is pure, as saturated glass is.

    Parameters
    ----------
    pixels
        uint8 (..., 3): an overview, a tile, or all tiles of a slide or group.
    tissue
        bool (...): what is known to be none.
    """
    scanned = ~unscanned(pixels)
    counted = chosen(pixels, scanned)
    if not len(counted):
        return np.ones(3) if (least(pixels) == 255).any() else None
    high = percentiles(counted, WHITE_PERCENTILE)
    if tissue is not None and (scanned & ~tissue).any():
        counted = chosen(pixels, scanned & ~tissue)
    lowest = np.ceil(NEAR_WHITE * np.maximum(high, 255 * DARKEST_WHITE)).astype(np.uint8)
    red, green, blue = (counted[..., channel] >= lowest[channel] for channel in range(3))
    bright = chosen(counted, red & green & blue)
    glass = chosen(bright, is_glass_coloured(bright))
    if len(glass) >= LEAST_GLASS * scanned.sum():
        level = percentiles(glass, 50) / 255.0
        if len(glass) >= PLENTY_OF_GLASS * scanned.sum():
            return level
        return bounded(level) if level.max() >= DIMMEST_GLASS else None
    return np.ones(3) if (least(pixels) == 255).mean() >= LEAST_GLASS else None


def bounded(level: Floats) -> Floats:
    """A white (3,) as bright as glass is at least, and with as much green."""
    brightest = max(level.max(), LEAST_WHITE)
    white: Floats = level * (brightest / level.max())
    white[1] = max(white[1], (1 - MOST_MAGENTA) * brightest)
    return white


def neutral_white(pixels: Rgb) -> Floats:
    """What glass would be beside pixels (..., 3) that show none."""
    scanned = chosen(pixels, ~unscanned(pixels))
    brightest = percentiles(scanned, WHITE_PERCENTILE).max() / 255.0 if len(scanned) else 0.0
    return np.full(3, max(USUAL_WHITE, brightest))


def fill_mask(tile: Rgb) -> Mask | None:
    """Pixels that no scanner saw, bool (H, W): black or constant padding; None if there are none.

    Parameters
    ----------
    tile
        uint8 (H, W, 3) at full resolution.

    Notes
    -----
    Fill is black over a whole square of FILL_PX (with the dark rim that JPEG gives it), or whole
    rows or columns of one colour at an edge, as tools pad. True black, pigment and ink, is finer
    than such squares, or not that black. White padding is no fill: it is as good as glass.
    """
    fill = np.zeros(tile.shape[:2], np.bool_)
    black = most(tile) < BLACK
    if np.count_nonzero(black) >= min(FILL_PX**2, black.size):
        size = tuple(min(FILL_PX, edge) for edge in black.shape)
        core = ndimage.binary_opening(np.pad(black, FILL_PX, mode="edge"), np.ones(size, np.bool_))
        core = core[FILL_PX:-FILL_PX, FILL_PX:-FILL_PX]
        if core.any():
            near = ndimage.binary_dilation(core, np.ones((2 * RIM_PX + 1,) * 2, np.bool_))
            fill |= core | (near & (most(tile) < RIM_LEVEL))
    for axis in (0, 1):
        for backwards in (False, True):
            lines = np.moveaxis(tile, axis, 0)[:: -1 if backwards else 1]
            count = _padded_lines(lines)
            if count:
                edge = slice(-count, None) if backwards else slice(count)
                np.moveaxis(fill, axis, 0)[edge] = True
    return fill if fill.any() else None


def _is_light(colour: Rgb) -> bool:
    """Whether a colour (3,) is as good as glass, so that it needs no care."""
    return bool(colour.max() >= LIGHT_FILL and is_glass_coloured(colour))


def _padded_lines(lines: Rgb) -> int:
    """How many lines from the first on are of one and the same colour, if that is padding."""
    colour = lines[0, 0]
    if _is_light(colour) or not (lines[:PADDED_LINES] == colour).all():
        return 0
    same = (lines == colour).reshape(len(lines), -1).all(axis=1)
    count = len(same) if same.all() else int(same.argmin())
    return count if count >= PADDED_LINES else 0


def unscanned(pixels: Rgb) -> Mask:
    """Pixels (..., 3) that the scanner did not record: pure white, or black."""
    return np.asarray((least(pixels) == 255) | (most(pixels) < BLACK), dtype=np.bool_)


def is_glass_coloured(pixels: Rgb) -> Mask:
    """Whether pixels (..., 3) are bright and nearly neutral, or tinted but not towards H&E."""
    brightest, darkest = most(pixels), least(pixels)
    glass = np.asarray(darkest >= GLASS_DARKEST, np.bool_)
    glass &= brightest - darkest < LEAST_SATURATED[brightest]
    others = np.minimum(pixels[..., 0], pixels[..., 2])
    green = pixels[..., 1]
    glass &= (others <= green) | (others - green < LEAST_MAGENTA[brightest])
    return glass


def saturation_magenta(pixels: NDArray[Any]) -> tuple[Floats, Floats]:
    """Of RGB (..., 3): (max - min) / max, and how far green lies below both others over max."""
    values = np.asarray(pixels, dtype=np.float64)
    brightest = np.maximum(most(values), 1.0)
    saturation = (brightest - least(values)) / brightest
    magenta = (np.minimum(values[..., 0], values[..., 2]) - values[..., 1]) / brightest
    return saturation, magenta


def chosen(pixels: Rgb, mask: Mask) -> Rgb:
    """`pixels[mask]`, (n, 3), of (..., 3): channel by channel, ten times as fast."""
    return np.stack([pixels[..., channel][mask] for channel in range(3)]).T


def least(pixels: NDArray[Any]) -> NDArray[Any]:
    """The smallest channel of (..., 3): three planes are faster than a short axis."""
    return np.asarray(np.minimum(np.minimum(pixels[..., 0], pixels[..., 1]), pixels[..., 2]))


def most(pixels: NDArray[Any]) -> NDArray[Any]:
    """The largest channel of (..., 3)."""
    return np.asarray(np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2]))


def percentiles(pixels: Rgb, percent: float) -> Floats:
    """`percentile` of each channel, (n, 3) -> (3,)."""
    return np.array([percentile(pixels[:, channel], percent) for channel in range(3)])


def percentile(values: NDArray[np.unsignedinteger], percent: float) -> float:
    """numpy's percentile of small numbers (n,), by counting: many times as fast."""
    place = percent / 100 * (len(values) - 1)
    reached = np.bincount(values).cumsum()
    ends = np.searchsorted(reached, (np.floor(place), np.ceil(place)), side="right")
    return float(np.percentile(ends, 100 * (place - np.floor(place))))
