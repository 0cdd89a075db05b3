"""Checksums of deflate tiles: libtiff stops at a tile's last pixel, before the checksum."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from wsi_norm.errors import ReadError
from wsi_norm.geometry import Box, Level
from wsi_norm.slide.directories import Directories, StoredTiles
from wsi_norm.slide.readers.base import translated

DEFLATE = frozenset({8, 32946})
"""Values of Compression: Adobe's and the one of before."""

BYTES_PER_PX = 8
"""At most: four samples of 16 bits."""


class Checksums:
    """The deflate tiles of a TIFF, each checked once, before somebody reads it.

    Parameters
    ----------
    path
        The file.
    directories
        Its directories.
    levels
        Those that are to be read.
    """

    def __init__(self, path: str, directories: Directories, levels: Iterable[Level]) -> None:
        self._path = Path(path)
        self._levels: dict[int, StoredTiles] = {}
        for level in levels:
            tiles = directories.stored_tiles(level)
            if tiles is not None and tiles.compression in DEFLATE:
                self._levels[level.index] = tiles
        self._good: set[tuple[int, int]] = set()

    def check(self, level: Level, box: Box) -> None:
        """ReadError if a tile under a box of level px contradicts its checksum."""
        tiles = self._levels.get(level.index)
        if tiles is None:
            return
        numbers = [n for n in _under(tiles, box) if (level.index, n) not in self._good]
        if not numbers:
            return
        longest = tiles.tile[0] * tiles.tile[1] * BYTES_PER_PX
        with translated(ReadError, OSError, ValueError, zlib.error), self._path.open("rb") as file:
            for number in numbers:
                file.seek(tiles.offsets[number])
                data = file.read(tiles.counts[number])
                stream = zlib.decompressobj()
                stream.decompress(data, longest)
                if not stream.eof:
                    raise ReadError(f"tile {number}: its compressed bytes have no end")
                self._good.add((level.index, number))


def _under(tiles: StoredTiles, box: Box) -> Iterator[int]:
    """The numbers of the tiles that a box touches and the file has, in all planes."""
    width, height = tiles.tile
    per_plane = tiles.across * tiles.down
    for plane in range(tiles.planes):
        for row in range(box.top // height, (box.bottom - 1) // height + 1):
            for column in range(box.left // width, (box.right - 1) // width + 1):
                number = plane * per_plane + row * tiles.across + column
                if tiles.counts[number]:
                    yield number
