"""What is tissue and what is glass, pixel by pixel, relative to the image's own white level."""

from __future__ import annotations

import torch
from torch import Tensor

GLASS_ABSORPTION = 0.05
TISSUE_ABSORPTION = 0.15
"""Glass absorbs less than the first in every channel, tissue more than the second in one."""

WHITE_PERCENTILE = 0.99
DARKEST_WHITE = 0.5


def white_of(image: Tensor) -> Tensor:
    """The white level of each image: a high percentile per channel.

    Parameters
    ----------
    image
        (B, 3, H, W) in [0, 1].

    Returns
    -------
    (B, 3, 1, 1), without gradient; at least 0.5, so that a black image has no "glass".
    """
    pixels = image.detach().flatten(-2)
    rank = max(1, round(WHITE_PERCENTILE * pixels.shape[-1]))
    return pixels.kthvalue(rank, dim=-1).values.clamp_min(DARKEST_WHITE)[..., None, None]


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
