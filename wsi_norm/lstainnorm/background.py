"""What a pixel is, beside what is done to it: glass, fill that no scanner saw, or deep shadow."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wsi_norm.glass import GLASS_ABSORPTION, TISSUE_ABSORPTION, fill_mask, white_of_tiles
from wsi_norm.lstainnorm.shadow import GREEN_PART, LEAST_LUMINANCE, LUMINANCE, RED_PART
from wsi_norm.tensors import to_bytes


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
        white[groups == number] = white_of_tiles(levels[groups == number])
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


def fill_of(image: Tensor) -> Tensor:
    """Where an image (B, 3, H, W) in [0, 1] is fill, by `glass.fill_mask`: bool (B, 1, H, W)."""
    found = np.zeros((len(image), 1, *image.shape[-2:]), np.bool_)
    for fill, tile in zip(found, to_bytes(image), strict=True):
        if (mask := fill_mask(tile)) is not None:
            fill[0] = mask
    return torch.from_numpy(found).to(image.device)


def bounded(image: Tensor, matched: Tensor, start: Tensor, slope: Tensor) -> Tensor:
    """The matched image, without what matching does beyond what its statistics speak of.

    Matching moves colours by what is right for the mean of the tissue. Far below it, a dark red
    fold has less chroma than that and would come out black-green: shadow keeps the hue and
    saturation that it had. And no pixel becomes greener than red that was not: in a very red slide
    purple nuclei would turn teal; red and green then meet, at the same luminance.

    Parameters
    ----------
    image, matched
        (B, 3, H, W) in [0, 1].
    start, slope
        (B,) or (1,), as `shadow_range` gives them.
    """
    weights = image.new_tensor(LUMINANCE)[:, None, None]
    start, slope = (x.to(image).view(-1, 1, 1, 1) for x in (start, slope))
    before = (image * weights).sum(1, keepdim=True)
    after = (matched * weights).sum(1, keepdim=True)
    ratio = torch.maximum(after, LEAST_LUMINANCE * before) / before.clamp_min(1 / 255)
    ramp = ((start - before.detach()) * slope).clamp(0, 1)
    depth = ramp.square() * (3 - 2 * ramp)
    kept = matched + depth * ((image * ratio).clamp(0, 1) - matched)
    return never_greener(image, kept)


def never_greener(image: Tensor, matched: Tensor) -> Tensor:
    """The matched image, red and green brought together where red lost its lead over green."""
    red, green, blue = matched.unbind(1)
    lead = (image[:, 0] - image[:, 1]).clamp_max(0)  # of red over green, at least
    lacking = (lead - (red - green)).clamp_min(0)
    return torch.stack([red + RED_PART * lacking, green - GREEN_PART * lacking, blue], dim=1)
