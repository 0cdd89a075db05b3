"""A look-up in a table of all colours: the row of each pixel."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_norm.slide.lookup import looked_up

SIDE = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("number", [0, 1, 1000])
def test_each_pixel_finds_its_row(number: int) -> None:
    red, green, blue = np.meshgrid(SIDE, SIDE, SIDE, indexing="ij")
    table = np.stack([blue, red ^ green, 255 - red], axis=-1).reshape(-1, 3)
    pixels = np.random.default_rng(number).integers(0, 256, (number, 3), np.uint8)
    pixels.flags.writeable = False  # as readers give them
    expected = np.stack([pixels[:, 2], pixels[:, 0] ^ pixels[:, 1], 255 - pixels[:, 0]], axis=-1)
    np.testing.assert_array_equal(looked_up(pixels, table), expected)
