"""Regions that people drew: polygons of a GeoJSON file, and mask images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import skimage
from PIL import Image

from wsi_norm.errors import ConfigError

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Pixels = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]

FARTHEST_PX = 1e12  # no slide reaches there; far beyond it, drawing would overflow


class Polygon(NamedTuple):
    """A region in level-0 pixels: rings of (x, y), float64 (n, 2), need not be closed."""

    exterior: Floats
    holes: tuple[Floats, ...] = ()


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


def read_geojson(path: str | Path) -> list[Polygon]:
    """Read the polygons of a GeoJSON file such as QuPath writes; other geometry is passed over.

    Raises `ConfigError` if the file is missing, not JSON, holds a damaged polygon, or none.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the region file: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a GeoJSON file: {error}") from error
    polygons = []
    for number, rings in enumerate(_polygons(document), 1):
        if not (isinstance(rings, list) and rings and all(map(_is_ring, rings))):
            raise ConfigError(
                f"{path}: polygon {number} of this GeoJSON file is damaged: "
                "a ring needs 3 or more points of x and y in level-0 px"
            )
        exterior, *holes = (np.array([point[:2] for point in ring], float) for ring in rings)
        polygons.append(Polygon(exterior, tuple(holes)))
    if not polygons:
        raise ConfigError(f"{path}: no Polygon or MultiPolygon in this GeoJSON file")
    return polygons


def read_mask_image(path: str | Path, shape: tuple[int, int]) -> Mask:
    """Read an image file as bool (h, w): True where any colour is not 0, nearest-neighbour sized.

    Raises
    ------
    ConfigError
        The file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            plain = image.mode in ("1", "L", "I", "F", "I;16", "I;16B", "RGB")
            pixels = np.asarray(image if plain else image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        cause = getattr(error, "strerror", None) or "not an image that Pillow can decode"
        raise ConfigError(f"{path}: cannot read the mask image: {cause}") from error
    marked = pixels != 0
    if marked.ndim == 3:
        marked = marked[..., :3].any(axis=-1) & marked[..., 3:].all(axis=-1)
    rows, columns = (
        ((np.arange(size) + 0.5) * have / size).astype(np.intp)
        for size, have in zip(shape, marked.shape, strict=True)
    )
    return np.asarray(marked[np.ix_(rows, columns)], dtype=np.bool_)


def _ring_pixels(ring: Floats, shape: tuple[int, int], downsample: tuple[float, float]) -> Pixels:
    x, y = (ring / np.asarray(downsample) - 0.5).T
    pixels: Pixels = skimage.draw.polygon(y, x, shape)
    return pixels


def _polygons(document: Any) -> Iterator[Any]:
    """Coordinates of every Polygon of a GeoJSON document, in its order; not checked yet."""
    nodes = [document]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes.extend(reversed(node))
        elif isinstance(node, dict):
            coordinates = node.get("coordinates")
            match node.get("type"):
                case "Polygon":
                    yield coordinates
                case "MultiPolygon":
                    yield from coordinates if isinstance(coordinates, list) else [coordinates]
                case _:
                    nodes.extend(node.get(key) for key in ("geometries", "geometry", "features"))


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
