"""Pillow: plain images."""

from __future__ import annotations

import importlib.metadata
import struct
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from wsi_norm.errors import UnreadableSlideError
from wsi_norm.geometry import Level
from wsi_norm.slide.readers.base import RGB, Metadata, Refused, on_white, translated

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
MODES = frozenset({"L", "LA", "P", "RGB", "RGBA", "CMYK"})

MAX_IMAGE_PIXELS = 100_000_000
"""A plain image is held in memory whole: 100 megapixels are 300 MB."""


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
            image = Image.open(path)
        with image:
            width, height = image.size
            if width * height > MAX_IMAGE_PIXELS:
                raise Refused(
                    f"{width} x {height} px is too large for a plain image; "
                    "convert it to a tiled pyramidal TIFF"
                )
            if image.mode not in MODES:
                raise Refused(f"pixel mode {image.mode} is not 8-bit colour")
            with refused_by_pillow():
                self._pixels = on_white(image)
            icc_profile = bool(image.info.get("icc_profile"))
        self.metadata = Metadata((Level(0, width, height, 1.0),), icc_profile=icc_profile)

    @property
    def version(self) -> str:
        """Of Pillow."""
        return importlib.metadata.version("pillow")

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3)."""
        return self._pixels[top : top + height, left : left + width]

    def close(self) -> None:
        """Release the pixels."""
        self._pixels = np.empty((0, 0, 3), np.uint8)


def read_image(path: str | Path) -> RGB:
    """uint8 (H, W, 3) of a plain image file, transparency composed on white.

    Raises
    ------
    UnreadableSlideError
        Missing, or not an image that Pillow decodes.
    """
    try:
        reader = ImageReader(str(path))
    except Refused as error:
        raise UnreadableSlideError(f"{path}: cannot read the image: {error}") from error
    (level,) = reader.metadata.levels
    return reader.read(level, 0, 0, level.width, level.height)
