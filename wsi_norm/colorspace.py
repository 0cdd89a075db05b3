"""Colour spaces as differentiable torch functions: RGB to CIELAB, HSV, HED, density and back.

All take and return float tensors (..., 3, H, W) on their input's device and dtype; RGB is sRGB in
[0, 1]. CIELAB (D65, 2 degrees) and HSV are kornia's; hue is in radians [0, 2 pi). Density is
relative to 1 here, in the layer to glass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from kornia.color import hsv_to_rgb, lab_to_rgb, rgb_to_hsv, rgb_to_lab
from torch import Tensor

from wsi_norm.spaces import DARKEST, DENSITY_TO_STAIN, LEAST_LIGHT, STAIN_TO_DENSITY, Space


class Conversion(NamedTuple):
    """To a space from RGB, and back without clipping."""

    from_rgb: Callable[[Tensor], Tensor]
    to_rgb: Callable[[Tensor], Tensor]


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


CONVERSIONS: dict[Space, Conversion] = {
    "rgb": Conversion(_same, _same),
    "lab": Conversion(rgb_to_lab, _lab_to_rgb_unclipped),
    "hsv": Conversion(rgb_to_hsv, hsv_to_rgb),
    "hed": Conversion(rgb_to_hed, hed_to_rgb),
    "od": Conversion(rgb_to_od, od_to_rgb),
}
