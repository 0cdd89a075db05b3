"""Bytes to PyTorch's floats and back: uint8 (N, H, W, 3) and float (N, 3, H, W) in [0, 1]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wsi_norm.pixels import UInt8


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
