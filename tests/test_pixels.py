"""Batches of bytes; bytes to floats and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsi_norm.pixels import as_batch
from wsi_norm.tensors import to_bytes, to_float


def tiles(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_a_batch_or_one_tile() -> None:
    assert as_batch(tiles(2, 5, 4, 3)).shape == (2, 5, 4, 3)
    assert as_batch(tiles(5, 4, 3)).shape == (1, 5, 4, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        tiles(5, 4),
        tiles(2, 5, 4, 4),
        tiles(2, 0, 4, 3),
        tiles(1, 5, 4, 3).astype(float),
    ],
)
def test_anything_else_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="tiles must be uint8"):
        as_batch(wrong)


def test_every_byte_survives_the_way_to_floats_and_back() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    assert (to_bytes(to_float(every)) == every).all()
    assert to_float(every)[0, :, 15, 15].tolist() == [1.0, 1.0, 1.0]


def test_floats_are_rounded_and_clipped() -> None:
    image = (
        torch.tensor([-0.2, 0.4999 / 255, 0.5001 / 255, 1.2]).view(1, 1, 2, 2).repeat(1, 3, 1, 1)
    )
    assert to_bytes(image)[0, ..., 0].tolist() == [[0, 0], [1, 255]]
