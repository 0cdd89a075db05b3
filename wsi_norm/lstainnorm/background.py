"""What is tissue and what is glass, pixel by pixel, relative to the image's own white level."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wsi_norm.glass import GLASS_ABSORPTION, TISSUE_ABSORPTION, white_level
from wsi_norm.pixels import to_bytes


def white_of(image: Tensor, group: Tensor | None = None) -> Tensor:
    """The white level of each image, or of each group of images, by `glass.white_level`.

    Parameters
    ----------
    image
        (B, 3, H, W) in [0, 1].
    group
        long (B,): images with equal numbers share their white, as tiles of one slide do.

    Returns
    -------
    (B, 3, 1, 1), without gradient.
    """
    levels = to_bytes(image)
    groups = np.arange(len(levels)) if group is None else group.cpu().numpy()
    white = np.empty((len(levels), 3))
    for number in np.unique(groups):
        white[groups == number] = white_level(levels[groups == number])
    return torch.from_numpy(white).to(image)[..., None, None]


def tissue_weight(image: Tensor, white: Tensor) -> Tensor:
    """How much of a pixel is tissue: 0 for glass, 1 for tissue, smooth between, so without an edge.

    Parameters
    ----------
    image
        (B, 3, H, W) in [0, 1].
    white
        (B, 3, 1, 1) or (3, 1, 1): RGB of clear glass.

    Returns
    -------
    (B, 1, H, W) in [0, 1], without gradient.
    """
    absorbed = (1 - image.detach() / white).amax(dim=-3, keepdim=True)
    ramp = (absorbed - GLASS_ABSORPTION) / (TISSUE_ABSORPTION - GLASS_ABSORPTION)
    ramp = ramp.clamp(0, 1)
    return torch.square(ramp) * (3 - 2 * ramp)
