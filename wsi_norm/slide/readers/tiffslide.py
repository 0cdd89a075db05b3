"""TiffSlide: the TIFF family, also over URLs."""

from __future__ import annotations

import math
from typing import ClassVar

import tiffslide

from wsi_norm.errors import ReadError
from wsi_norm.geometry import Box, Level
from wsi_norm.machine import version_of
from wsi_norm.slide.directories import left_out
from wsi_norm.slide.levels import StoredLevel, true_levels
from wsi_norm.slide.readers.base import (
    PAGED,
    RGB,
    TIFFFILE_ERRORS,
    Refused,
    Stated,
    closed_on_failure,
    on_white,
    translated,
)
from wsi_norm.slide.readers.pages import checked, icc_profile, read_pages
from wsi_norm.slide.readers.resolution import metadata

ERRORS = (
    *TIFFFILE_ERRORS,
    RuntimeError,  # imagecodecs: a tile that does not decode; TiffSlide: odd axes
    MemoryError,  # imagecodecs: a tile of an absurd size
    SyntaxError,  # XML that is cut
    AttributeError,
    AssertionError,
    StopIteration,
)
"""What TiffSlide raises on damaged files: it checks little, and what is below it comes through."""

MODES = frozenset({"L", "LA", "RGB", "RGBA"})


class TiffSlideReader:
    """TiffSlide: Aperio, Leica, Hamamatsu, Philips and plain TIFFs."""

    name: ClassVar[str] = "tiffslide"
    block_px: ClassVar[int] = 1024

    def __init__(self, path: str) -> None:
        with translated(Refused, *ERRORS):
            self._slide = tiffslide.TiffSlide(path)
        with closed_on_failure(self._slide):
            read_pages(self._slide.ts_tifffile)  # TiffSlide would follow a loop of them for ever
            with translated(Refused, *ERRORS):
                stated = Stated.by(self._slide, "tiffslide")
                tiff = self._slide.ts_tifffile
                profile = icc_profile(tiff.pages.first)
            described = checked(tiff, stated)
            levels = true_levels(stated.levels(), self._look)
            self._levels = [level for level, _ in levels]
            true = [level for _, level in levels]
            absent = left_out(path, true) if stated.plain or stated.get("vendor") in PAGED else {}
            self.metadata = metadata(stated, true, described, icc_profile=profile, left_out=absent)

    @property
    def version(self) -> str:
        """Of the package."""
        return version_of("tiffslide")

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3)."""
        return self._look(self._levels[level.index], Box(left, top, left + width, top + height))

    def close(self) -> None:
        """Close the file."""
        self._slide.close()

    def _look(self, level: StoredLevel, box: Box) -> RGB:
        location = (_ceil(box.left, level.downsample), _ceil(box.top, level.downsample))
        with translated(ReadError, *ERRORS):
            image = self._slide.read_region(location, level.number, (box.width, box.height))
        if image.mode not in MODES:
            raise ReadError(f"pixel mode {image.mode} is not 8-bit colour")
        return on_white(image)


def _ceil(index: int, downsample: float) -> int:
    """The level-0 px that TiffSlide, which truncates, takes for this px of a level."""
    first = math.ceil(index * downsample)
    return first if int(first / downsample) >= index else first + 1
