"""The one resampler is Pillow's filter, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsi_norm.resampling import fit

EDGE = st.integers(1, 150)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_pillow(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Along rows, then along columns; Pillow alone chooses the order."""
    image = Image.fromarray(pixels)
    for size in ((width, image.height), (width, height)):
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)


@given(EDGE, EDGE, EDGE, EDGE, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_byte_is_pillows(
    height: int, width: int, fitted_height: int, fitted_width: int, seed: int
) -> None:
    pixels = noise(height, width, seed)
    expected = by_pillow(pixels, fitted_height, fitted_width)
    assert (fit(pixels, fitted_height, fitted_width) == expected).all()


@pytest.mark.parametrize("edge", [200, 256, 257, 300, 511, 512, 1024])
def test_tiles_of_usual_sizes(edge: int) -> None:
    pixels = noise(edge, edge)
    pixels[: edge // 2] = pixels[: edge // 2] // 128 * 255  # it overshoots, and is clipped
    assert (fit(pixels, 224, 224) == by_pillow(pixels, 224, 224)).all()


def test_views_and_read_only_pixels() -> None:
    whole = noise(80, 90)
    view = whole[5:70:2, 10:80]
    whole.setflags(write=False)
    assert (fit(view, 20, 30) == by_pillow(np.ascontiguousarray(view), 20, 30)).all()


def test_a_tile_of_the_right_size_is_left_alone() -> None:
    pixels = noise(32, 40)
    assert fit(pixels, 32, 40) is pixels
