"""Optical density relative to the image's own clear glass: ``-log10(rgb / white)``.

Ratios between the channels' densities tell dyes apart whatever their amount. By Ruifrok and
Johnston (Anal Quant Cytol Histol 2001, 23:291), haematoxylin has R/G 0.93 and B/G 0.41, eosin
R/G 0.07 and B/G 0.11: green is absorbed most. Blue and green ink absorb red most, red ink absorbs
blue as strongly as green, black ink absorbs all alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsi_norm.glass import white_level

Rgb = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def optical_density(thumbnail: Rgb) -> Floats:
    """Density of a uint8 (h, w, 3) image, float64 (h, w, 3), at least 0."""
    white = 255.0 * white_level(thumbnail)
    return np.maximum(-np.log10(np.maximum(thumbnail, 1.0) / white), 0.0)
