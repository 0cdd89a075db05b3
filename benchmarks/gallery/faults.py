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
GREY_BELOW, COLOURED = 20, 40
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

    What is greenish does not count again. As they are scanned, the 24 MoNuSeg fields have 0.1 per
    thousand of it in the median, the bluest 8; by B > R + 40 alone it would be 78, its nuclei.
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


def greyed(before: UInt8, after: UInt8) -> Mask:
    """Colour that is lost: max - min below 20 where it was 40 or more.

    A rule of its own, in no sum: nuclei and folds that turn slate or olive without being green
    come under it, and so does tissue that is made pale on purpose.
    """
    return np.asarray((np.ptp(after, axis=-1) < GREY_BELOW) & (np.ptp(before, axis=-1) >= COLOURED))


COLOURS: dict[str, Callable[[UInt8], Mask]] = {
    "greenish": greenish,
    "bluish": bluish,
    "crushed": crushed,
}
FAULTS = (*COLOURS, "clipped")
"""What is summed up."""


def made(before: UInt8, after: UInt8, white: tuple[float, float, float]) -> dict[str, int]:
    """How many pixels of `after` have each of FAULTS and had it not in `before`; and `greyed`."""
    counts = {
        name: int(np.count_nonzero(is_wrong(after) & ~is_wrong(before)))
        for name, is_wrong in COLOURS.items()
    }
    others = {"clipped": clipped(before, after, white), "greyed": greyed(before, after)}
    return counts | {name: int(np.count_nonzero(mask)) for name, mask in others.items()}


def _channels(rgb: UInt8) -> tuple[npt.NDArray[np.int16], ...]:
    return tuple(np.moveaxis(rgb.astype(np.int16), -1, 0))
