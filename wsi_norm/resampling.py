"""Tiles to another size: Pillow's bicubic filter, to the bit, in a third of its time.

Keys' cubic (IEEE Trans. ASSP 29(6):1153-1160, 1981) with a = -1/2, stretched where it shrinks so
that nothing aliases: first along rows, then along columns, in integers, rounded to bytes in
between.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numba import njit

from wsi_norm.compiled import compiled
from wsi_norm.pixels import UInt8

BITS = 22
"""Of a weight after the point: with the 8 of a byte and its sign as many as an int32 holds."""

SUPPORT = 2
"""Half the filter's width, in px of whichever is coarser."""

LANES = 32
"""Rows that lie side by side, for vectors to go along rows."""

I32 = np.int32

Weights = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]
"""Of every px of an edge: the first one it is made of, (n,), and weights from there on, (n, k)."""


def fit(pixels: UInt8, height: int, width: int) -> UInt8:
    """uint8 (h, w, 3) at another size: bicubic, antialiased where it shrinks.

    Tiles of a run and of a training are resized by this alone.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    # Read-only pixels are another type to numba: all would be compiled anew.
    rows = np.require(pixels, requirements=["C", "W"]).reshape(len(pixels), -1)
    along, down = _weights(pixels.shape[1], width), _weights(pixels.shape[0], height)
    out = np.empty((height, 3 * width), np.uint8)
    _resize(rows, *along, *down, out)
    return out.reshape(height, width, 3)


@lru_cache(16)
def _weights(size: int, fitted: int) -> Weights:
    """What every one of `fitted` px is made of, along an edge of `size` px."""
    ratio = size / fitted
    stretch = max(ratio, 1.0)
    centre = (np.arange(fitted) + 0.5) * ratio
    first = np.maximum((centre - SUPPORT * stretch + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + SUPPORT * stretch + 0.5).astype(np.int64), size)
    place = first[:, None] + np.arange(2 * math.ceil(SUPPORT * stretch) + 1)
    away = np.abs(place + 0.5 - centre[:, None]) / stretch
    near, far = (1.5 * away - 2.5) * away**2 + 1, ((2.5 - 0.5 * away) * away - 4) * away + 2
    cubic = np.where(away < 1, near, far)
    cubic[(away >= SUPPORT) | (place >= end[:, None])] = 0
    whole = cubic / cubic.sum(axis=1, keepdims=True) * (1 << BITS)
    return first, np.trunc(whole + np.copysign(0.5, whole)).astype(np.int32)


@njit(forceinline=True)
def _add(sums, weight, values):  # type: ignore[no-untyped-def]
    for place in range(len(sums)):
        sums[place] += I32(weight * I32(values[place]))


@njit(forceinline=True)
def _byte(total):  # type: ignore[no-untyped-def]
    return min(max(total >> BITS, 0), 255)


@compiled(nogil=True)
def _resize(pixels, first_x, weights_x, first_y, weights_y, out):  # type: ignore[no-untyped-def]
    """uint8 (H, 3 W) to uint8 (h, 3 w)."""
    height, width, fitted = len(pixels), pixels.shape[1] // 3, len(first_x)
    strip = np.zeros((width + weights_x.shape[1], 3 * LANES), np.uint8)
    between = np.zeros((height + weights_y.shape[1], 3 * fitted), np.uint8)
    sums = np.empty(3 * LANES, np.int32)
    for top in range(0, height, LANES):
        count = min(LANES, height - top)
        for lane in range(count):
            for x in range(width):
                for channel in range(3):
                    strip[x, channel * LANES + lane] = pixels[top + lane, 3 * x + channel]
        for x in range(fitted):
            sums[:] = I32(1 << (BITS - 1))
            for tap in range(weights_x.shape[1]):
                _add(sums, weights_x[x, tap], strip[first_x[x] + tap])
            for lane in range(count):
                for channel in range(3):
                    between[top + lane, 3 * x + channel] = _byte(sums[channel * LANES + lane])
    row = np.empty(3 * fitted, np.int32)
    for y in range(len(out)):
        row[:] = I32(1 << (BITS - 1))
        for tap in range(weights_y.shape[1]):
            _add(row, weights_y[y, tap], between[first_y[y] + tap])
        for place in range(3 * fitted):
            out[y, place] = _byte(row[place])
