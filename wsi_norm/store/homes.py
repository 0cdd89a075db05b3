"""Homes of pixels: where the tiles of a shard lie, and what says that they are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from wsi_norm import location
from wsi_norm.store import digests, encoding
from wsi_norm.store.encoding import Codec, UInt8
from wsi_norm.store.objects import OTHER_PLACE, Objects


class Home(Protocol):
    """One way to keep the tiles of a store's shards.

    A shard has one object here that is written last: its commit record, with a digest that binds
    it to its number, its flags and its store.
    """

    @property
    def name(self) -> str:
        """The array or group that holds the tiles."""

    @property
    def folder(self) -> Path:
        """Where its objects are; it appears with the first of them."""

    def digest(self, shard: int, flags: bytes) -> bytes | None:
        """Of a shard that is there, whole but for its tiles' bytes, and in its place; else None.

        `flags` is the shard's object of flags. Empty in stores of earlier versions.
        """

    def problem(self, shard: int, flags: bytes) -> str | None:
        """What is wrong with a shard, with all its bytes read; None: nothing."""

    def write(self, shard: int, tiles: UInt8, flags: bytes, check: Callable[[], None]) -> None:
        """Write a shard, its record last; `check` is called before each object appears."""

    def drop(self, shard: int) -> None:
        """Remove the record of a shard, so that it counts as missing."""


@dataclass(frozen=True)
class TilesHome:
    """The array `tiles`: an object for each shard, which is its own record; see `encoding`."""

    objects: Objects
    codec: Codec

    name = "tiles"

    @property
    def folder(self) -> Path:
        """Of Zarr's chunks."""
        return self.objects.path / "tiles" / "c"

    def digest(self, shard: int, flags: bytes) -> bytes | None:
        """Of an end that is intact, as much as it promises lies before it, and its digest fits."""
        end = self._end(shard)
        return end.digest if end is not None and self._in_place(shard, flags, end) else None

    def problem(self, shard: int, flags: bytes) -> str | None:
        """Missing, of another place, or tiles whose checksum is another's."""
        end = self._end(shard)
        if end is None:
            return "missing or cut"
        if not self._in_place(shard, flags, end):
            return OTHER_PLACE
        if self.objects.identity is not None and (other := self._other_tiles(shard, end)):
            return f"the checksum is not that of tiles {other}"
        return None

    def write(self, shard: int, tiles: UInt8, flags: bytes, check: Callable[[], None]) -> None:
        """One object."""
        identity, seal = self.objects.identity, None
        if identity is not None:
            seal = partial(digests.of_shard, identity, shard, flags)
        pieces = encoding.encode_tiles(tiles, self.objects.slots, self.codec, seal)
        location.write_whole(self.objects.at("tiles", shard), pieces, check)

    def drop(self, shard: int) -> None:
        """With its tiles."""
        location.remove(self.objects.at("tiles", shard))

    def _end(self, shard: int) -> encoding.End | None:
        rows = self.objects.rows(shard)
        return encoding.read_end(
            self.objects.at("tiles", shard),
            rows.stop - rows.start,
            self.objects.slots,
            sealed=self.objects.identity is not None,
        )

    def _in_place(self, shard: int, flags: bytes, end: encoding.End) -> bool:
        identity = self.objects.identity
        return identity is None or end.digest == digests.of_shard(
            identity, shard, flags, end.checksums, end.index
        )

    def _other_tiles(self, shard: int, end: encoding.End) -> list[int]:
        rows = self.objects.rows(shard)
        try:
            data = location.read_bytes(self.objects.at("tiles", shard))
        except OSError:
            return list(range(rows.start, rows.stop))
        return [rows.start + slot for slot in encoding.other_chunks(data, end)]
