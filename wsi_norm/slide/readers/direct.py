"""JPEG tiles of a tiled TIFF decoded without OpenSlide, where its pixels are the same.

OpenSlide opens the file too. It states the metadata, and it reads whatever is not a whole and
faultless JPEG tile: an error or a warning of libjpeg is OpenSlide's to judge.

At a half, a quarter and an eighth libjpeg inverts the low frequencies of each block alone: so good
as the mean of the pixels, in less time than all of them take.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from simplejpeg import decode_jpeg

from wsi_norm.errors import ReadError
from wsi_norm.geometry import Box, Level
from wsi_norm.machine import version_of
from wsi_norm.slide.readers.base import (
    KEPT_BYTES,
    PAGED,
    RGB,
    TIFFFILE_ERRORS,
    Declined,
    Reducible,
    closed_on_failure,
    pasted,
    translated,
)
from wsi_norm.slide.readers.openslide import OpenSlideReader
from wsi_norm.slide.readers.pages import read_pages

START, END, JFIF, ADOBE = b"\xff\xd8", b"\xff\xd9", b"\xff\xe0", b"\xff\xee"
RGB_JPEG, YCBCR_JPEG = (
    ADOBE + b"\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + transform for transform in (b"\x00", b"\x01")
)
"""The segments by which a JPEG states its colours, as the TIFF has them."""
COLOURS: dict[int, bytes] = {
    tifffile.PHOTOMETRIC.RGB: RGB_JPEG,
    tifffile.PHOTOMETRIC.YCBCR: YCBCR_JPEG,
}

FACTORS = (2, 4, 8)
"""A block of 8 x 8 px is decoded to 4 x 4, 2 x 2 or 1."""
MCU_PX = 16
"""Edge of what a JPEG codes together: 16 px, where colour is held at a half, else 8."""
MEAN_LEVELS = 1.0
"""What the means of MCUs may differ by, of 255, on average over a tile: rounding and clipping. It
is 0.05 to 0.2 on slides; a block out of place is beyond it wherever there is anything to see."""


class _FaultyTileError(ReadError):
    """The bytes of a tile are no whole JPEG of its size and colours, as often as one reads them."""


@dataclass(frozen=True, eq=False)
class _Page:
    """The JPEG tiles of a level; `head`, tables and colours, goes before each tile's own data.

    `width` and `height` are those of a tile as it is decoded, at 1/`factor`.
    """

    width: int
    height: int
    across: int
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    head: bytes
    colour: bytes
    factor: int = 1

    @property
    def looked_at(self) -> set[int]:
        """The tiles by which the others are judged: the fullest, and the last."""
        return {int(self.counts.argmax()), len(self.counts) - 1}

    def at(self, factor: int) -> _Page:
        """The same tiles, reduced."""
        width, height = self.width // factor, self.height // factor
        return replace(self, width=width, height=height, factor=factor)


class DirectReader(OpenSlideReader):
    """simplejpeg (libjpeg-turbo) on the tiles of an Aperio slide or a plain pyramidal TIFF."""

    name: ClassVar[str] = "direct"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        with closed_on_failure(self._slide):
            if self.metadata.vendor not in PAGED:
                raise Declined(f"{self.metadata.vendor} is not {' or '.join(sorted(PAGED))}")
            stored = [(level.width, level.height) for level in self._levels]
            if stored != [(level.width, level.height) for level in self.metadata.levels]:
                raise Declined("levels are padded")
            self._pages = _pages(path, self.metadata.levels)
            with translated(Declined, OSError):
                self._file = os.open(path, os.O_RDONLY)
        kept = KEPT_BYTES // max(3 * page.width * page.height for page in self._pages.values())
        self._tile = lru_cache(max(1, kept))(partial(_decoded, self._file))
        self._reduced = {
            (index, factor): page.at(factor)
            for index, page in self._pages.items()
            if page.width % MCU_PX == page.height % MCU_PX == 0
            for factor in FACTORS
        }
        self.reducible: Reducible = {}

    @classmethod
    def proven(cls, path: str) -> Self:
        """Open a slide of which each level's fullest and last tile are OpenSlide's to the bit.

        Levels and factors are reducible at which the same tiles have the means that they have in
        full, MCU by MCU.
        """
        reader = cls(path)
        with closed_on_failure(reader):
            for index, page in reader._pages.items():
                level = reader.metadata.levels[index]
                for tile in page.looked_at:
                    if not reader._is_openslides(page, _box(page, tile, level), level):
                        raise Declined(f"pixels of level {index} are not OpenSlide's")
            reader.reducible = {index: reader._factors(index) for index in reader._pages}
        return reader

    @property
    def version(self) -> str:
        """Of the decoder."""
        return f"simplejpeg {version_of('simplejpeg')}"

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3); by OpenSlide where a tile is not whole."""
        page = self._pages.get(level.index)
        if page is not None:
            try:
                return pasted(page, Box(left, top, left + width, top + height), self._tile)
            except ReadError:
                pass  # OpenSlide is to say what that means
        return super().read(level, left, top, width, height)

    def reduced(
        self, level: Level, left: int, top: int, width: int, height: int, factor: int
    ) -> RGB | None:
        """uint8 (height / factor, width / factor, 3); None where a tile is not whole.

        None also in the MCUs at a level's right and lower edge, which hold what is beyond it too.
        """
        box = Box(left, top, left + width, top + height)
        if box.right > _whole(level.width) or box.bottom > _whole(level.height):
            return None
        try:
            return pasted(
                self._reduced[level.index, factor], Box(*(v // factor for v in box)), self._tile
            )
        except _FaultyTileError:
            return None

    def close(self) -> None:
        """Close the file."""
        self._tile.cache_clear()
        os.close(self._file)
        super().close()

    def _is_openslides(self, page: _Page, box: Box, level: Level) -> bool:
        try:
            pixels = pasted(page, box, self._tile)
            expected = super().read(level, box.left, box.top, box.width, box.height)
        except ReadError:
            return False
        return np.array_equal(pixels, expected)

    def _factors(self, index: int) -> frozenset[int]:
        """At which a level keeps the means of the tiles that were read in full."""
        full = self._pages[index]
        try:
            means = {tile: _means(full, self._tile(full, tile)) for tile in full.looked_at}
        except ReadError:
            return frozenset()
        return frozenset(f for f in FACTORS if self._keeps(means, self._reduced.get((index, f))))

    def _keeps(self, means: Mapping[int, npt.NDArray[np.int16]], small: _Page | None) -> bool:
        try:
            return small is not None and all(
                np.abs(_means(small, self._tile(small, tile)) - in_full).mean() <= MEAN_LEVELS
                for tile, in_full in means.items()
            )
        except ReadError:
            return False


def _decoded(file: int, page: _Page, index: int) -> RGB:
    """A tile as libjpeg decodes it without a warning, or `_FaultyTileError`.

    ReadError where its bytes cannot be read.
    """
    count, offset = int(page.counts[index]), int(page.offsets[index])
    with translated(ReadError, OSError):
        data = os.pread(file, count, offset)
    stated = data[2:4]
    if (
        data[:2] != START
        or (stated == JFIF and page.colour != YCBCR_JPEG)
        or (stated == ADOBE and data[2:18] != page.colour)
    ):
        raise _FaultyTileError("no JPEG, or of other colours than the TIFF states")
    scale = {"min_width": page.width, "min_height": page.height, "min_factor": page.factor}
    with translated(ReadError, MemoryError), translated(_FaultyTileError, ValueError):
        pixels: RGB = decode_jpeg(page.head + data[2:], **(scale if page.factor > 1 else {}))
    if pixels.shape != (page.height, page.width, 3):
        raise _FaultyTileError(f"the tile is {pixels.shape}")
    return pixels


def _whole(edge: int) -> int:
    """Px of a level's edge in MCUs that hold nothing beyond it."""
    return edge - edge % MCU_PX


def _means(page: _Page, tile: RGB) -> npt.NDArray[np.int16]:
    """Of each MCU and colour, rounded."""
    return np.asarray(Image.fromarray(tile).reduce(MCU_PX // page.factor)).astype(np.int16)


def _box(page: _Page, tile: int, level: Level) -> Box:
    """A tile's place in its level, without what lies beyond the level's edge."""
    top, left = (tile // page.across) * page.height, (tile % page.across) * page.width
    return Box(left, top, min(left + page.width, level.width), min(top + page.height, level.height))


def _pages(path: str, levels: tuple[Level, ...]) -> dict[int, _Page]:
    """The levels that can be read directly; `Declined` where one is of another kind.

    At a downsample that is no whole number OpenSlide reads between the pixels of a level.
    """
    with translated(Declined, *TIFFFILE_ERRORS):
        tiff = tifffile.TiffFile(path)
    with tiff:
        pages = [page.ifd for page in read_pages(tiff) if page.parent is None]
        found = [_page(pages, level) for level in levels]
    return {
        level.index: page
        for level, page in zip(levels, found, strict=True)
        if level.downsample.is_integer()
    }


def _page(pages: list[tifffile.TiffPage], level: Level) -> _Page:
    size = level.height, level.width, 3
    tiled = [page for page in pages if page.shape == size and page.is_tiled]
    if len(tiled) != 1:
        raise Declined(f"level {level.index} is not one tiled page of three colours")
    (page,) = tiled
    if page.compression != tifffile.COMPRESSION.JPEG:
        name = getattr(page.compression, "name", page.compression)
        raise Declined(f"level {level.index} is compressed by {name}, not JPEG")
    colour = COLOURS.get(page.photometric)
    if colour is None or page.dtype != np.uint8:
        raise Declined(f"level {level.index} is not 8-bit RGB or YCbCr")
    width, height, tables = page.tilewidth, page.tilelength, page.jpegtables or START + END
    if not (
        isinstance(tables, bytes) and all(isinstance(v, int) and v > 0 for v in (width, height))
    ):
        raise Declined(f"tags of level {level.index} are damaged")
    with translated(Declined, ArithmeticError, TypeError, ValueError):  # numbers of another kind
        offsets, counts = (np.array(v, np.int64) for v in (page.dataoffsets, page.databytecounts))
    across, down = -(-level.width // width), -(-level.height // height)
    if not len(offsets) == len(counts) == across * down or not counts.all():
        raise Declined(f"tiles of level {level.index} are missing")
    return _Page(width, height, across, offsets, counts, tables[:-2] + colour, colour)
