"""Colour spaces by name: what their channels are and span, and the matrices and floors they share.

HED is the optical-density basis of Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23:291-299,
2001; OD is optical density, natural logarithm, channel by channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

Space = Literal["rgb", "lab", "hsv", "hed", "od"]
SPACES: tuple[Space, ...] = get_args(Space)

CHANNELS: Mapping[Space, tuple[str, str, str]] = {
    "rgb": ("R", "G", "B"),
    "lab": ("L*", "a*", "b*"),
    "hsv": ("hue", "saturation", "value"),
    "hed": ("haematoxylin", "eosin", "DAB"),
    "od": ("red", "green", "blue"),
}

HUE = ("hsv", 0)
"""The one channel that is an angle: (space, channel)."""

# Rows: haematoxylin, eosin, DAB, as unit-scaled densities in R, G, B.
STAIN_TO_DENSITY = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
DENSITY_TO_STAIN = np.linalg.inv(STAIN_TO_DENSITY)
DARKEST = 1e-6
"""RGB floor before the logarithm, as in scikit-image's `rgb2hed`."""
LEAST_LIGHT = 1 / 255
"""RGB floor of density: a byte of 0 is as dark as one of 1."""

_STAINS = [float(np.abs(column).sum()) for column in DENSITY_TO_STAIN.T]
RANGES: Mapping[Space, tuple[tuple[float, float], ...]] = {
    "rgb": ((0.0, 1.0),) * 3,
    "lab": ((0.0, 100.0), (-128.0, 128.0), (-128.0, 128.0)),
    "hsv": ((-math.pi, math.tau), (0.0, 1.0), (0.0, 1.0)),
    "hed": tuple((-most, most) for most in _STAINS),
    "od": ((0.0, -math.log(LEAST_LIGHT)),) * 3,
}
"""Where the channels of sRGB's colours lie; a mean of hue may be counted from either side."""
