"""The home `pyramid`: tiles as chunks of an OME-Zarr image, and the levels below them.

A chunk is a tile: an object of its own, at its cell of the tile grid, Zstandard with the checksum
of its frame. So every reader of OME-Zarr takes it; not all know shards, or checksums beside. What
proves it stands in the array `seals`: an object for each shard, written after its chunks, says of
each where it lies, how long it is and its CRC-32C, and ends in the shard's digest.

Below level 0 a chunk is the rounded mean of 2 x 2 pixels of the level above, which is white (255)
where it has no chunk. These chunks come last, from one to four others each, so that memory does not
grow with the slide. They have seals, too, after those of the shards and level by level, whose
digests are bound to those of all shards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd

from wsi_norm import location
from wsi_norm.errors import StoreError
from wsi_norm.geometry import Tile, TileGrid, compact_order
from wsi_norm.store import digests, encoding
from wsi_norm.store.encoding import UInt8
from wsi_norm.store.objects import OTHER_PLACE, REMEDY, ROOT, Objects

FILL = 255

LEVEL = 1
"""Of Zstandard."""

ENTRY = np.dtype([(name, "<u4") for name in ("level", "row", "column", "length", "crc32c")])
"""What a seal says of a chunk: level and cell, bytes and their checksum."""

OTHER_CHUNKS = "missing, cut or other than written"

_ZSTD = Zstd(level=LEVEL, checksum=True)

Check = Callable[[], None]


def seal_bytes(slots: int) -> int:
    """Length of a seal of so many chunks."""
    return slots * ENTRY.itemsize + digests.BYTES


def lower_groups(cells: Iterable[Tile], levels: int, slots: int) -> list[list[tuple[int, Tile]]]:
    """(level, cell) of the chunks below level 0, which has these `cells`, by their seals.

    A seal has at most `slots` of one level. Levels follow each other, as each is made of the last.
    """
    groups = []
    for level in range(1, levels):
        cells = compact_order([*{Tile(cell.row // 2, cell.column // 2) for cell in cells}])
        chunks = [(level, cell) for cell in cells]
        groups += [chunks[start : start + slots] for start in range(0, len(chunks), slots)]
    return groups


def half(pixels: UInt8) -> UInt8:
    """Rounded means of 2 x 2 pixels: uint8 (3, 2 h, 2 w) to (3, h, w)."""
    rows = pixels[:, ::2].astype(np.uint16) + pixels[:, 1::2]
    return ((rows[..., ::2] + rows[..., 1::2] + 2) >> 2).astype(np.uint8)


@dataclass(frozen=True)
class Pyramid:
    """The home; see `homes.Home` for what it answers.

    With `by_seals`, a shard is there when its seal is: chunks are not asked one by one.
    """

    objects: Objects
    by_seals: bool = False
    _found: list[bytes] = field(default_factory=list)

    name = "pyramid"

    @property
    def folder(self) -> Path:
        """Of the chunks of level 0."""
        return self.objects.path / "pyramid" / "0" / "c"

    # --- level 0

    def digest(self, shard: int, flags: bytes) -> bytes | None:
        """Of a seal that fits, whose chunks are as long as it says."""
        return self._sealed(shard, flags)

    def problem(self, shard: int, flags: bytes) -> str | None:
        """Missing, of another place, or tiles whose chunk is not what was written."""
        seal = self._seal(shard)
        if seal is None:
            return "missing or cut"
        said, digest = seal
        if digest != self._digest(shard, flags, said):
            return OTHER_PLACE
        if other := self._others(said):
            first = self.objects.rows(shard).start
            return f"{OTHER_CHUNKS}: tiles {[first + slot for slot in other]}"
        return None

    def write(self, shard: int, tiles: UInt8, flags: bytes, check: Check) -> None:
        """Chunks, then their seal."""
        cells = self.cells[self.objects.rows(shard)]
        planes = (np.ascontiguousarray(tile.transpose(2, 0, 1)) for tile in tiles)
        chunks = ((0, cell, plane) for cell, plane in zip(cells, planes, strict=True))
        self._write(shard, flags, chunks, check)

    def drop(self, shard: int) -> None:
        """Remove the seal of a shard, or of a group of chunks below it."""
        location.remove(self.objects.at("seals", shard))

    def read(self, row: int) -> UInt8:
        """uint8 (T, T, 3) of a tile; OSError, RuntimeError or ValueError where it is damaged."""
        pixels = self._decoded(location.read_bytes(self._place(0, self.cells[row])))
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    # --- the levels below

    def levels(self, shards: Iterable[bytes]) -> list[bytes] | None:
        """Digests of the chunks below level 0, whose shards have these; None if some are missing.

        Missing is what is not there, as long as its seal says, made of this level 0.
        """
        basis = digests.of_parts(shards)
        found = [self._sealed(group, basis) for group in self._groups]
        there = [digest for digest in found if digest is not None]
        return there if len(there) == len(found) else None

    def build(self, shards: Iterable[bytes], check: Check) -> None:
        """Write the chunks below level 0 that are missing, each from those above it.

        Raises
        ------
        OSError
            They cannot be written.
        StoreError
            What they are made of is damaged.
        """
        basis = digests.of_parts(shards)
        above: dict[tuple[int, Tile], int] = {}
        for shard in range(self.objects.shards):
            above |= self._checksums(shard)
        for group in self._groups:
            if self._sealed(group, basis) is None:
                chunks = (
                    (level, cell, self._reduced(level, cell, above))
                    for level, cell in self._lower[group - self.objects.shards]
                )
                self._write(group, basis, chunks, check)
            above |= self._checksums(group)

    def damaged_levels(self, shards: Iterable[bytes] | None) -> dict[int, str]:
        """What is wrong below level 0, by groups, with all bytes read.

        `shards` are the digests of level 0; None if it is not whole. What is made of it is then
        compared with its seals alone.
        """
        basis = None if shards is None else digests.of_parts(shards)
        found = {}
        for group in self._groups:
            seal = self._seal(group)
            if seal is None:
                found[group] = "chunks below level 0: missing"
                continue
            said, digest = seal
            if basis is not None and digest != self._digest(group, basis, said):
                found[group] = "chunks below level 0: of another level 0, or another store"
            elif other := self._others(said):
                names = [_name(*_chunks(said)[slot][:3]) for slot in other]
                found[group] = f"{OTHER_CHUNKS}: {', '.join(names)}"
        return found

    def has_chunks(self) -> bool:
        """Whether all chunks are there of which seals were found, by their names alone."""
        entries = np.frombuffer(b"".join(self._found), ENTRY)
        entries = entries[entries["length"] > 0]
        rows = entries["level"].astype(np.uint64) << 32 | entries["row"]
        order = np.argsort(rows)
        folders, starts = np.unique(rows[order], return_index=True)
        columns = np.split(entries["column"][order], starts)[1:]
        pyramid = self.objects.path / "pyramid"
        return all(
            location.names(pyramid / f"{row >> 32}/c/0/{row & 0xFFFFFFFF}").issuperset(
                map(str, there.tolist())
            )
            for row, there in zip(folders.tolist(), columns, strict=True)
        )

    def strays(self) -> list[Path]:
        """Chunks where there are to be none: viewers would show them."""
        known = {self._place(0, cell) for cell in self.cells}
        known |= {self._place(*chunk) for group in self._lower for chunk in group}
        found: list[Path] = []
        for level in range(self.grid.levels):
            chunks = self.objects.path / "pyramid" / str(level) / "c"
            found += [place for place in location.files_below(chunks) if place not in known]
        return sorted(found)

    # --- chunks and seals

    @cached_property
    def grid(self) -> TileGrid:
        """The tiles' grid, which level 0 covers."""
        return self.objects.meta.tiling.grid(self.objects.meta.slide)

    @cached_property
    def cells(self) -> list[Tile]:
        """Cells of the tile grid, aligned with `coords`; StoreError if these are damaged."""
        place = self.objects.at("coords")
        if not self.objects.tiles:
            return []
        try:
            data = encoding.decode(location.read_bytes(place))
            corners = np.frombuffer(data, "<i8").reshape(self.objects.tiles, 2)
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(f"{self.objects.path}: coords: {error}; {REMEDY}") from error
        return [self.grid.tile_at(x, y) for x, y in corners.tolist()]

    @cached_property
    def _lower(self) -> list[list[tuple[int, Tile]]]:
        return lower_groups(self.cells, self.grid.levels, self.objects.slots)

    @property
    def _groups(self) -> range:
        """Numbers of the seals of chunks below level 0; those of an array that is gone are none."""
        try:
            metadata = json.loads(location.read_bytes(self.objects.path / "seals" / ROOT))
            return range(self.objects.shards, int(metadata["shape"][0]))
        except (OSError, ValueError, LookupError, TypeError):
            return range(0)

    def _place(self, level: int, cell: Tile) -> Path:
        return self.objects.path / "pyramid" / _name(level, *cell)

    def _write(
        self, number: int, bound: bytes, chunks: Iterable[tuple[int, Tile, UInt8]], check: Check
    ) -> None:
        entries = np.zeros(self.objects.slots, ENTRY)
        for slot, (level, cell, pixels) in enumerate(chunks):
            data = _ZSTD.encode(pixels)
            location.write_whole(self._place(level, cell), [data], check)
            entries[slot] = level, cell.row, cell.column, len(data), google_crc32c.value(data)
        said = entries.tobytes()
        pieces = [said, self._digest(number, bound, said)]
        location.write_whole(self.objects.at("seals", number), pieces, check)

    def _digest(self, number: int, bound: bytes, said: bytes) -> bytes:
        return digests.of_shard(self.objects.identity or "", number, bound, said, b"")

    def _seal(self, number: int) -> tuple[bytes, bytes] | None:
        """What a seal says, and its digest; None if it is missing or cut."""
        try:
            data = location.read_bytes(self.objects.at("seals", number))
        except OSError:
            return None
        if len(data) != seal_bytes(self.objects.slots):
            return None
        return data[: -digests.BYTES], data[-digests.BYTES :]

    def _sealed(self, number: int, bound: bytes) -> bytes | None:
        """The digest of a seal that fits, if its chunks are there and as long as it says."""
        seal = self._seal(number)
        if seal is None or seal[1] != self._digest(number, bound, seal[0]):
            return None
        if self.by_seals:
            self._found.append(seal[0])
            return seal[1]
        chunks = _chunks(seal[0])
        sizes = location.sizes(
            self.objects.path / "pyramid", [_name(*chunk[:3]) for chunk in chunks]
        )
        return seal[1] if sizes == [length for _, _, _, length, _ in chunks] else None

    def _others(self, said: bytes) -> list[int]:
        """Slots whose chunk is not what its seal is of."""
        found = []
        for slot, (level, row, column, length, checksum) in enumerate(_chunks(said)):
            try:
                data = location.read_bytes(self._place(level, Tile(row, column)))
            except OSError:
                data = b""
            if len(data) != length or google_crc32c.value(data) != checksum:
                found.append(slot)
        return found

    def _checksums(self, number: int) -> dict[tuple[int, Tile], int]:
        seal = self._seal(number)
        chunks = _chunks(seal[0]) if seal is not None else []
        return {(level, Tile(row, column)): crc for level, row, column, _, crc in chunks}

    def _reduced(self, level: int, cell: Tile, checksums: dict[tuple[int, Tile], int]) -> UInt8:
        """The pixels of a chunk, from those above it."""
        edge = self.grid.tile_size
        whole = np.full((3, 2 * edge, 2 * edge), FILL, np.uint8)
        for down in (0, 1):
            for right in (0, 1):
                above = level - 1, Tile(2 * cell.row + down, 2 * cell.column + right)
                if above in checksums:
                    y, x = down * edge, right * edge
                    whole[:, y : y + edge, x : x + edge] = self._proven(*above, checksums[above])
        return half(whole)

    def _proven(self, level: int, cell: Tile, checksum: int) -> UInt8:
        place = self._place(level, cell)
        data = location.read_bytes(place)
        if google_crc32c.value(data) != checksum:
            name = place.relative_to(self.objects.path)
            raise StoreError(f"{self.objects.path}: {name}: other than written; {REMEDY}")
        return self._decoded(data)

    def _decoded(self, data: bytes) -> UInt8:
        edge = self.grid.tile_size
        return np.frombuffer(_ZSTD.decode(data), np.uint8).reshape(3, edge, edge)


def _chunks(said: bytes) -> list[tuple[int, int, int, int, int]]:
    """Level, row, column, length and CRC-32C of each chunk of a seal; empty slots are left out."""
    entries = np.frombuffer(said, ENTRY)
    found: list[tuple[int, int, int, int, int]] = entries[entries["length"] > 0].tolist()
    return found


def _name(level: int, row: int, column: int) -> str:
    return f"{level}/c/0/{row}/{column}"
