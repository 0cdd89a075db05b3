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
            f"{error}: the format spatialdata needs pip install 'wsi-norm[spatialdata]'"
        ) from error
    store = job.store
    where = frame(store, job.options.image)
    pieces, number = ndimage.label(store.tissue_mask)
    scale = _mask_downsample(store, where)
    boxes = np.hstack([where.coords, where.coords + where.edge])
    shapes = {
        "tiles": {
            "tile_id": np.arange(len(store)),
            "x": where.coords[:, 0],
            "y": where.coords[:, 1],
            "tissue_id": _tissue_ids(pieces, boxes / np.tile(scale, 2)),
            "tissue_fraction": store.tissue_fraction,
            "flags": store.flags,
            "geometry": shapely.box(*boxes.T),
        },
        "tissues": {"tissue_id": np.arange(number), "geometry": _outlines(pieces, scale)},
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


def _tissue_ids(
    pieces: npt.NDArray[np.int32], boxes: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """The piece of tissue that most of each tile is on; boxes in px of the mask."""
    ids = []
    for left, top, right, bottom in np.rint(boxes).astype(int).tolist():
        window = pieces[top : max(bottom, top + 1), left : max(right, left + 1)]
        areas = np.bincount(window.ravel(), minlength=2)[1:]
        ids.append(int(areas.argmax()) if areas.any() else NO_TISSUE)
    return np.array(ids, np.int64)


def _outlines(pieces: npt.NDArray[np.int32], scale: npt.NDArray[np.float64]) -> list[Any]:
    """A polygon around each piece of tissue, along the edges of the mask's px."""
    import shapely

    steps = np.diff(np.pad((pieces > 0).astype(np.int8), ((0, 0), (1, 1))), axis=1)
    (rows, starts), (_, stops) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    runs, names = shapely.box(starts, rows, stops, rows + 1), pieces[rows, starts]
    order = np.argsort(names, kind="stable")
    groups = np.split(runs[order], np.flatnonzero(np.diff(names[order])) + 1)
    pieces_of_runs = [shapely.union_all(group) for group in groups if len(group)]
    return [shapely.transform(piece, lambda px: px * scale) for piece in pieces_of_runs]


def _mask_downsample(store: TileStore, where: Frame) -> npt.NDArray[np.float64]:
    """Level-0 px per px of the tissue mask, x and y."""
    slide, (height, width) = store.meta.slide, store.tissue_mask.shape
    of_slide = np.array([slide.width_px / width, slide.height_px / height])
    return of_slide * (where.downsample / store.meta.tiling.downsample)


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
        "ops_downsample": 1.0 if where.has_resolution else where.downsample / where.level_downsample,
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
