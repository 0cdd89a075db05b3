"""Which pixels of a slide's overview image are tissue.

A segmenter is a function ``(thumbnail, mpp_um) -> mask``: uint8 (h, w, 3), RGB, brightfield, with
its pixel size in um, to bool (h, w). It stands in `SEGMENTERS` of `wsi_norm.choices` and says
where stain is; what no tissue can be is taken out for all of them by `tissue_mask`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import skimage  # loads its parts, and scipy, when they are first used

from wsi_norm.choices import SEGMENTERS
from wsi_norm.glass import unscanned, white_level
from wsi_norm.tissue.density import optical_density
from wsi_norm.tissue.ink import inked

Mask = npt.NDArray[np.bool_]
Rgb = npt.NDArray[np.uint8]
Segmenter = Callable[[Rgb, float], Mask]

DENSITY_RANGE = (0.05, 0.10)  # Otsu's threshold stays above glass noise, below pale eosin
SPECK_UM2 = 10_000.0  # smaller islands are dropped, smaller holes filled: 100 um square

_AS_FOUND: set[Segmenter] = set()


def tissue_mask(thumbnail: Rgb, mpp_um: float, method: str = "otsu") -> Mask:
    """Mark the pixels that are tissue, as bool (h, w).

    Parameters
    ----------
    thumbnail
        uint8 (h, w, 3), RGB, brightfield.
    mpp_um
        Its pixel size in um, which specks, holes and margins follow; 8-16 is best, 1-64 works.
    method
        One of `SEGMENTERS`. Padding, ink and specks are never tissue, and holes are filled,
        but where the segmenter is marked `as_found`.
    """
    segmenter: Segmenter = SEGMENTERS[method]
    found = segmenter(thumbnail, mpp_um)
    if segmenter in _AS_FOUND:
        return found
    ink = inked(thumbnail, mpp_um)
    return _clean(found & ~unscanned(thumbnail) & ~ink, mpp_um) & ~ink


def as_found(segmenter: Segmenter) -> Segmenter:
    """Mark a segmenter whose mask counts as it is, padding, ink, specks and holes included."""
    _AS_FOUND.add(segmenter)
    return segmenter


def otsu(thumbnail: Rgb, mpp_um: float) -> Mask:
    """Otsu's threshold on stain density."""
    scanned = ~unscanned(thumbnail)
    if not scanned.any():
        return scanned
    od = optical_density(thumbnail)
    # The spread between channels plus half the densest: stain counts more than grey shade.
    density = 1.5 * od.max(axis=-1) - od.min(axis=-1)
    threshold = skimage.filters.threshold_otsu(density[scanned])
    return np.asarray(density > np.clip(threshold, *DENSITY_RANGE), dtype=np.bool_)


def hsv(thumbnail: Rgb, mpp_um: float) -> Mask:
    """Coloured enough beside the glass, and neither black nor white."""
    balanced = np.minimum(thumbnail / (255.0 * white_level(thumbnail)), 1.0)
    _, saturation, value = np.moveaxis(skimage.color.rgb2hsv(balanced), -1, 0)
    return np.asarray((saturation > 0.07) & (value > 0.1), dtype=np.bool_)


@as_found
def everything(thumbnail: Rgb, mpp_um: float) -> Mask:
    """All of the image, even ink and padding: `none`."""
    return np.ones(thumbnail.shape[:2], dtype=np.bool_)


def _clean(mask: Mask, mpp_um: float) -> Mask:
    """Fill holes and drop islands below `SPECK_UM2`; never more than 1 % of the image each."""
    area_px = int(min(SPECK_UM2 / mpp_um**2, 0.01 * mask.size))
    filled = skimage.morphology.remove_small_holes(mask, max_size=area_px)
    cleaned = skimage.morphology.remove_small_objects(filled, max_size=area_px)
    return np.asarray(cleaned, dtype=np.bool_)
