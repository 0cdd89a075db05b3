"""OpenSlide: every vendor's format."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import openslide
import tifffile

from wsi_norm.errors import ReadError
from wsi_norm.geometry import Box, Level
from wsi_norm.machine import version_of
from wsi_norm.slide.directories import Directories
from wsi_norm.slide.levels import StoredLevel, true_levels
from wsi_norm.slide.readers.base import (
    KEPT_BYTES,
    PAGED,
    RGB,
    TIFFFILE_ERRORS,
    LeftOut,
    Refused,
    Stated,
    closed_on_failure,
    on_white,
    translated,
)
from wsi_norm.slide.readers.checksums import Checksums
from wsi_norm.slide.readers.pages import checked
from wsi_norm.slide.readers.resolution import NOTHING, metadata


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
                stated = Stated.by(self._slide, "openslide")
            described, paged = NOTHING, stated.get("vendor") in PAGED
            if paged:
                with _tiff(path) as tiff:
                    described = checked(tiff, stated)
            levels = true_levels(stated.levels(), self._look)
            self._levels = [level for level, _ in levels]
            icc_profile = self._slide._profile  # `color_profile` would not give its very bytes
            true = [level for _, level in levels]
            absent: dict[int, LeftOut] = {}
            self._checksums: Checksums | None = None
            if paged:
                with translated(Refused, OSError), Path(path).open("rb") as file:
                    directories = Directories(file)
                    absent = directories.left_out(true)
                    self._checksums = Checksums(path, directories, true)
            self.metadata = metadata(
                stated, true, described, icc_profile=icc_profile, left_out=absent
            )

    @property
    def version(self) -> str:
        """Of the package with the C library."""
        return version_of("openslide-bin")

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3), transparent pixels composed on white."""
        box = Box(left, top, left + width, top + height)
        if self._checksums is not None:
            self._checksums.check(level, box)
        return self._look(self._levels[level.index], box)

    def close(self) -> None:
        """Close the file."""
        with suppress(ctypes.ArgumentError):  # closed: garbage collection took the handle first
            self._slide.close()

    def _look(self, level: StoredLevel, box: Box) -> RGB:
        """OpenSlide divides a location by the downsample that sizes state, true or not."""
        location = (round(box.left * level.downsample), round(box.top * level.downsample))
        with translated(ReadError, openslide.OpenSlideError):
            image = self._slide.read_region(location, level.number, (box.width, box.height))
        return on_white(image)


def _tiff(path: str) -> tifffile.TiffFile:
    with translated(Refused, *TIFFFILE_ERRORS):
        return tifffile.TiffFile(path)
