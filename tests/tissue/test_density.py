"""Optical density by hand, on glass and without any."""

import numpy as np

from wsi_norm.tissue.density import optical_density, reference_white


def test_density_is_relative_to_the_images_own_glass():
    image = np.full((60, 60, 3), (240, 200, 200), np.uint8)
    image[:40] = (240, 230, 220)
    image[0, 0] = (24, 0, 254)
    od = optical_density(image)
    np.testing.assert_allclose(od[20, 20], 0, atol=1e-12)
    np.testing.assert_allclose(od[50, 50], [0, np.log10(230 / 200), np.log10(220 / 200)])
    # Black counts as 1 of 255, and what is lighter than glass has no density.
    np.testing.assert_allclose(od[0, 0], [1, np.log10(230), 0])


def test_without_glass_the_brightest_channel_stands_for_it():
    field = np.full((60, 60, 3), (210, 150, 190), np.uint8)
    np.testing.assert_allclose(reference_white(field), 210 / 255)
