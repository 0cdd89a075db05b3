"""Optical density by hand, on glass and without any."""

import numpy as np

from wsi_norm.glass import white_level
from wsi_norm.tissue.density import densities, density_of_bytes, optical_density


def test_density_is_relative_to_the_images_own_glass():
    image = np.full((60, 60, 3), (240, 200, 200), np.uint8)
    image[:40] = (240, 230, 220)
    image[0, 0] = (24, 0, 254)
    od = optical_density(image)
    np.testing.assert_allclose(od[20, 20], 0, atol=1e-12)
    np.testing.assert_allclose(od[50, 50], [0, np.log10(230 / 200), np.log10(220 / 200)])
    # Black counts as 1 of 255, and what is lighter than glass has no density.
    np.testing.assert_allclose(od[0, 0], [1, np.log10(230), 0])


def test_without_glass_a_neutral_usual_one_stands_for_it():
    rng = np.random.default_rng(0)
    field = np.array([210, 150, 190]) + rng.integers(-3, 4, (60, 60, 3))
    expected = np.log10(0.95 * 255 / field)
    np.testing.assert_allclose(optical_density(field.astype(np.uint8)), expected, atol=1e-6)


def test_densities_by_bytes_are_those_of_each_pixel():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    image[:20] = (240, 236, 244)
    expected = np.maximum(-np.log10(np.maximum(image, 1.0) / (255 * white_level(image))), 0)
    np.testing.assert_array_equal(optical_density(image), expected)
    by_channel = densities(image, density_of_bytes(image))
    np.testing.assert_array_equal(by_channel, np.moveaxis(expected, -1, 0))
    assert optical_density(image[0, :7]).shape == (7, 3)
