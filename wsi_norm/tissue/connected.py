"""Connected parts of a mask, chosen by what lies in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import skimage

Mask = npt.NDArray[np.bool_]


def connected_parts(mask: Mask, sure: Mask, least_share: float) -> Mask:
    """The connected parts of `mask` of which `sure` makes up at least this share, and 1 px.

    Both are bool (h, w), as is the result; pixels that touch by a corner are connected.
    """
    labels = skimage.measure.label(mask)
    sizes = np.bincount(labels.ravel())
    chosen = np.bincount(labels[sure], minlength=sizes.size) >= np.maximum(least_share * sizes, 1)
    chosen[0] = False
    return np.asarray(chosen[labels], dtype=np.bool_)
