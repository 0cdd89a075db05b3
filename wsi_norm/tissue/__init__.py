"""Tissue on a slide's overview image, and the regions people drew. Arrays in, arrays out."""

from wsi_norm.tissue.brightfield import colour_problem, is_fluorescence
from wsi_norm.tissue.connected import amid
from wsi_norm.tissue.coverage import tissue_fraction
from wsi_norm.tissue.ink import pen_mask
from wsi_norm.tissue.masks import read_mask_image
from wsi_norm.tissue.regions import (
    Polygon,
    Regions,
    placed,
    polygons_mask,
    read_geojson,
    regions_mask,
)
from wsi_norm.tissue.segmenters import Segmenter, as_found, tissue_mask

__all__ = [
    "Polygon",
    "Regions",
    "Segmenter",
    "amid",
    "as_found",
    "colour_problem",
    "is_fluorescence",
    "pen_mask",
    "placed",
    "polygons_mask",
    "read_geojson",
    "read_mask_image",
    "regions_mask",
    "tissue_fraction",
    "tissue_mask",
]
