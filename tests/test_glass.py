"""The colour of clear glass, on real overviews and on glass that is drawn."""

import numpy as np
import pytest

from tests.overviews import GLASSES, TCGA, glass, overview, shaded_glass
from wsi_norm.glass import (
    glass_level,
    is_glass_coloured,
    unscanned,
    white_level,
)


def test_white_of_a_real_slide(data_dir):
    white = white_level(overview(data_dir / TCGA, 32))
    np.testing.assert_allclose(white * 255, [241, 236, 239], atol=5)


@pytest.mark.parametrize("colour", GLASSES)
@pytest.mark.parametrize("shading", [0.0, 0.12])
def test_white_of_drawn_glass(colour, shading):
    expected = np.asarray(colour) * (1 - shading / 2)
    white = white_level(shaded_glass(colour, shading))
    np.testing.assert_allclose(white * 255, expected, rtol=0.02 + shading / 2)


def test_black_padding_does_not_shift_the_white():
    image = glass()
    image[:, :140] = 0
    image[50:150, 160:220] = (200, 120, 170)
    np.testing.assert_allclose(white_level(image) * 255, 243, atol=1)


@pytest.mark.parametrize("side", [1, 2, 16])
@pytest.mark.parametrize("value", [0, 128, 243, 255])
def test_tiny_images_have_a_white(side, value):
    assert white_level(np.full((side, side, 3), value, np.uint8)).shape == (3,)


def test_what_a_scanner_did_not_record():
    pixels = np.uint8([[255, 255, 255], [255, 255, 254], [7, 7, 7], [0, 0, 0], [7, 8, 7]])
    assert unscanned(pixels[None]).tolist() == [[True, False, True, True, False]]


def test_what_is_coloured_like_glass():
    """Off-white and yellowish; not pale eosin, not grey shade, not strong colour."""
    pixels = np.uint8([[243] * 3, [240, 225, 205], [240, 210, 228], [120] * 3, [240, 240, 170]])
    assert is_glass_coloured(pixels).tolist() == [True, True, False, False, False]


def test_white_level_without_glass_and_with_a_tissue_mask():
    image = np.full((60, 60, 3), (210, 120, 170), np.uint8)
    assert glass_level(image) is None
    np.testing.assert_allclose(white_level(image), 0.95)
    image[:30] = (240, 238, 236)
    image[:10] = (252, 252, 252)
    tissue = np.zeros((60, 60), bool)
    tissue[:10] = True
    np.testing.assert_allclose(white_level(image, tissue) * 255, [240, 238, 236])
    np.testing.assert_array_equal(white_level(np.full((4, 4, 3), 255, np.uint8)), 1)


def test_saturated_glass_is_pure_white() -> None:
    """Where the only white is pure, it is glass, and tissue is not taken for it."""
    field = np.full((40, 40, 3), (215, 160, 200), np.uint8)
    field[:20] = 255
    np.testing.assert_array_equal(white_level(field), np.ones(3))


def test_a_batch_of_tiles_has_the_white_of_all_its_pixels() -> None:
    rng = np.random.default_rng(0)
    tiles = rng.integers(90, 200, (3, 16, 24, 3), dtype=np.uint8)
    tiles[1, :8] = (240, 238, 236)
    expected = white_level(tiles.reshape(1, -1, 3))
    np.testing.assert_array_equal(white_level(tiles), expected)
    np.testing.assert_allclose(expected, np.array([240, 238, 236]) / 255)
