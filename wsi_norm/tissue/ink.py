"""Which pixels of an overview image are ink of a pen."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from wsi_norm.glass import unscanned
from wsi_norm.tissue.connected import connected_parts, without_small
from wsi_norm.tissue.density import bands, densities, density_of_bytes

Mask = npt.NDArray[np.bool_]
Rgb = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

PEN_MARGIN_UM = 50.0  # ink bleeds: this much around it is not tissue either


def pen_mask(thumbnail: Rgb) -> Mask:
    """Mark blue, green, red and black ink on a uint8 (h, w, 3) image; returns bool (h, w).

    The limits lie between inks and H&E fields of 12 TCGA sites and 3 more scanners: in each
    R/G was below 1.25 in 99.5 % of stained pixels, and at most 1.7 % had density above 0.6 with
    B/G above 0.74. Ink starts where its dye is certain and grows over paler ink joined to it.
    """
    of_bytes = density_of_bytes(thumbnail)
    sure, maybe = np.empty((2, *thumbnail.shape[:2]), np.bool_)
    for rows in bands(thumbnail):
        sure[rows], maybe[rows] = _ink_coloured(densities(thumbnail[rows], of_bytes))
    scanned = ~unscanned(thumbnail)
    least_px = int(max(4.0, 5e-4 * scanned.size))
    sure = without_small(sure & scanned, least_px)
    ink = sure | connected_parts(sure | (maybe & scanned), sure, least_share=0.1)
    return closed(ink, min(5, min(ink.shape) // 100)) & scanned


def _ink_coloured(od: Floats) -> tuple[Mask, Mask]:
    """Which densities (3, h, w) are surely, and which may be, those of ink; bool (h, w)."""
    densest = od.max(axis=0)
    evenness = od.min(axis=0) / (densest + 1e-6)
    red, green, blue = np.add(od, 1e-6, out=od)
    reddish = (blue < 1.1 * green) & (red < 1.2 * green)
    sure = (
        ((red > 1.45 * green) & (red > 0.15))
        | ((blue > 0.76 * green) & (red < 0.35 * green) & reddish & (green > 0.40))
        | ((blue > 0.74 * green) & reddish & (densest > 0.60))
        | ((evenness > 0.80) & (densest > 0.50))
    )
    maybe = (
        ((red > 1.25 * green) & (red > 0.05))
        | ((blue > 0.68 * green) & reddish & (green > 0.05))
        | ((evenness > 0.70) & (densest > 0.10))
    )
    return sure, maybe


def closed(mask: Mask, radius_px: int) -> Mask:
    """Morphological closing of bool (h, w) by a disk; nothing is beyond the edges."""
    return ~grown(~grown(mask, radius_px), radius_px)


def grown(mask: Mask, radius_px: float) -> Mask:
    """Dilation of bool (h, w) by a disk, row by row of it: in a twentieth of a filter's time."""
    height, width = mask.shape
    edge = int(radius_px)
    padded = np.pad(mask, edge)
    rows, reached = padded[:, edge : edge + width].copy(), 0
    out = np.zeros_like(mask)
    for down in range(edge, -1, -1):
        while math.sqrt((reached + 1) ** 2 + down**2) <= radius_px:
            reached += 1
            rows |= padded[:, edge - reached : edge - reached + width]
            rows |= padded[:, edge + reached : edge + reached + width]
        out |= rows[edge - down : edge - down + height]
        out |= rows[edge + down : edge + down + height]
    return out


def inked(thumbnail: Rgb, mpp_um: float) -> Mask:
    """`pen_mask` and a margin of `PEN_MARGIN_UM` around it, at most 3 % of the shorter side."""
    pen = pen_mask(thumbnail)
    return grown(pen, min(PEN_MARGIN_UM / mpp_um, 0.03 * min(pen.shape)))
