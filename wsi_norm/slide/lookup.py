"""Colours by a table of all of them: one look-up a pixel, in one thread, without the GIL."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types

UInt8 = npt.NDArray[np.uint8]

_READ = types.Array(types.uint8, 2, "C", readonly=True)
_WRITTEN = types.Array(types.uint8, 2, "C")
_SIGNATURE = types.void(_READ, _READ, _WRITTEN)


def _compiled(function: Any) -> Any:
    """Once per machine; in every process where there is no folder to keep it."""
    try:
        return njit(_SIGNATURE, nogil=True, cache=True)(function)
    except RuntimeError:
        return njit(_SIGNATURE, nogil=True)(function)


@_compiled
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
