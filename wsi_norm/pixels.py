"""Pixels as the package knows them: uint8 (N, H, W, 3), RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]


def as_batch(tiles: Any) -> UInt8:
    """uint8 (N, H, W, 3) of a batch, of one (H, W, 3) tile or of a list of equal tiles.

    Raises
    ------
    ValueError
        Anything else; one line says what was given and what to do.
    """
    if isinstance(tiles, list | tuple) and all(isinstance(tile, np.ndarray) for tile in tiles):
        if len({tile.shape for tile in tiles}) > 1:
            raise ValueError("tiles of different sizes are no batch: give them one by one")
        tiles = np.stack(tiles) if tiles else np.empty((0, 1, 1, 3), np.uint8)
    if not isinstance(tiles, np.ndarray):
        raise ValueError(f"tiles must be a numpy array, uint8 (N, H, W, 3), not {type(tiles)}")
    batch = tiles[None] if tiles.ndim == 3 else tiles
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3 or 0 in batch.shape[1:]:
        what = f"{tiles.dtype} {tiles.shape}"
        raise ValueError(f"tiles must be uint8 (N, H, W, 3), RGB from 0 to 255, not {what}")
    return batch
