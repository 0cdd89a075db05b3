"""SpatialData: tiles and tissue as shapes, as wsidata and LazySlide keep them beside a slide.

A SpatialData store of shapes is GeoParquet in folders with a `zarr.json`. So it is written with
geopandas alone: the package `spatialdata` holds back versions that a run needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wsi_norm import location
from wsi_norm.errors import ExportError
from wsi_norm.export.base import Format, Job
from wsi_norm.export.frame import Frame, ImageOptions, frame
from wsi_norm.export.geojson import tissue_outlines
from wsi_norm.store import TileStore

CONTAINER_VERSION = "0.2"
SHAPES_VERSION = "0.3"
"""Of SpatialData's format."""

ORIGIN = "wsi_norm"
"""Attribute of the store: its origin. Another file beside `zarr.json` would be warned of."""

NO_TISSUE = -1
"""`tissue_id` of a tile without any."""


def write(job: Job, draft: Path) -> None:
    """Write a store with the shapes `tiles` and `tissues`."""
    try:
        import geopandas
        import pyarrow  # noqa: F401 (geopandas asks for it late)
        import shapely
    except ImportError as error:
        raise ExportError(
            f"{error}: the format spatialdata needs pip install 'wsi-norm[export]'"
        ) from error
    store = job.store
    where = frame(store, job.options.image)
    to_image = where.downsample / store.meta.tiling.downsample
    tissues = [
        shapely.Polygon(outer * to_image, [hole * to_image for hole in holes])
        for outer, *holes in (map(np.array, rings) for rings in tissue_outlines(store))
    ]
    boxes = np.hstack([where.coords, where.coords + where.edge])
    shapes = {
        "tiles": {
            "tile_id": np.arange(len(store)),
            "x": where.coords[:, 0],
            "y": where.coords[:, 1],
            "tissue_id": _tissue_ids(store),
            "tissue_fraction": store.tissue_fraction,
            "flags": store.flags,
            "geometry": shapely.box(*boxes.T),
        },
        "tissues": {"tissue_id": np.arange(len(tissues)), "geometry": tissues},
    }
    attributes = {
        "spatialdata_attrs": {"version": CONTAINER_VERSION},
        "tile_spec": {"tiles": _tile_spec(store, where)},
        "slide_properties": {"mpp": where.mpp_um},
        ORIGIN: job.origin,
    }
    _write_group(draft, attributes)
    _write_group(draft / "shapes")
    for name, columns in shapes.items():
        if len(columns["geometry"]):  # what holds nothing, SpatialData does not read
            _write_group(draft / "shapes" / name, SHAPES)
            table = geopandas.GeoDataFrame(columns, geometry="geometry")
            table.to_parquet(draft / "shapes" / name / "shapes.parquet")
    job.advance(len(store))


def origin(place: Path) -> str | None:
    """What `write` was given; None of any other folder."""
    try:
        said = json.loads(location.read_bytes(place / "zarr.json"))["attributes"][ORIGIN]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return said if isinstance(said, str) else None


def _tissue_ids(store: TileStore) -> npt.NDArray[np.int64]:
    """The piece of tissue, as `tissue_outlines` counts them, that most of each tile is on."""
    slide, tiling = store.meta.slide, store.meta.tiling
    pieces, _ = ndimage.label(store.tissue_mask)
    mask_downsample = np.array([slide.width_px, slide.height_px]) / pieces.shape[::-1]
    first = np.rint(store.coords / mask_downsample).astype(int)
    last = np.rint((store.coords + tiling.tile_size_px * tiling.downsample) / mask_downsample)
    last = np.maximum(last.astype(int), first + 1)
    ids = []
    for (left, top), (right, bottom) in zip(first.tolist(), last.tolist(), strict=True):
        areas = np.bincount(pieces[top:bottom, left:right].ravel(), minlength=2)[1:]
        ids.append(int(areas.argmax()) if areas.any() else NO_TISSUE)
    return np.array(ids, np.int64)


def _tile_spec(store: TileStore, where: Frame) -> dict[str, Any]:
    """wsidata's: how to read the tiles, from which level."""
    tiling = store.meta.tiling
    step = tiling.tile_size_px - tiling.overlap_px
    return {
        "height": tiling.tile_size_px,
        "width": tiling.tile_size_px,
        "stride_height": step,
        "stride_width": step,
        "mpp": tiling.mpp_um,
        "ops_level": where.level,
        "ops_downsample": 1.0
        if where.has_resolution
        else where.downsample / where.level_downsample,
        "base_level": 0,
        "base_downsample": where.downsample,
        "tissue_name": "tissues",
    }


def _axes(name: str) -> dict[str, Any]:
    axes = [{"name": axis, "type": "space", "unit": "unit"} for axis in ("x", "y")]
    return {"name": name, "axes": axes}


SHAPES = {
    "encoding-type": "ngff:shapes",
    "axes": ["x", "y"],
    "coordinateTransformations": [
        {"type": "identity", "input": _axes("xy"), "output": _axes("global")}
    ],
    "spatialdata_attrs": {"version": SHAPES_VERSION},
}


def _write_group(folder: Path, attributes: dict[str, Any] | None = None) -> None:
    said = {"attributes": attributes or {}, "zarr_format": 3, "node_type": "group"}
    location.write_text(folder / "zarr.json", json.dumps(said, indent=1))


SPATIALDATA = Format(".spatialdata", write, origin, ImageOptions)
