"""Bytes to floats and back; the one resampler, against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from wsi_norm.pixels import as_batch, fit, to_bytes, to_float


def tiles(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    small = Image.fromarray(tiles(height // 8, width // 8, 3))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


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


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (100, 90), (150, 200)])
def test_fitting_is_pillows_bicubic(size: tuple[int, int]) -> None:
    """Up to two levels, of noise: both filter bytes with antialiasing, and round in between."""
    pixels = smooth(128, 96)
    expected = np.asarray(
        Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC)
    ).astype(int)
    difference = np.abs(fit(pixels, *size).astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.15


def test_a_tile_of_the_right_size_is_left_alone() -> None:
    pixels = tiles(32, 40, 3)
    assert fit(pixels, 32, 40) is pixels
