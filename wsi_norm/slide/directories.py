"""The directories of a TIFF, walked once before any library sees the file.

Libraries follow a file's links as they come: a loop of them never ends, and sizes that no bytes
stand behind cost minutes and gigabytes. What passes here ends, whichever reader takes it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from wsi_norm.geometry import Level
from wsi_norm.location import check_file, is_url, location
from wsi_norm.slide.readers.base import LeftOut, Refused, translated

BIG = 43
"""Version of a BigTIFF, whose numbers and places have 8 bytes."""
CLASSIC_BYTES = 1 << 32
"""Beyond the places that a classic TIFF can name; NDPI has 8 bytes for the links between pages."""

UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of whole numbers, as struct and NumPy have them."""
BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
BYTES |= {16: 8, 17: 8, 18: 8}
"""Of a value, by the type of its tag (TIFF 6.0, BigTIFF)."""

WIDTH, LENGTH, COMPRESSION, ORIENTATION, SAMPLES, PLANAR = 256, 257, 259, 274, 277, 284
DEPTH, NDPI = 32997, 65420
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES, SUB_IFDS = 322, 323, 324, 325, 330
STRIP_OFFSETS, STRIP_BYTES, JPEG_TABLES = 273, 279, 347
LAYOUT = frozenset({STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES, SUB_IFDS, JPEG_TABLES})
"""Tags without which pixels are not found."""
TILED = frozenset({TILE_OFFSETS, TILE_BYTES})
TOP_LEFT, SEPARATE = 1, 2
"""Values of Orientation and PlanarConfiguration."""

MAX_DIRECTORIES, MAX_TAGS = 10_000, 512
MIN_TILE_PX, MAX_TILE_PX = 8, 100_000_000
"""Least edge and largest area of a tile: it is decoded whole, and 100 megapixels are 300 MB."""
MAX_PX_PER_BYTE = 10_000
"""Of a page in strips: empty JPEG and deflate reach some hundred, of one bit a pixel 8,000."""
MAX_TILES = 1 << 24
"""Of a page: a million px squared in tiles of 256 px."""


class Tag(NamedTuple):
    """The type and the number of a tag's values, and where they lie in the file."""

    kind: int
    number: int
    place: int


Tags = dict[int, Tag]


@dataclass(frozen=True)
class Tiling:
    """The tiles of a page: sizes in px (width, height), numbers, and the tags of their places."""

    size: tuple[int, int]
    tile: tuple[int, int]
    across: int
    down: int
    planes: int
    upright: bool
    compression: int | None
    offsets: Tag
    counts: Tag

    def may_be(self, level: Level) -> bool:
        """Whether the page has the size of a level, padding by less than a tile included."""
        spare = self.size[0] - level.width, self.size[1] - level.height
        return self.upright and all(
            0 <= more < edge for more, edge in zip(spare, self.tile, strict=True)
        )


@dataclass(frozen=True)
class StoredTiles:
    """The tiles of a level: (width, height) in px, numbers, and int64 places and lengths."""

    tile: tuple[int, int]
    across: int
    down: int
    planes: int
    compression: int | None
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


