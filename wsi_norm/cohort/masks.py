"""Masks, and the sizes of images: checked by headers before a training, read when one is needed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from wsi_norm.cohort.splits import LabelledImage
from wsi_norm.errors import ConfigError
from wsi_norm.slide.directories import walk
from wsi_norm.slide.readers.base import Refused
from wsi_norm.slide.readers.image import refused_by_pillow
from wsi_norm.store import TileStore

_INTEGER_MODES = frozenset({"1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N"})


def check_masks(images: Iterable[LabelledImage]) -> None:
    """Check by their headers that masks are as large as their images and hold integers.

    Raises
    ------
    ConfigError
        They do not, or a header cannot be read.
    """
    for image in images:
        if image.mask is None:
            continue
        with _opened_mask(image.mask) as mask:
            size = mask.size
        if size != (expected := _size(image)):
            raise ConfigError(
                f"{image.mask}: the mask is {_px(size)} but its image {image.path} "
                f"{_px(expected)}; they have to be of one size"
            )


def check_sizes(
    images: Iterable[LabelledImage], tile_size: int | None, downsample: int = 1
) -> tuple[int, int]:
    """(width, height) in px of what the network will see; only headers are read.

    Parameters
    ----------
    images
        At least one.
    tile_size
        Edge of the tiles that are cut; None: images are taken whole.
    downsample
        Images are scaled down by this before tiles are cut.

    Raises
    ------
    ConfigError
        Whole images differ in size, an image is smaller than a tile, or a header is damaged.
    """
    sizes = _sizes(images)
    first, common = next(sizes)
    for path, size in [(first, common), *sizes]:
        if tile_size is None and size != common:
            raise ConfigError(
                f"images differ in size: {first} is {_px(common)}, {path} is {_px(size)}; "
                "set data.tile_size to cut tiles of one size"
            )
        if min(size) // downsample < (tile_size or 1):
            after = f" (scaled down by data.downsample {downsample})" if downsample > 1 else ""
            raise ConfigError(
                f"{path}: {_px(size)}{after} is smaller than data.tile_size {tile_size or 1}; "
                "lower that, or leave the image out with data.where"
            )
    width, height = (tile_size or edge // downsample for edge in common)
    return width, height


def read_mask(path: Path, classes: int) -> npt.NDArray[np.uint8]:
    """uint8 (H, W): class of every pixel.

    Parameters
    ----------
    path
        An image of 1, 8, 16 or 32 bit integers, or with a palette, whose indices count.
    classes
        With two, whatever is not 0 is 1: masks may number their objects.

    Raises
    ------
    ConfigError
        It cannot be read, holds no integers, or a value is no class.
    """
    with _opened_mask(path) as mask:
        try:
            # The error that follows says it all.
            with warnings.catch_warnings(action="ignore"), refused_by_pillow():
                values = np.asarray(mask)
        except Refused as error:
            raise ConfigError(f"{path}: cannot read the mask: {error}") from error
    if classes == 2:
        values = values != 0
    wrong = np.unique(values[(values < 0) | (values >= classes)])
    if wrong.size:
        raise ConfigError(
            f"{path}: the mask holds the value {wrong[0]}, but the {classes} classes are 0 to "
            f"{classes - 1}; renumber it, or name more in data.classes"
        )
    return np.asarray(values, np.uint8)


def _sizes(images: Iterable[LabelledImage]) -> Iterator[tuple[Path, tuple[int, int]]]:
    stores: set[Path] = set()
    for image in images:
        if image.path not in stores:
            yield image.path, _size(image)
        if image.row is not None:  # all tiles of a store are of one size
            stores.add(image.path)


def _size(image: LabelledImage) -> tuple[int, int]:
    if image.row is not None:
        edge = TileStore.open(image.path).meta.tiling.tile_size_px
        return edge, edge
    with _opened(image.path) as opened:
        return opened.size


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings(action="ignore"), refused_by_pillow():
            walk(path)
            return Image.open(path)
    except Refused as error:
        raise ConfigError(f"{path}: cannot read the image: {error}") from error


def _opened_mask(path: Path) -> Image.Image:
    mask = _opened(path)
    kind = None if mask.mode in _INTEGER_MODES else f"of pixel mode {mask.mode}"
    if mask.format == "JPEG":
        kind = "JPEG, which blurs them"
    elif isinstance(mask, TiffImageFile) and mask.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0:
        # Pillow turns its values over, others do not: background and foreground would be swapped.
        kind = "a TIFF whose 0 is white (MinIsWhite), which readers understand differently"
    if kind is None:
        return mask
    mask.close()
    raise ConfigError(
        f"{path}: masks must hold integers, one per pixel, but this is {kind}; "
        "save class numbers as PNG"
    )


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"
