"""Mask images: which part of a slide counts, drawn at any size in the slide's shape."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from wsi_norm.errors import ConfigError

Mask = npt.NDArray[np.bool_]
Size = tuple[int, int]

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NUMBERED_MODES = frozenset({"1", "L", "P", "I", "F", "I;16", "I;16B", "RGB"})
"""Pixel modes of Pillow whose numbers count as they are; a palette's are its indices."""

SHAPE_TOLERANCE = 0.02
"""How much wider or higher than the slide a mask may be, relatively; 1 px of the mask at least."""
BUFFER_BYTES = 1 << 24
LARGEST_PIECE_BYTES = 1 << 30
"""Tiles and strips of a TIFF are decoded one by one; of one larger than this, none."""

DECODING_ERRORS = (
    tifffile.TiffFileError,
    Image.DecompressionBombError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,  # imagecodecs
    MemoryError,  # an absurd size
    SyntaxError,  # a broken PNG
    struct.error,
)
"""What Pillow, tifffile and imagecodecs raise on damaged images."""


def read_mask_image(path: str | Path, shape: Size, slide_size: Size) -> Mask:
    """Read an image file as bool (h, w): True where any number is not 0, nearest-neighbour sized.

    A TIFF may be as large as the slide: it is read tile by tile, from its smallest level that is
    large enough.

    Parameters
    ----------
    path
        A TIFF, or whatever else Pillow reads. What is transparent is not marked.
    shape
        (height, width) of the result.
    slide_size
        (width, height) of what the mask is drawn over, at any scale.

    Raises
    ------
    ConfigError
        The file is missing or no image, or has another shape than the slide.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the mask image: {error.strerror}") from error
    read = _read_tiff if start in TIFF_STARTS else _read_plain
    return read(path, shape, slide_size)


def _read_plain(path: str | Path, shape: Size, slide_size: Size) -> Mask:
    # Its warning of large images says no more than the error of still larger ones.
    with warnings.catch_warnings(action="ignore"), _decoding(path):
        image = Image.open(path)
    with image:
        _check_shape(path, image.size, slide_size)
        with _decoding(path):
            numbered = image.mode in NUMBERED_MODES
            pixels = np.asarray(image if numbered else image.convert("RGBA"))
    sampled = pixels[np.ix_(*_sampled(shape, pixels.shape))]
    if sampled.ndim == 2:
        return np.asarray(sampled != 0)
    colour, opaque = sampled[..., :3] != 0, sampled[..., 3:] != 0
    return np.asarray(colour.any(axis=-1) & opaque.all(axis=-1))


def _read_tiff(path: str | Path, shape: Size, slide_size: Size) -> Mask:
    with _decoding(path):
        tiff = tifffile.TiffFile(path)
    with tiff:
        with _decoding(path):
            pages = [level.keyframe for level in tiff.series[0].levels]
        first = pages[0]
        _check_shape(path, (first.imagewidth, first.imagelength), slide_size)
        height, width = shape
        enough = [p for p in pages if p.imagelength >= height and p.imagewidth >= width]
        return _sampled_page(path, enough[-1] if enough else first, shape)


def _sampled_page(path: str | Path, page: Any, shape: Size) -> Mask:
    """The sample of a page that the result needs, piece by piece."""
    if np.prod(page.chunks, dtype=float) * page.dtype.itemsize > LARGEST_PIECE_BYTES:
        raise ConfigError(
            f"{path}: too large to be read in one piece; save it as a tiled TIFF, or smaller: "
            "a sixteenth of the slide's width is enough"
        )
    rows, columns = _sampled(shape, (page.imagelength, page.imagewidth))
    colours = page.samplesperpixel - len(page.extrasamples)
    # As it is shown: 0 is black, or white where the TIFF says so.
    black = (1 << page.bitspersample) - 1 if page.photometric == 0 else 0
    marked, opaque = np.zeros(shape, np.bool_), np.ones(shape, np.bool_)
    for values, (plane, _, top, left, _), (_, height, width, samples) in _pieces(path, page):
        if values is None:  # a sparse TIFF leaves out what is empty
            continue
        down = slice(*np.searchsorted(rows, (top, top + height)))
        across = slice(*np.searchsorted(columns, (left, left + width)))
        piece = values[0][np.ix_(rows[down] - top, columns[across] - left)]
        for sample in range(samples):
            there = piece[..., sample] != black
            if plane + sample < colours:
                marked[down, across] |= there
            elif page.extrasamples[plane + sample - colours]:  # alpha
                opaque[down, across] &= there
    return marked & opaque


def _pieces(path: str | Path, page: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Values (1, h, w, samples) or None, place and shape of every tile or strip."""
    with _decoding(path):
        yield from page.segments(maxworkers=1, buffersize=BUFFER_BYTES)


def _sampled(
    shape: Size, there: tuple[int, ...]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of an image that are nearest to the pixels of another of this shape."""
    rows, columns = (
        ((np.arange(size) + 0.5) * have / size).astype(np.intp)
        for size, have in zip(shape, there[:2], strict=True)
    )
    return rows, columns


def _check_shape(path: str | Path, size: Size, slide_size: Size) -> None:
    if _alike(size, slide_size):
        return
    turned = " (turned by 90 degrees?)" if _alike(size[::-1], slide_size) else ""
    raise ConfigError(
        f"{path}: the mask of {size[0]} x {size[1]} px has another shape than the slide of "
        f"{slide_size[0]} x {slide_size[1]} px{turned}; export it for the whole slide, at any size"
    )


def _alike(size: Size, other: Size) -> bool:
    """Whether one is the other at another scale, to a rounded pixel."""
    width, height = size[1] * other[0] / other[1], size[0] * other[1] / other[0]
    return any(
        abs(expected - edge) <= max(1.0, SHAPE_TOLERANCE * edge)
        for expected, edge in zip((width, height), size, strict=True)
    )


@contextmanager
def _decoding(path: str | Path) -> Iterator[None]:
    """Around calls of Pillow and tifffile: what they raise on damaged images, in one line."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ConfigError(
            f"{path}: too large for a mask of its format; save it as a tiled TIFF, or smaller: "
            "a sixteenth of the slide's width is enough"
        ) from error
    except DECODING_ERRORS as error:
        raise ConfigError(
            f"{path}: cannot read the mask image: damaged, or not an image that Pillow or "
            "tifffile can decode; save it as PNG or TIFF"
        ) from error
