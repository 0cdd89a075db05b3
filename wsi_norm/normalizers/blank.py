"""Tiles of which nothing is known: whether there is tissue to measure in them.

A run knows its slide: where tissue lies, where ink. A tile that is given alone gets the same look
here, so that no noise of glass and no pen is turned into tissue.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wsi_norm.glass import TISSUE_ABSORPTION, white_level
from wsi_norm.lstainnorm.moments import MIN_TISSUE_SHARE
from wsi_norm.normalizers.base import Bools
from wsi_norm.pixels import UInt8
from wsi_norm.tissue import tissue_mask
from wsi_norm.tissue.density import optical_density

STEP_PX = 4
"""Every so many pixels are looked at first."""
PLAIN_SHARE = 0.2
"""So much of what is plainly stained needs no second look."""
PLAIN_BLUE, MOST_RED, LEAST_COLOUR = 0.8, 1.1, 0.9
"""H&E absorbs green most, by `density`: what absorbs at most so much blue is no red ink, what
absorbs more red is blue or green ink, and what absorbs so much of all is grey."""
MPP_UM = 0.5
"""Of a tile that does not say; the tissue mask hardly depends on it at a tile's size."""

Work = Callable[[UInt8], tuple[UInt8, Bools]]


def without_blank(tiles: UInt8, work: Work) -> tuple[UInt8, Bools]:
    """What `work` makes of the tiles that hold tissue; the others as they are, not usable."""
    there = np.array([holds_tissue(tile) for tile in tiles], np.bool_)
    if there.all():
        return work(tiles)
    out, usable = tiles.copy(), there.copy()
    if there.any():
        out[there], usable[there] = work(tiles[there])
    return out, usable


def holds_tissue(tile: UInt8) -> bool:
    """Whether a tile, uint8 (H, W, 3), holds stained tissue, and not ink, dust or noise alone."""
    some = tile[::STEP_PX, ::STEP_PX].reshape(-1, 3)
    absorbed = 1 - (some / (255 * white_level(some))).min(axis=1)
    stained = absorbed > TISSUE_ABSORPTION
    if stained.mean() >= PLAIN_SHARE:
        red, green, blue = optical_density(some)[stained].mean(axis=0)
        if red < green and blue < PLAIN_BLUE * green:
            return True
    found = tissue_mask(tile, MPP_UM)
    if found.mean() < MIN_TISSUE_SHARE:
        return False
    red, green, blue = optical_density(tile)[found].mean(axis=0)
    return bool(red <= MOST_RED * green and min(red, blue) <= LEAST_COLOUR * green)
