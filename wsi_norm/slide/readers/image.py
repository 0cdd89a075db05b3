"""Pillow: plain images."""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import (
    IMAGEDESCRIPTION,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
    TiffImageFile,
)

from wsi_norm.choices import IccChoice
from wsi_norm.errors import UnreadableSlideError
from wsi_norm.geometry import Level
from wsi_norm.machine import version_of
from wsi_norm.slide.directories import walk
from wsi_norm.slide.icc import icc_of
from wsi_norm.slide.readers.base import (
    RGB,
    Metadata,
    Refused,
    on_white,
    positive_number,
    translated,
)
from wsi_norm.slide.readers.resolution import NOTHING, Described, Statement

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".jp2", ".j2k", ".jpf", ".jpx", ".jpc"}
)
MODES = frozenset({"L", "LA", "P", "RGB", "RGBA", "CMYK"})

MAX_IMAGE_PIXELS = 100_000_000
"""A plain image is held in memory whole: 100 megapixels are 300 MB."""

DARKEST_GLASS = 63
"""Of 255: brightfield that is nowhere brighter has not the bits that its pixels have room for."""


def refused_by_pillow() -> AbstractContextManager[None]:
    """Around calls of Pillow: what it and its plugins raise on damaged images, as `Refused`."""
    return translated(
        Refused,
        OSError,
        ValueError,
        SyntaxError,  # a broken header
        NotImplementedError,
        LookupError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    )


class ImageReader:
    """A plain PNG, JPEG or TIFF that fits into memory, as a slide of one level."""

    name: ClassVar[str] = "image"
    block_px: ClassVar[int] = 1

    def __init__(self, path: str) -> None:
        with refused_by_pillow():
            walk(path)
            image = Image.open(path)
        with image:
            pages = _seek_largest(image)
            width, height = image.size
            if width * height > MAX_IMAGE_PIXELS:
                raise Refused(
                    f"{width} x {height} px is too large for a plain image; "
                    "convert it to a tiled pyramidal TIFF"
                )
            if image.mode not in MODES:
                raise Refused(f"pixel mode {image.mode} is not 8-bit colour")
            deep = any(";16" in str(tile.args) for tile in image.tile)
            with refused_by_pillow():
                image.load()  # Pillow turns a TIFF by itself
                self._pixels = on_white(ImageOps.exif_transpose(image))
            icc_profile = image.info.get("icc_profile") or None
        if deep and self._pixels.max(initial=0) <= DARKEST_GLASS:
            raise Refused(
                "pixels of more than 8 bits that end below a quarter of 16 bits "
                "(12 bits in 16?); convert them to 8-bit colour"
            )
        height, width = self._pixels.shape[:2]
        described = Described.by(*pages) if pages else NOTHING
        self.metadata = Metadata(
            (Level(0, width, height, 1.0),),
            mpp=described.mpp or described.tagged_mpp,
            objective_power=described.objective_power,
            icc_profile=icc_profile,
        )

    @property
    def version(self) -> str:
        """Of Pillow."""
        return version_of("pillow")

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3)."""
        return self._pixels[top : top + height, left : left + width]

    def close(self) -> None:
        """Release the pixels."""
        self._pixels = np.empty((0, 0, 3), np.uint8)


def read_image(path: str | Path, icc: IccChoice = "ignore") -> RGB:
    """uint8 (H, W, 3) of a plain image file, transparency composed on white.

    Parameters
    ----------
    path
        The file.
    icc
        "apply": brought to sRGB by the ICC profile, if the image has one.

    Raises
    ------
    UnreadableSlideError
        Missing, not an image that Pillow decodes, or its profile cannot be applied.
    """
    try:
        reader = ImageReader(str(path))
    except Refused as error:
        raise UnreadableSlideError(f"{path}: cannot read the image: {error}") from error
    profile = icc_of(reader.metadata.icc_profile, icc)
    if profile.problem is not None:
        raise UnreadableSlideError(
            f"{path}: {profile.problem}; save the image without it, or set icc to ignore"
        )
    (level,) = reader.metadata.levels
    return profile.to_srgb(reader.read(level, 0, 0, level.width, level.height))


def _seek_largest(image: Image.Image) -> list[Statement]:
    """Turn to the largest page of a TIFF, and say what it states, then what the others do."""
    if not isinstance(image, TiffImageFile):
        return []
    with refused_by_pillow():
        pages = [_statement(image, number) for number in range(image.n_frames)]
        largest = max(pages, key=lambda page: page.size[0] * page.size[1])
        image.seek(pages.index(largest))
    return [largest, *pages]


def _statement(image: TiffImageFile, number: int) -> Statement:
    image.seek(number)
    tags = image.tag_v2
    x, y = (positive_number(tags.get(tag)) for tag in (X_RESOLUTION, Y_RESOLUTION))
    text = tags.get(IMAGEDESCRIPTION, "")
    return Statement(
        image.size, text if isinstance(text, str) else "", x, y, tags.get(RESOLUTION_UNIT)
    )
