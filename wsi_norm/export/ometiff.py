"""A pyramidal OME-TIFF: one image of the whole slide, white where no tile was kept.

Level 0 is written row by row of tiles. On the way each lower level gets its strip, the 2 x 2 mean
of the one above; a full strip's tiles are encoded and wait in a temporary file. So the store is
read once, and memory holds two rows of tiles.

The lower levels are SubIFDs of level 0, as OME wants them. The list of directories leads to them,
too: OpenSlide looks for levels nowhere else.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from uuid import NAMESPACE_URL, uuid5
from xml.etree.ElementTree import ParseError

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from wsi_norm.errors import ExportError
from wsi_norm.export.base import Format, Job, checked_quality
from wsi_norm.export.images import jpeg
from wsi_norm.text import shown

UInt8 = npt.NDArray[np.uint8]

EDGE = 16
"""Tiles of a TIFF have edges of multiples of it."""
TILE_SIZE = 256
"""Of the TIFF's tiles, where those of the store are of no such size."""
CLASSIC_BYTES = 3 << 30
"""Of pixels: up to here offsets of 32 bits suffice, whatever compression makes of them."""

_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error, ParseError)
"""What tifffile raises on files that are none, or not ours."""


@dataclass(frozen=True)
class Options:
    """`compression` of tiles: lossless or jpeg; `quality` of JPEG, 1 to 100."""

    compression: str = "lossless"
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.compression not in ("lossless", "jpeg"):
            raise ValueError(f"compression is lossless or jpeg, not {self.compression}")
        if self.compression == "jpeg":
            object.__setattr__(self, "quality", checked_quality(self.quality))
        elif self.quality is not None:
            raise ValueError("quality is for compression jpeg alone")


@dataclass(frozen=True)
class _Compression:
    """How tiles are encoded, a white one of them, and what the TIFF says of it."""

    encode: Callable[[UInt8], bytes]
    white: bytes
    tags: dict[str, Any]

    @classmethod
    def of(cls, options: Options, size: int) -> _Compression:
        blank = np.full((size, size, 3), 255, np.uint8)
        if options.compression == "jpeg":
            quality = checked_quality(options.quality)
            # There are many of them; with Huffman tables of its own it takes a third of the bytes.
            white = imagecodecs.jpeg8_encode(blank, quality, subsampling="420", optimize=True)
            return cls(
                partial(jpeg, quality=quality),
                bytes(white),
                {"photometric": "ycbcr", "compression": "jpeg", "subsampling": (2, 2)},
            )
        return cls(
            _deflate,
            _deflate(blank),
            {"photometric": "rgb", "compression": "zlib", "predictor": True},
        )


def _deflate(tile: UInt8) -> bytes:
    """Of differences along rows, which is TIFF's predictor 2."""
    steps = imagecodecs.delta_encode(tile, axis=-2)
    return bytes(imagecodecs.deflate_encode(steps.tobytes(), level=1))


