"""Tiles and outlines of tissue for QuPath, in level-0 px."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure

from wsi_norm.export.base import Format, Job
from wsi_norm.store import TileFlag, TileStore

HEAD, TAIL = '{"type": "FeatureCollection", "wsi_norm": ', ', "features": [\n'
"""Of the first line, around the origin."""
LONGEST_HEAD = 1 << 16

TISSUE = {"name": "Tissue", "color": [0, 140, 90]}
FLAGGED = [220, 130, 0]


def _write(job: Job, draft: Path) -> None:
    features = (json.dumps(feature) for feature in _features(job))
    with draft.open("w", encoding="ascii") as file:
        file.write(HEAD + job.origin + TAIL + next(features, ""))
        file.writelines(f",\n{feature}" for feature in features)
        file.write("\n]}\n")


def _origin(path: Path) -> str | None:
    try:
        with path.open(encoding="ascii") as file:
            line = file.readline(LONGEST_HEAD)
    except (OSError, ValueError):
        return None
    said = line.removeprefix(HEAD).removesuffix(TAIL)
    return said if line == HEAD + said + TAIL else None


def _features(job: Job) -> Iterator[dict[str, Any]]:
    for rings in tissue_outlines(job.store):
        about = {"objectType": "annotation", "classification": TISSUE, "isLocked": True}
        yield _feature(rings, about)
    yield from _tiles(job)


def _tiles(job: Job) -> Iterator[dict[str, Any]]:
    store, meta = job.store, job.store.meta
    grid = meta.tiling.grid(meta.slide)
    boxes = grid.level0_boxes([grid.tile_at(x, y) for x, y in store.coords.tolist()])
    rows = zip(boxes.round(2).tolist(), store.flags, store.tissue_fraction.tolist(), strict=True)
    for (left, top, right, bottom), bits, share in rows:
        flags = [flag for flag in TileFlag if bits & flag]
        about: dict[str, Any] = {"objectType": "tile"}
        if flags:
            name = ": ".join(flag.label.capitalize() for flag in flags)
            about["classification"] = {"name": name, "color": FLAGGED}
        measured = {"Tissue fraction": round(share, 4)}
        about["measurements"] = measured | {f"Flag: {flag.label}": 1.0 for flag in flags}
        corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        yield _feature([corners], about)
        job.advance(1)


def _feature(rings: list[Any], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": properties,
    }


def tissue_outlines(store: TileStore) -> list[list[list[list[float]]]]:
    """Polygons of the tissue mask: an outline and its holes each, rings of x, y in level-0 px.

    They run midway between px of tissue and others, so that drawn on the mask's px they give the
    mask.
    """
    mask = store.tissue_mask
    scale = (
        store.meta.slide.width_px / mask.shape[1],
        store.meta.slide.height_px / mask.shape[0],
    )
    labels, number = ndimage.label(mask)
    pieces = zip(ndimage.find_objects(labels), range(1, number + 1), strict=True)
    return [_outline(labels[place] == piece, place, scale) for place, piece in pieces]


def _outline(
    piece: npt.NDArray[np.bool_], place: tuple[slice, slice], scale: tuple[float, float]
) -> list[list[list[float]]]:
    """Of px that hang together: the ring around them, then those around their holes."""
    rings = measure.find_contours(np.pad(piece, 1), 0.5, fully_connected="low")
    corner = np.array([place[1].start, place[0].start])
    drawn = [(ring[:, ::-1] - 0.5 + corner) * scale for ring in rings]
    drawn.sort(key=lambda ring: float(-np.ptp(ring, axis=0).prod()))
    return [ring.round(2).tolist() for ring in drawn]


GEOJSON = Format(".geojson", _write, _origin)
