"""Regions that people drew: the polygons of a GeoJSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wsi_norm.errors import ConfigError
from wsi_norm.geometry import Box
from wsi_norm.location import read_bounded

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FARTHEST_PX = 1e12
"""No slide reaches there; far beyond it, drawing would overflow."""
LARGEST_FILE_BYTES = 1 << 28
"""Five million points; reading them takes ten times as much memory."""
VERTEX = 1e-12
"""How near to a point of a ring a pixel's centre counts as on it."""
HOLE = 1 << 32
"""What lies in a hole counts more than any number of rings around it."""
MOST_CROSSINGS = 1 << 24
"""Of edges and rows: ten seconds. There are several times fewer pixels in a mask."""
AT_ONCE = 1 << 20
"""Crossings of edges and rows that are drawn at a time: 100 MB."""

QUPATH_PROPERTIES = frozenset({"objectType", "object_type", "isLocked", "classification"})
"""Of a feature that QuPath wrote, one of these at least."""
OURS = "wsi_norm"
"""Stands in a document that `export` wrote for QuPath: it counts from the slide's corner."""
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
    """Draw regions as bool (h, w), True where tissue counts; see `polygons_mask`.

    Raises `ConfigError` if outlines go up and down over the mask so often that it would take long.
    """
    polygons = (*regions.wanted, *regions.ignored)
    rings = [ring for polygon in polygons for ring in (polygon.exterior, *polygon.holes)]
    height = shape[0] * downsample_xy[1]
    climbs = sum(float(np.abs(np.diff(np.clip(ring[:, 1], 0, height))).sum()) for ring in rings)
    if climbs / downsample_xy[1] > MOST_CROSSINGS:
        raise ConfigError(
            f"{regions.path}: its outlines cross the slide {climbs / height:.0f} times; "
            "simplify them"
        )
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
    polygons: Sequence[Polygon] | Regions,
    shape: tuple[int, int],
    downsample_xy: tuple[float, float],
) -> Mask:
    """Draw polygons as bool (h, w): True where a pixel's centre lies in one, not in its holes.

    Regions stand for those of them that are wanted.

    Inside a ring is what an odd number of its edges surrounds, or what lies on one. A hole cuts its
    own polygon alone. `downsample_xy`: level-0 pixels a mask pixel, by axis.

    Notes
    -----
    Row by row, so time grows with points plus rows that edges cross. Pillow fills the outline's
    pixels, too, wherever their centres lie; scikit-image tests every pixel against every point.
    """
    wanted = polygons.wanted if isinstance(polygons, Regions) else polygons
    owners = [
        (number, ring, HOLE if place else 1)
        for number, polygon in enumerate(wanted)
        for place, ring in enumerate((polygon.exterior, *polygon.holes))
    ]
    if not owners:
        return np.zeros(shape, np.bool_)
    numbers, rings, counts = zip(*owners, strict=True)
    scale = np.asarray(downsample_xy)
    edges = _Edges(
        np.concatenate([np.roll(ring, 1, axis=0) for ring in rings]) / scale - 0.5,
        np.concatenate(rings) / scale - 0.5,
        np.repeat(np.arange(len(rings)), [len(ring) for ring in rings]),
    )
    return _filled(edges, np.array(numbers), np.array(counts), range(shape[0]), shape[1])


