"""Pixels whose colour H&E does not show, or that have lost their colour: counts of them.

uint8 (..., 3) in, bool (...) out. A pixel is a normaliser's fault where it is wrong in the output
and was not in the input.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

GREEN_OVER_RED, CYAN_GREEN_OVER_RED = 8, 10
BLUE_OVER_RED = 40
"""Levels of 255. H&E absorbs green at least as much as red, so green over red is no stain's."""
CRUSHED_BELOW = 16
TISSUE_ABSORBS = 0.05
"""Glass absorbs less than this share of its white in every channel."""


def greenish(rgb: UInt8) -> Mask:
    """Green (G > R + 8 and G > B), or cyan (B > R + 40 and G > R + 10)."""
    red, green, blue = _channels(rgb)
    leaf = (green > red + GREEN_OVER_RED) & (green > blue)
    cyan = (blue > red + BLUE_OVER_RED) & (green > red + CYAN_GREEN_OVER_RED)
    return np.asarray(leaf | cyan)


def bluish(rgb: UInt8) -> Mask:
    """Blue that is not haematoxylin's, which takes more green than red: B > R + 40, G > R.

    What is greenish does not count again. Of 24 usual H&E fields this flags 0.1 per thousand
    (median), of the bluest 8; half as much blue is no better a rule, for it flags nuclei.
    """
    red, green, blue = _channels(rgb)
    return np.asarray((blue > red + BLUE_OVER_RED) & (green > red) & ~greenish(rgb))


def crushed(rgb: UInt8) -> Mask:
    """Black: every channel below 16."""
    return np.asarray(rgb.max(axis=-1) < CRUSHED_BELOW)


def clipped(before: UInt8, after: UInt8, white: tuple[float, float, float]) -> Mask:
    """Tissue (it absorbs 5 % in some channel) with a channel at 255 that was not there before.

    Parameters
    ----------
    before, after
        uint8 (..., 3).
    white
        RGB of clear glass in [0, 1].
    """
    tissue = (before < (1 - TISSUE_ABSORBS) * 255 * np.array(white)).any(axis=-1)
    return np.asarray(tissue & ((after == 255) & (before < 255)).any(axis=-1))


COLOURS: dict[str, Callable[[UInt8], Mask]] = {
    "greenish": greenish,
    "bluish": bluish,
    "crushed": crushed,
}
FAULTS = (*COLOURS, "clipped")


def made(before: UInt8, after: UInt8, white: tuple[float, float, float]) -> dict[str, int]:
    """How many pixels have each fault in `after` and had it not in `before`."""
    counts = {
        name: int(np.count_nonzero(is_wrong(after) & ~is_wrong(before)))
        for name, is_wrong in COLOURS.items()
    }
    return counts | {"clipped": int(np.count_nonzero(clipped(before, after, white)))}


def _channels(rgb: UInt8) -> tuple[npt.NDArray[np.int16], ...]:
    return tuple(np.moveaxis(rgb.astype(np.int16), -1, 0))
