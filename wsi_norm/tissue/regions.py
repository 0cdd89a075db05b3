"""Regions that people drew: the polygons of a GeoJSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import skimage

from wsi_norm.errors import ConfigError
from wsi_norm.geometry import Box

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Pixels = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]

FARTHEST_PX = 1e12  # no slide reaches there; far beyond it, drawing would overflow


QUPATH_PROPERTIES = frozenset({"objectType", "object_type", "isLocked", "classification"})
"""Of a feature that QuPath wrote, one of these at least."""
IGNORED = "ignore"
"""Begins the class of what is to be left out, "Ignore*" in QuPath."""
OVERHANG = 0.01
"""How far regions may reach beyond what was scanned, as a share of it, and still be drawn on it."""


class Polygon(NamedTuple):
    """A region in level-0 pixels: rings of (x, y), float64 (n, 2), need not be closed."""

    exterior: Floats
    holes: tuple[Floats, ...] = ()


class Regions(NamedTuple):
    """What a region file says.

    Attributes
    ----------
    path
        The file.
    wanted, ignored
        Where tissue counts (everywhere if there is none), and where it does not.
    by_qupath
        QuPath wrote it.
    """

    path: Path
    wanted: tuple[Polygon, ...]
    ignored: tuple[Polygon, ...] = ()
    by_qupath: bool = False


def regions_mask(
    regions: Regions, shape: tuple[int, int], downsample_xy: tuple[float, float]
) -> Mask:
    """Draw regions as bool (h, w), True where tissue counts; see `polygons_mask`."""
    inside = np.ones(shape, dtype=np.bool_)
    if regions.wanted:
        inside = polygons_mask(regions.wanted, shape, downsample_xy)
    return inside & ~polygons_mask(regions.ignored, shape, downsample_xy)


def placed(regions: Regions, scanned: Box) -> tuple[Regions, list[str]]:
    """Regions in level-0 px, and what a user has to know of them, a line each.

    QuPath shows a slide with bounds without what lies around them, and counts from their corner.
    Regions that reach far beyond their size were not drawn so.

    Parameters
    ----------
    regions
        As the file has them.
    scanned
        The slide, or its bounds if it states some, in level-0 px.

    Raises
    ------
    ConfigError
        No region meets what was scanned.
    """
    notes = []
    if regions.by_qupath and (scanned.left, scanned.top) != (0, 0):
        corner = f"({scanned.left}, {scanned.top}), the corner of what was scanned"
        if _drawn_on(regions, scanned):
            regions = _moved(regions, scanned.left, scanned.top)
            notes.append(f"regions: counted from {corner}, as QuPath counts")
        else:
            notes.append(f"regions: too far out to be counted from {corner}; counted from (0, 0)")
    lost = sum(not _meets(polygon, scanned) for polygon in regions.wanted)
    if lost and lost == len(regions.wanted):
        left, top, right, bottom = _extent(regions.wanted)
        raise ConfigError(
            f"{regions.path}: no region meets the slide: they span x {left:.0f} to {right:.0f} and "
            f"y {top:.0f} to {bottom:.0f}, it x {scanned.left} to {scanned.right} and "
            f"y {scanned.top} to {scanned.bottom}; give level-0 px of this slide"
        )
    if lost:
        notes.append(f"regions: {lost} of {len(regions.wanted)} lie outside the slide")
    return regions, notes


def polygons_mask(
    polygons: Sequence[Polygon], shape: tuple[int, int], downsample_xy: tuple[float, float]
) -> Mask:
    """Draw polygons as bool (h, w): True where a pixel's centre lies in one, not in its holes.

    A hole cuts its own polygon alone. `downsample_xy`: level-0 pixels a mask pixel, by axis.
    """
    mask = np.zeros(shape, dtype=np.bool_)
    one = np.zeros(shape, dtype=np.bool_)
    for polygon in polygons:
        inside = _ring_pixels(polygon.exterior, shape, downsample_xy)
        one[inside] = True
        for hole in polygon.holes:
            one[_ring_pixels(hole, shape, downsample_xy)] = False
        mask[inside] |= one[inside]
        one[inside] = False
    return mask


def read_geojson(path: str | Path) -> Regions:
    """Read the polygons of a GeoJSON file such as QuPath writes; other geometry is passed over.

    Polygons of a class whose name begins with "ignore" are left out of the others.

    Raises `ConfigError` if the file is missing, not JSON, holds a damaged polygon, or none.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the region file: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a GeoJSON file: {error}") from error
    found: tuple[list[Polygon], list[Polygon]] = [], []
    by_qupath = False
    for number, (rings, properties) in enumerate(_polygons(document), 1):
        if not (isinstance(rings, list) and rings and all(map(_is_ring, rings))):
            raise ConfigError(
                f"{path}: polygon {number} of this GeoJSON file is damaged: "
                "a ring needs 3 or more points of x and y in level-0 px"
            )
        exterior, *holes = (np.array([point[:2] for point in ring], float) for ring in rings)
        found[_is_ignored(properties)].append(Polygon(exterior, tuple(holes)))
        by_qupath = by_qupath or not QUPATH_PROPERTIES.isdisjoint(properties)
    wanted, ignored = found
    if not (wanted or ignored):
        raise ConfigError(f"{path}: no Polygon or MultiPolygon in this GeoJSON file")
    return Regions(Path(path), tuple(wanted), tuple(ignored), by_qupath)


