"""Which pixels of a slide's overview image are tissue, ink, glass, or no brightfield image at all.

Everything works on optical density relative to the image's own clear glass,
``od = -log10(rgb / white)``: ratios between the channels' densities tell dyes apart whatever
their amount. By Ruifrok and Johnston (Anal Quant Cytol Histol 2001, 23:291), haematoxylin has
R/G 0.93 and B/G 0.41, eosin R/G 0.07 and B/G 0.11: green is absorbed most. Blue and green ink
absorb red most, red ink absorbs blue as strongly as green, black ink absorbs all alike.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import color, draw, filters, measure, morphology

from wsi_norm.errors import ConfigError

Method = Literal["otsu", "hsv", "none"]

Mask = NDArray[np.bool_]
Rgb = NDArray[np.uint8]
Floats = NDArray[np.float64]
Pixels = tuple[NDArray[np.intp], NDArray[np.intp]]

# scikit-image leaves these unannotated.
_dilate: Callable[[Mask, float], Mask] = morphology.isotropic_dilation
_close: Callable[[Mask, NDArray[np.uint8]], Mask] = morphology.closing
_disk: Callable[[int], NDArray[np.uint8]] = morphology.disk
_otsu: Callable[[Floats], float] = filters.threshold_otsu
_label: Callable[[Mask], NDArray[np.intp]] = measure.label
_fill: Callable[[Floats, Floats, tuple[int, int]], Pixels] = draw.polygon

DARK = 40  # every channel (of 255) below; fluorescence is mostly dark
BLACK_PADDING = 8  # every channel below: not scanned, or JPEG noise there
GLASS_SATURATION = 0.25  # largest (max - min) / max of glass; a yellow 240/225/205 has 0.15
GLASS_MAGENTA = 0.05  # largest (min(R, B) - G) / max of glass; pale H&E has more, tints less
FIELD_SATURATION = 0.48  # largest of a field's palest tissue: 0.41 in 1757 fields of 15 sources
DENSITY_RANGE = (0.05, 0.10)  # Otsu's threshold stays above glass noise, below pale eosin
SPECK_UM2 = 10_000.0  # smaller islands are dropped, smaller holes filled: 100 um square
PEN_MARGIN_UM = 50.0  # ink bleeds: this much around it is not tissue either


class Polygon(NamedTuple):
    """A region in level-0 pixels: rings of (x, y), float64 (n, 2), need not be closed."""

    exterior: Floats
    holes: tuple[Floats, ...] = ()


def tissue_mask(thumbnail: Rgb, mpp_um: float, method: Method = "otsu") -> Mask:
    """Mark the pixels that are tissue, as bool (h, w).

    Parameters
    ----------
    thumbnail
        uint8 (h, w, 3), RGB, brightfield.
    mpp_um
        Its pixel size in um, which specks, holes and margins follow; 8-16 is best, 1-64 works.
    method
        ``otsu``: threshold on stain density; ``hsv``: limits on saturation and value;
        ``none``: all of the image, even ink and padding, which else are never tissue.
    """
    if method == "none":
        return np.ones(thumbnail.shape[:2], dtype=np.bool_)
    scanned = ~_padding(thumbnail)
    found = _otsu_mask(thumbnail, scanned) if method == "otsu" else _hsv_mask(thumbnail)
    pen = pen_mask(thumbnail)
    margin_px = min(PEN_MARGIN_UM / mpp_um, 0.03 * min(pen.shape))
    # Without ink the distance transform would measure from a corner.
    inked = _dilate(pen, margin_px) if pen.any() else pen
    return _clean(found & scanned & ~inked, mpp_um) & ~inked


def pen_mask(thumbnail: Rgb) -> Mask:
    """Mark blue, green, red and black ink on a uint8 (h, w, 3) image; returns bool (h, w).

    The limits lie between inks and H&E fields of 12 TCGA sites and 3 more scanners: in each
    R/G was below 1.25 in 99.5 % of stained pixels, and at most 1.7 % had density above 0.6 with
    B/G above 0.74. Ink starts where its dye is certain and grows over paler ink joined to it.
    """
    od = _optical_density(thumbnail, _reference_white(thumbnail))
    red, green, blue = np.moveaxis(od, -1, 0) + 1e-6
    densest = od.max(axis=-1)
    evenness = od.min(axis=-1) / (densest + 1e-6)
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
    scanned = ~_padding(thumbnail)
    sure = _drop_specks(sure & scanned, max(4.0, 5e-4 * scanned.size))
    ink = _grow(sure, maybe & scanned, least_share=0.1)
    return _close(ink, _disk(min(5, min(ink.shape) // 100))) & scanned


def white_level(thumbnail: Rgb, tissue: Mask | None = None) -> Floats:
    """Colour of clear glass, float64 (3,) in [0, 1].

    The median of the bright background of a uint8 (h, w, 3) image, padding and `tissue`, bool
    (h, w), left out. Hardly any background: each channel's 99th percentile, at least 0.5.
    """
    candidates = ~_padding(thumbnail)
    if not candidates.any():
        return np.ones(3)
    pixels = thumbnail[candidates]
    high = np.maximum(np.percentile(pixels, 99, axis=0) / 255.0, 0.5)
    if tissue is not None and (candidates & ~tissue).any():
        pixels = thumbnail[candidates & ~tissue]
    glass = pixels[_is_glass_coloured(pixels) & (pixels >= 0.93 * 255.0 * high).all(axis=-1)]
    if len(glass) < 0.005 * candidates.sum():
        return np.asarray(high, dtype=np.float64)
    return np.asarray(np.median(glass, axis=0) / 255.0, dtype=np.float64)


def is_fluorescence(thumbnail: Rgb) -> bool:
    """Whether a uint8 (h, w, 3) image is light on dark: mostly dark, and nothing near white."""
    dark = (thumbnail < DARK).all(axis=-1)
    return bool(dark.mean() > 0.6 and np.percentile(thumbnail.min(axis=-1), 99) < 100)


def colour_problem(thumbnail: Rgb) -> str | None:
    """Say why a uint8 (h, w, 3) image cannot be stained tissue on clear glass, or None if it can.

    Looks at the brightest pixels: glass is nearly neutral; a field of tissue without glass is
    pale pink to violet, with green the least. YCbCr samples taken for RGB are neither.
    """
    scanned = ~_padding(thumbnail)
    if not scanned.any():
        return None if thumbnail.max() == 255 else "the image is black everywhere"
    pixels = thumbnail[scanned]
    brightness = pixels.sum(axis=-1, dtype=np.int64)
    brightest = np.median(pixels[brightness >= np.percentile(brightness, 98)], axis=0)
    words = "RGB " + "/".join(f"{value:.0f}" for value in brightest)
    spread = pixels.max(axis=-1) - pixels.min(axis=-1)
    if np.percentile(spread, 99.9) <= 2 and np.percentile(pixels, 5) < 0.8 * brightest.max():
        return "the image is grey everywhere; a channel may be taken for all three"
    if brightest.max() < 128:
        return f"even the brightest part is dark ({words})"
    saturation, magenta = _saturation_magenta(brightest)
    gaudy = saturation > FIELD_SATURATION
    if gaudy or (saturation > GLASS_SATURATION and magenta < 0.25 * saturation):
        return f"the glass is not neutral ({words})"
    return None


def tissue_fraction(mask: Mask, boxes: Floats) -> NDArray[np.float32]:
    """Share of each box's area that is tissue, float32 (n,) in [0, 1]; 0 for a box without area.

    Parameters
    ----------
    mask
        bool (h, w); outside it there is no tissue.
    boxes
        float64 (n, 4): x0, y0, x1, y1 in mask pixels, pixel i spanning [i, i + 1]. Edges inside
        pixels count exactly.
    """
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    table[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    x0, y0, x1, y1 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
    tissue = _table_at(table, x1, y1) - _table_at(table, x0, y1)
    tissue += _table_at(table, x0, y0) - _table_at(table, x1, y0)
    area = np.maximum(x1 - x0, 0.0) * np.maximum(y1 - y0, 0.0)
    share = np.divide(tissue, area, out=np.zeros_like(area), where=area > 0)
    return np.asarray(np.clip(share, 0.0, 1.0), dtype=np.float32)


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
    try:
        polygons = [_polygon(rings) for rings in _polygon_rings(document)]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{path}: damaged GeoJSON polygon: {error}") from error
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


def _padding(thumbnail: Rgb) -> Mask:
    """Pixels the scanner did not record: pure white, or black."""
    white = (thumbnail == 255).all(axis=-1)
    return np.asarray(white | (thumbnail < BLACK_PADDING).all(axis=-1), dtype=np.bool_)


def _saturation_magenta(pixels: NDArray[Any]) -> tuple[Floats, Floats]:
    """Of RGB (..., 3): (max - min) / max, and how far green lies below both others over max."""
    values = np.asarray(pixels, dtype=np.float64)
    brightest = np.maximum(values.max(axis=-1), 1.0)
    saturation = (brightest - values.min(axis=-1)) / brightest
    magenta = (np.minimum(values[..., 0], values[..., 2]) - values[..., 1]) / brightest
    return saturation, magenta


def _is_glass_coloured(pixels: Rgb) -> Mask:
    saturation, magenta = _saturation_magenta(pixels)
    bright = pixels.min(axis=-1) >= 128
    return np.asarray(bright & (saturation < GLASS_SATURATION) & (magenta < GLASS_MAGENTA))


def _reference_white(thumbnail: Rgb) -> Floats:
    """`white_level`, or the neutral colour of its brightest channel where no glass is seen."""
    white = white_level(thumbnail)
    if _is_glass_coloured((white * 255.0).astype(np.uint8)):
        return white
    return np.full(3, white.max())


def _optical_density(thumbnail: Rgb, white: Floats) -> Floats:
    return np.maximum(-np.log10(np.maximum(thumbnail, 1.0) / (255.0 * white)), 0.0)


def _otsu_mask(thumbnail: Rgb, scanned: Mask) -> Mask:
    od = _optical_density(thumbnail, _reference_white(thumbnail))
    # The spread between channels plus half the densest: stain counts more than grey shade.
    density = 1.5 * od.max(axis=-1) - od.min(axis=-1)
    if not scanned.any():
        return scanned
    return np.asarray(density > np.clip(_otsu(density[scanned]), *DENSITY_RANGE), dtype=np.bool_)


def _hsv_mask(thumbnail: Rgb) -> Mask:
    """Coloured enough beside the glass, and neither black nor white."""
    balanced = np.minimum(thumbnail / (255.0 * _reference_white(thumbnail)), 1.0)
    _, saturation, value = np.moveaxis(color.rgb2hsv(balanced), -1, 0)
    return np.asarray((saturation > 0.07) & (value > 0.1), dtype=np.bool_)


def _drop_specks(mask: Mask, area_px: float) -> Mask:
    cleaned = morphology.remove_small_objects(mask, max_size=int(area_px))
    return np.asarray(cleaned, dtype=np.bool_)


def _grow(sure: Mask, maybe: Mask, least_share: float) -> Mask:
    """Add the connected parts of `maybe` of which `sure` makes up at least this share."""
    labels = _label(sure | maybe)
    sizes = np.bincount(labels.ravel())
    grown = np.bincount(labels[sure], minlength=sizes.size) >= np.maximum(least_share * sizes, 1)
    grown[0] = False
    return sure | np.asarray(grown[labels], dtype=np.bool_)


def _clean(mask: Mask, mpp_um: float) -> Mask:
    """Drop islands and fill holes below `SPECK_UM2`; never more than 1 % of the image each."""
    area_px = min(SPECK_UM2 / mpp_um**2, 0.01 * mask.size)
    filled = morphology.remove_small_holes(mask, max_size=int(area_px))
    return _drop_specks(np.asarray(filled, dtype=np.bool_), area_px)


def _table_at(table: Floats, x: Floats, y: Floats) -> Floats:
    """Summed-area table between its nodes: bilinear is exact where pixels are uniform."""
    rows, columns = table.shape[0] - 1, table.shape[1] - 1
    x, y = np.clip(x, 0, columns), np.clip(y, 0, rows)
    i, j = y.astype(np.intp), x.astype(np.intp)
    below, right = np.minimum(i + 1, rows), np.minimum(j + 1, columns)
    v, u = y - i, x - j
    top = table[i, j] * (1 - u) + table[i, right] * u
    bottom = table[below, j] * (1 - u) + table[below, right] * u
    return np.asarray(top * (1 - v) + bottom * v, dtype=np.float64)


def _ring_pixels(ring: Floats, shape: tuple[int, int], downsample: tuple[float, float]) -> Pixels:
    x, y = (ring / np.asarray(downsample) - 0.5).T
    return _fill(y, x, shape)


def _polygon_rings(node: Any) -> Iterator[Any]:
    """Coordinates of every Polygon below a GeoJSON node."""
    if isinstance(node, list):
        for item in node:
            yield from _polygon_rings(item)
    elif isinstance(node, dict):
        match node.get("type"):
            case "Polygon":
                yield node["coordinates"]
            case "MultiPolygon":
                yield from node["coordinates"]
            case _:
                for key in ("features", "geometry", "geometries"):
                    yield from _polygon_rings(node.get(key))


def _polygon(rings: Any) -> Polygon:
    exterior, *holes = (_ring(ring) for ring in rings)
    return Polygon(exterior, tuple(holes))


def _ring(points: Any) -> Floats:
    ring = np.asarray([point[:2] for point in points], dtype=np.float64)
    if ring.shape[1:] != (2,) or len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError("a ring needs 3 or more points of finite x and y")
    return ring
