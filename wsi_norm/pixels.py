"""Pixels on their way: uint8 (N, H, W, 3) to float and back, and tiles to another size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

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


def to_float(tiles: UInt8) -> Tensor:
    """float32 (N, 3, H, W) in [0, 1] of uint8 (N, H, W, 3)."""
    return torch.tensor(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2).float() / 255


def to_levels(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3), rounded, of float (N, 3, H, W) in [0, 1]; on the same device."""
    levels = (images.detach() * 255).round_().clamp_(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous()


def to_bytes(images: Tensor) -> UInt8:
    """uint8 (N, H, W, 3) as an array, of float (N, 3, H, W) in [0, 1]: what a store would hold."""
    levels: UInt8 = to_levels(images).cpu().numpy()
    return levels


def fit(pixels: UInt8, height: int, width: int) -> UInt8:
    """uint8 (h, w, 3) at another size: bicubic, antialiased where it shrinks.

    Pillow's filter in PyTorch, which on bytes is six times as fast. Tiles of a run and of a
    training are resized by this alone.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    image = torch.tensor(pixels).permute(2, 0, 1)[None]
    fitted = F.interpolate(image, size=(height, width), mode="bicubic", antialias=True)
    return fitted[0].permute(1, 2, 0).numpy()