class _Level:
    """A level in the making, one strip of tiles at a time.

    Attributes
    ----------
    size
        Of its tiles, px.
    row, strip, drawn
        Which strip; its pixels (as high as is left of the level); onto which of its tiles something
        was drawn: the others are white.
    """

    def __init__(self, width: int, height: int, size: int) -> None:
        self.width, self.height, self.size = width, height, size
        self.columns, self.rows = -(-width // size), -(-height // size)
        self._pixels = np.full((min(size, height), width, 3), 255, np.uint8)
        self._begin(0)

    def _begin(self, row: int) -> None:
        self.row = row
        self.strip = self._pixels[: self.height - row * self.size]
        self.drawn = np.zeros(self.columns, np.bool_)

    def draw(self, x: int, y: int, image: UInt8) -> None:
        """Put an image at x, y of the strip; what lies beyond it is cut off."""
        top, bottom = max(y, 0), min(y + len(image), len(self.strip))
        right = min(x + image.shape[1], self.width)
        self.strip[top:bottom, x:right] = image[top - y : bottom - y, : right - x]
        self.drawn[x // self.size : -(-right // self.size)] = True

    def tiles(self) -> list[UInt8 | None]:
        """Those of the strip, cut off at the level's edges; None for white ones."""
        return [
            self.strip[:, column * self.size : (column + 1) * self.size] if drawn else None
            for column, drawn in enumerate(self.drawn)
        ]

    def end_strip(self, below: _Level | None = None) -> bool:
        """Draw the strip on the level below, wipe it and go on; whether one is full below."""
        half = self.size // 2
        for column, tile in enumerate(self.tiles()):
            if tile is not None:
                if below is not None:
                    below.draw(column * half, self.row % 2 * half, halved(tile))
                tile[:] = 255
        last = self.row == self.rows - 1
        full = below is not None and (last or self.row % 2 == 1)
        if not last:
            self._begin(self.row + 1)
        return full


def halved(image: UInt8) -> UInt8:
    """The mean of 2 x 2 px, rounded; of an odd last row or column, each counts twice."""
    odd_rows, odd_columns = image.shape[0] % 2, image.shape[1] % 2
    if odd_rows or odd_columns:
        image = np.pad(image, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
    rows = image[::2].astype(np.uint16) + image[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


def _levels(width: int, height: int, size: int) -> list[_Level]:
    """From full size to a single tile."""
    levels = [_Level(width, height, size)]
    while max(width, height) > size:
        width, height = -(-width // 2), -(-height // 2)
        levels.append(_Level(width, height, size))
    return levels


class _Image:
    """A store's tiles as one image, in strips of any height."""

    def __init__(self, job: Job) -> None:
        meta = job.store.meta
        self._job = job
        self._size = meta.tiling.tile_size_px
        grid = meta.tiling.grid(meta.slide)
        self.width = min(int(grid.width + 0.5), grid.columns * self._size)
        self.height = min(int(grid.height + 0.5), grid.rows * self._size)
        self._rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for index, (x, y) in enumerate(job.store.coords.tolist()):
            tile = grid.tile_at(x, y)
            self._rows[tile.row].append((tile.column, index))

    def draw_on(self, level: _Level) -> None:
        """Draw what lies in the strip."""
        top = level.row * level.size
        bottom = top + len(level.strip)
        for row in range(top // self._size, -(-bottom // self._size)):
            y = row * self._size - top
            for column, index in self._rows[row]:
                level.draw(column * self._size, y, self._job.store[index])
            if (row + 1) * self._size <= bottom or bottom == self.height:
                self._job.advance(len(self._rows[row]))


class _Spool:
    """Encoded tiles of a lower level, until their turn comes; white ones take no room."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sizes: list[int] = []

    def add(self, tiles: Iterable[bytes | None]) -> None:
        """Put tiles behind those that are there."""
        for tile in tiles:
            self._file.write(tile or b"")
            self._sizes.append(len(tile or b""))

    def __iter__(self) -> Iterator[bytes | None]:
        self._file.seek(0)
        return (self._file.read(size) if size else None for size in self._sizes)


def _write(job: Job, draft: Path) -> None:
    store = job.store
    meta = store.meta
    if meta.tiling.overlap_px:
        raise ExportError(
            f"{store.path}: its tiles overlap ({meta.tiling.overlap_px} px), so they are no image; "
            "run with --overlap 0 for this format"
        )
    image = _Image(job)
    size = meta.tiling.tile_size_px if meta.tiling.tile_size_px % EDGE == 0 else TILE_SIZE
    levels = _levels(image.width, image.height, size)
    compression = _Compression.of(job.options, size)
    per_cm = 1e4 / meta.tiling.mpp_um
    common: dict[str, Any] = {
        "dtype": np.uint8,
        "tile": (size, size),
        "resolutionunit": "CENTIMETER",
        "software": "wsi-norm",
        **compression.tags,
    }
    said = {
        "UUID": str(uuid5(NAMESPACE_URL, job.origin)),
        "Creator": "wsi-norm",
        "axes": "YXS",
        "Name": shown(meta.slide.name),
        "Description": job.origin,
        "PhysicalSizeX": meta.tiling.mpp_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": meta.tiling.mpp_um,
        "PhysicalSizeYUnit": "µm",
    }
    big = sum(3 * level.width * level.height for level in levels) > CLASSIC_BYTES
    with ExitStack() as stack:
        spools = [_Spool(stack.enter_context(TemporaryFile(dir=draft.parent))) for _ in levels[1:]]
        file = stack.enter_context(tifffile.TiffWriter(draft, bigtiff=big, ome=True))
        for number, level in enumerate(levels):
            tiles = spools[number - 1] if number else _tiles(image, levels, compression, spools)
            file.write(
                (tile or compression.white for tile in tiles),
                shape=(level.height, level.width, 3),
                resolution=(per_cm / 2**number, per_cm / 2**number),
                subfiletype=int(number > 0),
                subifds=None if number else len(levels) - 1,
                metadata=None if number else said,
                **common,
            )
    _list_all_levels(draft)


def _tiles(
    image: _Image, levels: list[_Level], compression: _Compression, spools: list[_Spool]
) -> Iterator[bytes | None]:
    """Level 0's tiles in the file's order; when they are out, the spools have all others."""
    for _ in range(levels[0].rows):
        image.draw_on(levels[0])
        tiles, *lower = _ended(levels, compression)
        for spool, more in zip(spools, lower, strict=False):
            spool.add(more)
        yield from tiles


def _ended(levels: list[_Level], compression: _Compression) -> Iterator[list[bytes | None]]:
    """The tiles of the first level's strip, and of those of lower levels that are full by it."""
    yield [
        None if tile is None else compression.encode(_padded(tile, levels[0].size))
        for tile in levels[0].tiles()
    ]
    if levels[0].end_strip(*levels[1:2]):
        yield from _ended(levels[1:], compression)


def _padded(tile: UInt8, size: int) -> UInt8:
    """A whole tile, of one that is cut off at the level's edge: its last px again and again."""
    height, width = tile.shape[:2]
    if (height, width) != (size, size):
        tile = np.pad(tile, ((0, size - height), (0, size - width), (0, 0)), mode="edge")
    return np.ascontiguousarray(tile)


def _list_all_levels(path: Path) -> None:
    """Let the list of directories go on after level 0 with the SubIFDs, which are a list."""
    with tifffile.TiffFile(path) as file:
        page, form = file.pages.first, file.tiff
        if "SubIFDs" not in page.tags:
            return
        first = page.tags["SubIFDs"].value[0]
        end = page.offset + form.tagnosize + len(page.tags) * form.tagsize
    with path.open("r+b") as stream:
        stream.seek(end)
        stream.write(struct.pack(form.offsetformat, first))


def _origin(path: Path) -> str | None:
    try:
        with tifffile.TiffFile(path) as file:
            said = tifffile.xml2dict(file.ome_metadata or "")
        return str(said["OME"]["Image"]["Description"])
    except _DAMAGE:
        return None


OME_TIFF = Format(".ome.tiff", _write, _origin, Options)
