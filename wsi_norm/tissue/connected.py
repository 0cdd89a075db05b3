"""Connected parts of a mask, chosen by what lies in them or around them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import skimage

Mask = npt.NDArray[np.bool_]

AROUND_PX = 3
MOSTLY = 0.5
"""Holes are amid tissue if it makes up this share of what lies so near to them."""


def connected_parts(mask: Mask, sure: Mask, least_share: float) -> Mask:
    """The connected parts of `mask` of which `sure` makes up at least this share, and 1 px.

    Both are bool (h, w), as is the result; pixels that touch by a corner are connected.
    """
    labels = skimage.measure.label(mask)
    sizes = np.bincount(labels.ravel())
    chosen = np.bincount(labels[sure], minlength=sizes.size) >= np.maximum(least_share * sizes, 1)
    chosen[0] = False
    return np.asarray(chosen[labels], dtype=np.bool_)


def without_small(mask: Mask, most_px: int) -> Mask:
    """A mask, bool (h, w), without the parts of at most so many px; corners do not connect.

    As scikit-image's `remove_small_objects`, whose module takes a tenth of a second to import.
    """
    labels = skimage.measure.label(mask, connectivity=1)
    large = np.bincount(labels.ravel()) > most_px
    large[0] = False
    return np.asarray(large[labels], dtype=np.bool_)


def amid(holes: Mask, tissue: Mask) -> Mask:
    """The connected parts of `holes` around which at least half is tissue; all bool (h, w)."""
    if not holes.any():
        return holes
    labels = skimage.measure.label(holes)
    around = skimage.segmentation.expand_labels(labels, AROUND_PX) * ~holes
    sizes = np.bincount(around.ravel(), minlength=labels.max() + 1)
    inside = np.bincount(around[tissue], minlength=sizes.size) >= np.maximum(MOSTLY * sizes, 1)
    inside[0] = False
    return np.asarray(inside[labels], dtype=np.bool_)
