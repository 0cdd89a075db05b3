"""Colour spaces as differentiable torch functions: RGB to CIELAB, HSV, HED, density and back.

All take and return float tensors (..., 3, H, W) on their input's device and dtype; RGB is sRGB in
[0, 1]. CIELAB (D65, 2 degrees) and HSV are kornia's; hue is in radians [0, 2 pi). HED is the
optical-density basis of Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23:291-299, 2001. OD is
optical density, natural logarithm, channel by channel; here relative to 1, in the layer to glass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from kornia.color import hsv_to_rgb, lab_to_rgb, rgb_to_hsv, rgb_to_lab
from torch import Tensor

Space = Literal["rgb", "lab", "hsv", "hed", "od"]
SPACES: tuple[Space, ...] = get_args(Space)

HUE = ("hsv", 0)
"""The one channel that is an angle: (space, channel)."""

# Rows: haematoxylin, eosin, DAB, as unit-scaled densities in R, G, B.
STAIN_TO_DENSITY = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
DENSITY_TO_STAIN = np.linalg.inv(STAIN_TO_DENSITY)
DARKEST = 1e-6
"""RGB floor before the logarithm, as in scikit-image's `rgb2hed`."""
LEAST_LIGHT = 1 / 255
"""RGB floor of density: a byte of 0 is as dark as one of 1."""


class Conversion(NamedTuple):
    """To a space from RGB, and back without clipping."""

    from_rgb: Callable[[Tensor], Tensor]
    to_rgb: Callable[[Tensor], Tensor]
    channels: tuple[str, str, str]


def rgb_to_hed(image: Tensor) -> Tensor:
    """Stain amounts (H, E, DAB) of an RGB image, on the scale of scikit-image's `rgb2hed`."""
    density = image.clamp_min(DARKEST).log() / math.log(DARKEST)
    return _mix(density, DENSITY_TO_STAIN)


def hed_to_rgb(image: Tensor) -> Tensor:
    """RGB of stain amounts (H, E, DAB): the inverse of `rgb_to_hed`; may leave [0, 1]."""
    return torch.exp(_mix(image, STAIN_TO_DENSITY) * math.log(DARKEST))


def rgb_to_od(image: Tensor) -> Tensor:
    """Optical density of R, G, B relative to 1."""
    return -image.clamp_min(LEAST_LIGHT).log()


def od_to_rgb(image: Tensor) -> Tensor:
    """RGB of densities: the inverse of `rgb_to_od`; above 1 where density is negative."""
    return torch.exp(-image)


def _lab_to_rgb_unclipped(image: Tensor) -> Tensor:
    return lab_to_rgb(image, clip=False)


def _same(image: Tensor) -> Tensor:
    return image


def _mix(image: Tensor, matrix: npt.NDArray[np.float64]) -> Tensor:
    """image[channel i] @ matrix, channel axis -3."""
    weights = torch.tensor(matrix, dtype=image.dtype, device=image.device)
    return torch.einsum("...ihw,io->...ohw", image, weights)


_STAINS = [float(np.abs(column).sum()) for column in DENSITY_TO_STAIN.T]
RANGES: dict[Space, tuple[tuple[float, float], ...]] = {
    "rgb": ((0.0, 1.0),) * 3,
    "lab": ((0.0, 100.0), (-128.0, 128.0), (-128.0, 128.0)),
    "hsv": ((-math.pi, math.tau), (0.0, 1.0), (0.0, 1.0)),
    "hed": tuple((-most, most) for most in _STAINS),
    "od": ((0.0, -math.log(LEAST_LIGHT)),) * 3,
}
"""Where the channels of sRGB's colours lie; a mean of hue may be counted from either side."""

CONVERSIONS: dict[Space, Conversion] = {
    "rgb": Conversion(_same, _same, ("R", "G", "B")),
    "lab": Conversion(rgb_to_lab, _lab_to_rgb_unclipped, ("L*", "a*", "b*")),
    "hsv": Conversion(rgb_to_hsv, hsv_to_rgb, ("hue", "saturation", "value")),
    "hed": Conversion(rgb_to_hed, hed_to_rgb, ("haematoxylin", "eosin", "DAB")),
    "od": Conversion(rgb_to_od, od_to_rgb, ("red", "green", "blue")),
}
