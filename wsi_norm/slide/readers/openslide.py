"""OpenSlide: every vendor's format."""

from __future__ import annotations

import importlib.metadata
from typing import ClassVar

import openslide
import tifffile

from wsi_norm.errors import ReadError
from wsi_norm.geometry import Level
from wsi_norm.slide.readers.base import (
    KEPT_BYTES,
    RGB,
    TIFFFILE_ERRORS,
    Refused,
    Stated,
    check_plain_tiff,
    closed_on_failure,
    on_white,
    translated,
)


class OpenSlideReader:
    """OpenSlide 4: every vendor's format, DICOM included."""

    name: ClassVar[str] = "openslide"
    block_px: ClassVar[int] = 1

    def __init__(self, path: str) -> None:
        with translated(Refused, openslide.OpenSlideError):
            self._slide = openslide.OpenSlide(path)
        with closed_on_failure(self._slide):
            with translated(Refused, openslide.OpenSlideError):
                self._slide.set_cache(openslide.OpenSlideCache(KEPT_BYTES))
                stated = Stated.by(self._slide)
            if stated.properties.get("openslide.vendor") == "generic-tiff":
                with translated(Refused, *TIFFFILE_ERRORS), tifffile.TiffFile(path) as tiff:
                    page = tiff.pages.first
                check_plain_tiff(page)
            icc_profile = "openslide.icc-size" in stated.properties
            self.metadata = stated.metadata("openslide", icc_profile=icc_profile)

    @property
    def version(self) -> str:
        """Of the package with the C library."""
        return importlib.metadata.version("openslide-bin")

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3), transparent pixels composed on white."""
        location = (round(left * level.downsample), round(top * level.downsample))
        with translated(ReadError, openslide.OpenSlideError):
            image = self._slide.read_region(location, level.index, (width, height))
        return on_white(image)

    def close(self) -> None:
        """Close the file."""
        self._slide.close()
