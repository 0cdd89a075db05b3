"""tifffile: tiled TIFFs of no vendor, whatever the order of their pages.

OpenSlide and TiffSlide take the first page for the slide, see levels only in pages that are marked
as such, and scramble a picture that lies turned in the file.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, PLANARCONFIG

from wsi_norm.errors import ReadError
from wsi_norm.geometry import Box, Level
from wsi_norm.location import location
from wsi_norm.machine import version_of
from wsi_norm.slide.directories import left_out
from wsi_norm.slide.levels import StoredLevel, true_levels
from wsi_norm.slide.readers.base import (
    KEPT_BYTES,
    RGB,
    TIFFFILE_ERRORS,
    Declined,
    Metadata,
    Refused,
    closed_on_failure,
    on_white,
    pasted,
    translated,
)
from wsi_norm.slide.readers.pages import (
    SlidePages,
    icc_profile,
    orientation,
    statement,
    unspecified_samples,
)
from wsi_norm.slide.readers.resolution import Described

WHITE = 255

VENDORS = frozenset({"svs", "scn", "ndpi", "bif", "philips", "qpi", "avs", "indica", "lsm", "stk"})
"""Formats, as tifffile calls them, whose pages are arranged in a way of their own."""

ERRORS = (
    *TIFFFILE_ERRORS,
    RuntimeError,  # imagecodecs: a tile that does not decode
    MemoryError,
    AttributeError,  # a tag of another kind than tifffile expects
)
"""What tifffile and imagecodecs raise on damaged tiles."""

TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""Orientation to how the stored rows become the picture: whether rows and columns change places,
then left and right, then top and bottom (TIFF 6.0, page 36)."""


class TifffileReader:
    """tifffile and imagecodecs on the tiles of a plain TIFF; its largest page is the slide."""

    name: ClassVar[str] = "tifffile"
    block_px: ClassVar[int] = 1

    def __init__(self, path: str) -> None:
        with translated(Refused, OSError):
            self._file: Any = location(path).open("rb")
        with closed_on_failure(self._file):
            with translated(Refused, *ERRORS):
                tiff = tifffile.TiffFile(self._file)
                vendors = VENDORS & tiff.flags
            if vendors:
                raise Declined(f"tifffile leaves {min(vendors)} to other readers")
            self._open(SlidePages.of(tiff), path)

    def _open(self, pages: SlidePages, path: str) -> None:
        found = [_Tiles(self._file, page) for page in (pages.full, *(p for p, _ in pages.smaller))]
        self._turn = TURNS[orientation(pages.full)]
        kept = KEPT_BYTES // max(tiles.bytes for tiles in found)
        self._tile = lru_cache(max(1, kept))(_Tiles.decoded)
        self._found = found
        levels = true_levels([self._turned(level) for level in pages.stored()], self._look)
        self._levels = [found[stored.number] for stored, _ in levels]
        described = Described.by(*(statement(page) for page in (pages.full, *pages.all)))
        true = tuple(level for _, level in levels)
        self.metadata = Metadata(
            levels=true,
            mpp=described.mpp or described.tagged_mpp,
            objective_power=described.objective_power,
            vendor="generic-tiff",
            icc_profile=icc_profile(pages.full),
            left_out=left_out(path, true),
        )

    @property
    def version(self) -> str:
        """Of the package."""
        return version_of("tifffile")

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3); tiles that the file leaves out are white."""
        return self._read(self._levels[level.index], Box(left, top, left + width, top + height))

    def close(self) -> None:
        """Close the file."""
        self._tile.cache_clear()
        self._file.close()

    def _look(self, stored: StoredLevel, box: Box) -> RGB:
        return self._read(self._found[stored.number], box)

    def _turned(self, level: StoredLevel) -> StoredLevel:
        """A level with the sides of the picture."""
        if not self._turn[0] or level.tile is None:
            return level
        tile = level.tile[1], level.tile[0]
        return replace(level, width=level.height, height=level.width, tile=tile)

    def _read(self, tiles: _Tiles, box: Box) -> RGB:
        """A box of the picture: found among the rows that are stored, and turned."""
        transposed, mirrored, upside_down = self._turn
        width, height = tiles.size[::-1] if transposed else tiles.size
        if mirrored:
            box = Box(width - box.right, box.top, width - box.left, box.bottom)
        if upside_down:
            box = Box(box.left, height - box.bottom, box.right, height - box.top)
        if transposed:
            box = Box(box.top, box.left, box.bottom, box.right)
        pixels = pasted(tiles, box, self._tile)
        pixels = pixels.swapaxes(0, 1) if transposed else pixels
        pixels = pixels[:, ::-1] if mirrored else pixels
        return np.ascontiguousarray(pixels[::-1] if upside_down else pixels)


class _Tiles:
    """The tiles of a page."""

    def __init__(self, file: Any, page: tifffile.TiffPage) -> None:
        if page.photometric == PHOTOMETRIC.YCBCR and page.compression != COMPRESSION.JPEG:
            raise Refused("YCbCr pixels that are not compressed as JPEG")
        self._file, self._page = file, page
        self.size = page.imagewidth, page.imagelength
        self.width, self.height = page.tilewidth, page.tilelength
        self.across, down = -(-self.size[0] // self.width), -(-self.size[1] // self.height)
        self.bytes = 3 * self.width * self.height
        separate = page.planarconfig == PLANARCONFIG.SEPARATE
        self._planes = range(page.samplesperpixel if separate else 1)
        self._per_plane = self.across * down
        if {len(page.dataoffsets), len(page.databytecounts)} != {
            len(self._planes) * self._per_plane
        }:
            raise Refused("the numbers of tiles and of their offsets differ")

    def decoded(self, index: int) -> RGB:
        """uint8 (height, width, 3) of a tile; transparency on white, and what is left out."""
        planes = [self._segment(plane * self._per_plane + index) for plane in self._planes]
        present = [plane for plane in planes if plane is not None]
        if len(present) < len(planes):
            return np.full((self.height, self.width, 3), WHITE, np.uint8)
        samples: RGB = np.concatenate(present, axis=-1)
        colours, alpha = samples[..., :3], samples[..., 3:4]
        if samples.shape[-1] == 3 or unspecified_samples(self._page):
            three: RGB = np.ascontiguousarray(colours)
            return three
        if self._page.extrasamples[0] == EXTRASAMPLE.ASSOCALPHA:
            return np.minimum(colours, alpha) + (WHITE - alpha)
        return on_white(Image.fromarray(samples[..., :4]))

    def _segment(self, index: int) -> npt.NDArray[np.uint8] | None:
        """uint8 (height, width, samples) as it is stored; None where nothing is."""
        page = self._page
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return None
        with translated(ReadError, *ERRORS):
            self._file.seek(offset)
            data = self._file.read(count)  # at once: tifffile reads tags from the same file
            segment = page.decode(data, index, jpegtables=page.jpegtables)[0]
            samples = np.asarray(segment, np.uint8).reshape(self.height, self.width, -1)
        if samples.shape[-1] * len(self._planes) != page.samplesperpixel:
            raise ReadError(f"the tile has {samples.shape[-1]} samples")
        return samples