class Directories:
    """All directories of a TIFF, SubIFDs included.

    Parameters
    ----------
    file
        Open for reading; it stays open.

    Raises
    ------
    Refused
        They form a loop or are too many, or a page's size and tiles are absurd or contradict each
        other. Where the file was cut off the walk ends: what is missing, others say.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        head = self._at(0, 16)
        self._order = "<" if head.startswith(b"II") else ">"
        self._big = self._numbers("H", head[2:4]) == (BIG,)
        self._offset, self._count, self._inline = ("Q", "Q", 8) if self._big else ("I", "H", 4)
        first = self._first(head) if head[:2] in {b"II", b"MM"} else 0
        checked = (self._checked(*page) for page in enumerate(self._walk(first)))
        self._tilings = [tiling for tiling in checked if tiling is not None]

    def left_out(self, levels: Iterable[Level]) -> dict[int, LeftOut]:
        """The tiles that the file holds no bytes for, by level; only levels that lack some.

        Nothing is known of a level whose size no upright page has, or several have.
        """
        found = {}
        for level in levels:
            stored = self.stored_tiles(level)
            if stored is not None and not stored.counts.all():
                counts = stored.counts.reshape(stored.planes, stored.down, stored.across)
                found[level.index] = LeftOut(stored.tile, (counts == 0).any(axis=0))
        return found

    def stored_tiles(self, level: Level) -> StoredTiles | None:
        """Where the tiles of a level lie; None where no upright page has its size, or several."""
        pages = [page for page in self._tilings if page.may_be(level)]
        if len(pages) != 1:
            return None
        (page,) = pages
        offsets, counts = self._values(page.offsets), self._values(page.counts)
        if {len(offsets), len(counts)} != {page.planes * page.down * page.across}:
            return None
        return StoredTiles(
            page.tile, page.across, page.down, page.planes, page.compression, offsets, counts
        )

    def _first(self, head: bytes) -> int:
        """Where the first directory lies."""
        if self._big:
            return sum(self._numbers("Q", head[8:16]))
        wide = sum(self._numbers("Q", head[4:12])) if self._size > CLASSIC_BYTES else self._size
        return wide if wide < self._size else sum(self._numbers("I", head[4:8]))  # NDPI, or not

    def _walk(self, first: int) -> Iterator[Tags]:
        """The tags of every directory, each once; a page's SubIFDs come after it."""
        seen: set[int] = set()
        waiting = [first]
        following = first  # only pages have a next one: SubIFDs stand in lists
        link = self._offset
        while waiting:
            place = waiting.pop()
            if not place:
                continue
            if place in seen:
                raise Refused("its directories form a loop")
            if len(seen) == MAX_DIRECTORIES:
                raise Refused(f"it has more than {MAX_DIRECTORIES} directories")
            seen.add(place)
            tags, end = self._directory(place)
            if place == first and NDPI in tags:
                link = "Q"
            if place == following:
                following = sum(self._numbers(link, self._at(end, struct.calcsize(link))))
                waiting.append(following)
            if SUB_IFDS in tags:
                waiting.extend(self._values(tags[SUB_IFDS])[::-1].tolist())
            yield tags

    def _directory(self, place: int) -> tuple[Tags, int]:
        """The tags of a directory, and where it ends; no tags where the file ends before."""
        start = place + struct.calcsize(self._count)
        number = sum(self._numbers(self._count, self._at(place, start - place)))
        if number > MAX_TAGS:
            raise Refused(f"one of its directories has {number} tags")
        entry = struct.Struct(self._order + "HH" + self._offset)
        length = entry.size + self._inline
        data = self._at(start, number * length)
        tags: Tags = {}
        for at in range(0, len(data) - length + 1, length):
            code, kind, count = entry.unpack_from(data, at)
            size, where = count * BYTES.get(kind, 1), start + at + entry.size
            if size > self._inline:
                (where,) = self._numbers(self._offset, data[at + entry.size : at + length])
            if code in LAYOUT and size > self._size:
                raise Refused(f"its tag {code} claims {count} values, more than the file can hold")
            tags.setdefault(code, Tag(kind, count, where))
        return tags, start + number * length

    def _checked(self, page: int, tags: Tags) -> Tiling | None:
        """The tiles of a page; None where it has strips."""
        width, height = self._number(tags, WIDTH), self._number(tags, LENGTH)
        if 0 in (width, height):
            raise Refused(f"its page {page} states a size of {width} x {height} px")
        x, y = self._number(tags, TILE_WIDTH), self._number(tags, TILE_LENGTH)
        if not (width and height and TILED.issubset(tags)) or x is None or y is None:
            if (width or 0) * (height or 0) > MAX_PX_PER_BYTE * self._size:
                raise Refused(
                    f"its page {page} states {width} x {height} px, which {self._size} bytes "
                    "cannot hold"
                )
            return None
        stated = f"its page {page} states {width} x {height} px in tiles of {x} x {y} px"
        if x < min(MIN_TILE_PX, width) or y < min(MIN_TILE_PX, height) or x * y > MAX_TILE_PX:
            raise Refused(f"{stated}, which no slide has")
        across, down = -(-width // x), -(-height // y)
        separate = self._number(tags, PLANAR) == SEPARATE
        planes = (self._number(tags, SAMPLES) or 1) if separate else 1
        expected, listed = planes * across * down, tags[TILE_OFFSETS].number
        if expected > MAX_TILES:
            raise Refused(f"{stated}, which would be {expected} tiles")
        if (self._number(tags, DEPTH) or 1) == 1 and listed != expected:
            raise Refused(f"{stated}, which would be {expected}, but lists {listed}")
        upright = self._number(tags, ORIENTATION) in {None, TOP_LEFT}
        return Tiling(
            (width, height),
            (x, y),
            across,
            down,
            planes,
            upright,
            self._number(tags, COMPRESSION),
            tags[TILE_OFFSETS],
            tags[TILE_BYTES],
        )

    def _number(self, tags: Tags, code: int) -> int | None:
        """The first value of a tag of whole numbers."""
        tag = tags.get(code)
        if tag is None or tag.kind not in UNSIGNED or not tag.number:
            return None
        found = self._numbers(UNSIGNED[tag.kind], self._at(tag.place, BYTES[tag.kind]))
        return found[0] if found else None

    def _values(self, tag: Tag) -> npt.NDArray[np.int64]:
        """int64 (n,): the values of a tag of whole numbers, as far as the file holds them."""
        if tag.kind not in UNSIGNED:
            return np.zeros(0, np.int64)
        kind = np.dtype(self._order + UNSIGNED[tag.kind])
        data = self._at(tag.place, tag.number * kind.itemsize)
        return np.frombuffer(data, kind, len(data) // kind.itemsize).astype(np.int64)

    def _at(self, place: int, length: int) -> bytes:
        """Bytes of the file; fewer where it ends before."""
        if place >= self._size:
            return b""
        self._file.seek(place)
        return self._file.read(min(length, self._size - place))

    def _numbers(self, form: str, data: bytes) -> tuple[int, ...]:
        """A whole number; none where there are too few bytes for it."""
        form = self._order + form
        return struct.unpack(form, data) if len(data) == struct.calcsize(form) else ()


def walk(path: str | Path) -> None:
    """Look at a file's directories, if it is a TIFF of this machine; see `Directories`.

    Raises `Refused`, and OSError where the file cannot be read, be it a pipe or a device.
    """
    place = location(path)
    if not is_url(place):
        check_file(place)
        with place.open("rb") as file:
            Directories(file)


def left_out(path: str, levels: Iterable[Level]) -> dict[int, LeftOut]:
    """See `Directories.left_out`; nothing of what is no file of this machine."""
    place = location(path)
    if is_url(place):
        return {}
    with translated(Refused, OSError), place.open("rb") as file:
        return Directories(file).left_out(levels)