def read_geojson(path: str | Path) -> Regions:
    """Read the polygons of a GeoJSON file such as QuPath writes; other geometry is passed over.

    Polygons of a class whose name begins with "ignore" are left out of the others.

    Raises `ConfigError` if the file is missing, not JSON, holds a damaged polygon, or none.
    """
    try:
        document = json.loads(read_bounded(Path(path), LARGEST_FILE_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the region file: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a GeoJSON file: {error}") from error
    found: tuple[list[Polygon], list[Polygon]] = [], []
    ours = isinstance(document, dict) and OURS in document
    by_qupath = False
    for number, (rings, properties) in enumerate(_polygons(document), 1):
        drawn = [_ring(points) for points in rings] if isinstance(rings, list) else []
        sound = [ring for ring in drawn if ring is not None]
        if not sound or len(sound) < len(drawn):
            raise ConfigError(
                f"{path}: polygon {number} of this GeoJSON file is damaged: "
                "a ring needs 3 or more points of x and y in level-0 px"
            )
        exterior, *holes = sound
        found[_is_ignored(properties)].append(Polygon(exterior, tuple(holes)))
        by_qupath = by_qupath or not (ours or QUPATH_PROPERTIES.isdisjoint(properties))
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


class _Edges(NamedTuple):
    """Edges of rings, in pixels whose centres are whole numbers."""

    starts: Floats
    ends: Floats
    ring: Ints

    def near(self, rows: range) -> _Edges:
        """Those that may meet some rows."""
        y = np.sort([self.starts[:, 1], self.ends[:, 1]], axis=0)
        met = (y[0] < rows.stop) & (y[1] >= rows.start)
        return _Edges(*(part[met] for part in self))


def _filled(edges: _Edges, polygon: Ints, count: Ints, rows: range, width: int) -> Mask:
    """Some rows of the mask; of each ring, its polygon and what being inside it counts."""
    low, high = np.sort([edges.starts[:, 1], edges.ends[:, 1]], axis=0)
    # In a row through its end an edge counts either if it lies below, or if it lies above. Inside
    # is what is so by one of them: with that which lies on an edge.
    crossed = [
        np.clip(span, rows.start, rows.stop).astype(np.int64)
        for span in ((np.ceil(low), np.ceil(high)), (np.floor(low) + 1, np.floor(high) + 1))
    ]
    if len(rows) > 1 and sum(int((last - first).sum()) for first, last in crossed) > AT_ONCE:
        middle = (rows.start + rows.stop) // 2
        halves = range(rows.start, middle), range(middle, rows.stop)
        parts = [_filled(edges.near(half), polygon, count, half, width) for half in halves]
        return np.concatenate(parts)
    spans = [_on_points(edges, rows, width)]
    spans += [
        _inside(edges, first, last, bool(on), rows, width)
        for on, (first, last) in enumerate(crossed)
    ]
    ring, row, left, right = np.concatenate(spans, axis=1)
    across = width + 1
    at = (polygon[ring] * len(rows) + row) * across
    places = np.concatenate([at + left, at + right])
    change = np.concatenate([count[ring], -count[ring]])
    order = np.argsort(places)
    places, depth = places[order], change[order].cumsum()  # 0 again after each row of a polygon
    wanted = np.flatnonzero((depth > 0) & (depth < HOLE))
    size = len(rows) * across
    polygons = np.bincount(places[wanted] % size, minlength=size)
    polygons -= np.bincount(places[wanted + 1] % size, minlength=size)
    return np.asarray(polygons.cumsum().reshape(-1, across)[:, :-1] > 0)


def _inside(
    edges: _Edges, first: Ints, last: Ints, on: bool, rows: range, width: int
) -> npt.NDArray[np.int64]:
    """Ring, row, first column and that after the last one: (4, n), between its edges.

    Edges count from row `first` to the one before `last`. A pixel on its ring's edge is right of
    it, or left if it counts as `on`.
    """
    rows_of = last - first
    edge = np.repeat(np.arange(len(first)), rows_of)
    row = np.arange(len(edge)) + np.repeat(last - np.cumsum(rows_of), rows_of)
    column = _first_column(edges.starts[edge], edges.ends[edge], row, on, width)
    places = (edges.ring[edge] * len(rows) + row - rows.start) * (width + 1) + column
    places.sort()  # now a ring's edges stand in pairs in each row: into it, out of it
    ring_and_row, columns = np.divmod(places, width + 1)
    return np.stack([*np.divmod(ring_and_row[::2], len(rows)), columns[::2], columns[1::2]])


def _first_column(starts: Floats, ends: Floats, row: Ints, on: bool, width: int) -> Ints:
    """The first column right of edges in a row: of what lies `on` them, the next one.

    The sign of a cross product decides, so that rounding does not.
    """
    (x0, y0), (x1, y1) = starts.T, ends.T
    near = np.rint(x0 + (row - y0) / (y1 - y0) * (x1 - x0)).clip(-1, width)
    beyond = ((x1 - near) * (y0 - row) - (x0 - near) * (y1 - row)) / (y0 - y1)
    column = near + (beyond >= 0 if on else beyond > 0)
    return np.asarray(np.clip(column, 0, width), np.int64)


def _on_points(edges: _Edges, rows: range, width: int) -> npt.NDArray[np.int64]:
    """As `_inside`: pixels whose centres are points of a ring."""
    nearest = np.rint(edges.ends)
    x, y = nearest.T
    on = (np.abs(edges.ends - nearest) < VERTEX).all(axis=1)
    on &= (x >= 0) & (x < width) & (y >= rows.start) & (y < rows.stop)
    column = x[on].astype(np.int64)
    return np.stack([edges.ring[on], y[on].astype(np.int64) - rows.start, column, column + 1])


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


def _ring(points: Any) -> Floats | None:
    """A ring, float64 (n, 2); None if it is none: x and y are finite, a height may follow them."""
    if not isinstance(points, list) or len(points) < 3:
        return None
    if not all(isinstance(point, list) and len(point) >= 2 for point in points):
        return None
    x, y = ([point[axis] for point in points] for axis in (0, 1))
    if not {*map(type, x), *map(type, y)} <= {int, float}:
        return None
    try:
        ring = np.array([x, y], float).T
    except OverflowError:
        return None
    return ring if bool((np.abs(ring) < FARTHEST_PX).all()) else None
