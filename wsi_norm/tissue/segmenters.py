"""Which pixels of a slide's overview image are tissue.

A segmenter is a function ``(thumbnail, mpp_um) -> mask``: uint8 (h, w, 3), RGB, brightfield, with
its pixel size in um, to bool (h, w). It stands in `SEGMENTERS` of `wsi_norm.choices` and says
where stain is; what no tissue can be is taken out for all of them by `tissue_mask`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts, as skimage does, when they are first used
import skimage

from wsi_norm.choices import SEGMENTERS
from wsi_norm.glass import unscanned, white_level
from wsi_norm.tissue.connected import connected_parts, without_small
from wsi_norm.tissue.density import bands, densities, density_of_bytes
from wsi_norm.tissue.ink import inked

Mask = npt.NDArray[np.bool_]
Rgb = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Segmenter = Callable[[Rgb, float], Mask]

DENSITY_RANGE = (0.05, 0.10)  # Otsu's threshold stays above glass noise, below pale eosin
LEAST_COLOUR = 0.10  # least (max - min) / max of a stain's density: IHC has 0.15, grey edges 0.04
BLUR_UM = 50.0  # over which the coloured fringes of a grey edge even out

PALEST_DENSITY = 0.02  # of pale tissue, where nothing nearby is stained more strongly
PALE_SHARE = 0.25  # of the strongest density nearby: below it lie its blur and its haze
NEARBY_UM = 160.0
PALE_CONTRAST = 0.02  # over the mean around: nuclei and membranes have it, haze and shades do not
CONTRAST_UM = 200.0
PALE_TEXTURE = 0.2  # least share of a pale area that has such contrast

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
    """Otsu's threshold on stain density, a lower one where all stain is pale; nothing grey."""
    scanned = ~unscanned(thumbnail)
    if not scanned.any():
        return scanned
    of_bytes = density_of_bytes(thumbnail)
    density = _densities(thumbnail, scanned, of_bytes)
    threshold = np.clip(_otsu(density[scanned]), *DENSITY_RANGE)
    del density  # there are never more than three such arrays: on a large slide, they are large
    stain, coloured = _blurred(thumbnail, scanned, of_bytes, BLUR_UM / mpp_um)
    nearby = _window(2 * NEARBY_UM / mpp_um)
    strongest = scipy.ndimage.maximum_filter(stain, nearby, output=stain)
    strongest *= PALE_SHARE
    density = _densities(thumbnail, scanned, of_bytes)
    pale = coloured & (density > strongest.clip(PALEST_DENSITY, threshold, out=strongest))
    del stain, strongest
    mean = scipy.ndimage.uniform_filter(density, _window(CONTRAST_UM / mpp_um))
    sure = pale & (np.subtract(density, mean, out=mean) > PALE_CONTRAST)
    del mean
    coloured &= density > threshold
    del density
    return coloured | connected_parts(pale, sure, PALE_TEXTURE)


def hsv(thumbnail: Rgb, mpp_um: float) -> Mask:
    """Coloured enough beside the glass, and neither black nor white."""
    white = 255.0 * white_level(thumbnail)
    found = np.empty(thumbnail.shape[:2], np.bool_)
    for rows in bands(thumbnail):
        balanced = np.minimum(thumbnail[rows] / white, 1.0)
        _, saturation, value = np.moveaxis(skimage.color.rgb2hsv(balanced), -1, 0)
        found[rows] = (saturation > 0.07) & (value > 0.1)
    return found


@as_found
def everything(thumbnail: Rgb, mpp_um: float) -> Mask:
    """All of the image, even ink and padding: `none`."""
    return np.ones(thumbnail.shape[:2], dtype=np.bool_)


def _densities(thumbnail: Rgb, scanned: Mask, of_bytes: Floats) -> Floats:
    """Stain density of each pixel."""
    density = np.empty(scanned.shape)
    for rows in bands(thumbnail):
        od = densities(thumbnail[rows], of_bytes)
        od[:, ~scanned[rows]] = 0.0
        density[rows] = _stain_density(od.max(axis=0), od.min(axis=0))
    return density


def _otsu(values: Floats) -> float:
    """Otsu's threshold of (n,): by a histogram, because scikit-image copies an array twice."""
    counts, edges = np.histogram(values, 256)
    if np.count_nonzero(counts) == 1:
        return float(values[0])
    return float(skimage.filters.threshold_otsu(hist=(counts, (edges[:-1] + edges[1:]) / 2)))


def _blurred(
    thumbnail: Rgb, scanned: Mask, of_bytes: Floats, edge_px: float
) -> tuple[Floats, Mask]:
    """Stain density of the means in a square around each pixel; where their colour is a stain's."""
    od, most, least = (np.full(scanned.shape, value) for value in (0.0, -np.inf, np.inf))
    for channel in range(3):
        for rows in bands(thumbnail):
            od[rows] = np.where(scanned[rows], of_bytes[channel][thumbnail[rows, :, channel]], 0.0)
        scipy.ndimage.uniform_filter(od, _window(edge_px), output=od)
        np.maximum(most, od, out=most)
        np.minimum(least, od, out=least)
    coloured = np.empty(scanned.shape, np.bool_)
    for rows in bands(thumbnail):
        coloured[rows] = most[rows] - least[rows] > LEAST_COLOUR * most[rows]
        most[rows] = _stain_density(most[rows], least[rows])
    return most, coloured


def _stain_density(most: Floats, least: Floats) -> Floats:
    """Spread between a pixel's channels plus half the densest: stain counts more than grey."""
    return np.asarray(1.5 * most - least)


def _window(edge_px: float) -> int:
    """The odd number of pixels nearest to an edge."""
    return 2 * round((edge_px - 1) / 2) + 1 if edge_px > 1 else 1


def _clean(mask: Mask, mpp_um: float) -> Mask:
    """Fill holes and drop islands below `SPECK_UM2`; never more than 1 % of the image each."""
    area_px = int(min(SPECK_UM2 / mpp_um**2, 0.01 * mask.size))
    return without_small(~without_small(~mask, area_px), area_px)