def _extent(polygons: Sequence[Polygon]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom."""
    points = np.concatenate([polygon.exterior for polygon in polygons])
    left, top = points.min(axis=0).tolist()
    right, bottom = points.max(axis=0).tolist()
    return left, top, right, bottom


def _meets(polygon: Polygon, box: Box) -> bool:
    left, top, right, bottom = _extent([polygon])
    return left < box.right and top < box.bottom and right > box.left and bottom > box.top


def _drawn_on(regions: Regions, box: Box) -> bool:
    """Whether regions fit on a picture of the size of a box."""
    left, top, right, bottom = _extent(regions.wanted + regions.ignored)
    x, y = OVERHANG * box.width, OVERHANG * box.height
    return left >= -x and top >= -y and right <= box.width + x and bottom <= box.height + y


def _moved(regions: Regions, x: int, y: int) -> Regions:
    offset = np.array([x, y], dtype=float)

    def moved(polygon: Polygon) -> Polygon:
        holes = tuple(hole + offset for hole in polygon.holes)
        return Polygon(polygon.exterior + offset, holes)

    wanted, ignored = (tuple(map(moved, part)) for part in (regions.wanted, regions.ignored))
    return regions._replace(wanted=wanted, ignored=ignored)


def _ring_pixels(ring: Floats, shape: tuple[int, int], downsample: tuple[float, float]) -> Pixels:
    x, y = (ring / np.asarray(downsample) - 0.5).T
    pixels: Pixels = skimage.draw.polygon(y, x, shape)
    return pixels


def _polygons(document: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Coordinates of every Polygon of a GeoJSON document, and its feature's properties.

    In the document's order; coordinates are not checked yet.
    """
    nodes: list[tuple[Any, Mapping[str, Any]]] = [(document, {})]
    while nodes:
        node, properties = nodes.pop()
        if isinstance(node, list):
            nodes.extend((part, properties) for part in reversed(node))
        elif isinstance(node, dict):
            own = node.get("properties")
            properties = own if isinstance(own, dict) else properties
            coordinates = node.get("coordinates")
            match node.get("type"):
                case "Polygon":
                    yield coordinates, properties
                case "MultiPolygon":
                    several = coordinates if isinstance(coordinates, list) else [coordinates]
                    yield from ((polygon, properties) for polygon in several)
                case _:
                    parts = ("geometries", "geometry", "features")
                    nodes.extend((node.get(key), properties) for key in parts)


def _is_ignored(properties: Mapping[str, Any]) -> bool:
    """Whether a feature's class says so: a name, or an object with a name or several."""
    named = properties.get("classification")
    if isinstance(named, dict):
        named = named.get("name") or named.get("names")
    first = named[0] if isinstance(named, list) and named else named
    return isinstance(first, str) and first.casefold().startswith(IGNORED)


def _is_ring(points: Any) -> bool:
    return isinstance(points, list) and len(points) >= 3 and all(map(_is_point, points))


def _is_point(point: Any) -> bool:
    """Whether x and y are finite numbers; a height may follow them."""
    return (
        isinstance(point, list)
        and len(point) >= 2
        and all(type(value) in (int, float) for value in point[:2])
        and all(abs(value) < FARTHEST_PX for value in point[:2])
    )
