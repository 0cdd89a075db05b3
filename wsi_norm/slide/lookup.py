"""Colours by a table of all of them: one look-up a pixel, in one thread, without the GIL."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from wsi_norm.compiled import compiled

UInt8 = npt.NDArray[np.uint8]

_READ = types.Array(types.uint8, 2, "C", readonly=True)
_WRITTEN = types.Array(types.uint8, 2, "C")
_SIGNATURE = types.void(_READ, _READ, _WRITTEN)


@compiled(_SIGNATURE, nogil=True)
def _look_up(pixels, table, found):  # type: ignore[no-untyped-def]
    for index in range(pixels.shape[0]):
        red, green, blue = pixels[index, 0], pixels[index, 1], pixels[index, 2]
        row = (np.int64(red) << 16) | (np.int64(green) << 8) | np.int64(blue)
        found[index, 0] = table[row, 0]
        found[index, 1] = table[row, 1]
        found[index, 2] = table[row, 2]


def looked_up(pixels: UInt8, table: UInt8) -> UInt8:
    """Rows of `table`, uint8 (2**24, 3), by pixels (N, 3): red is the slowest index."""
    found = np.empty_like(pixels)
    _look_up(pixels, table, found)
    return found
