"""The shards of a store: their flags, and their tiles in each of their homes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wsi_norm import location
from wsi_norm.choices import CODECS, HOMES
from wsi_norm.store import digests, encoding
from wsi_norm.store.encoding import UInt8
from wsi_norm.store.homes import Home, TilesHome
from wsi_norm.store.metadata import StoreMeta
from wsi_norm.store.objects import Objects, attribute
from wsi_norm.store.pyramid import Pyramid


class Shards:
    """What is there of a store's shards: one is when each home of its pixels has it.

    A plan has no home: all that there is to be is there when the store is made. `by_seals`: see
    `Pyramid`.
    """

    def __init__(self, objects: Objects, by_seals: bool = False) -> None:
        self.objects = objects
        meta = objects.meta
        self.pyramid = Pyramid(objects, by_seals) if "pyramid" in HOMES[meta.layout] else None
        tiles = TilesHome(objects, CODECS[meta.codec]) if "tiles" in HOMES[meta.layout] else None
        self.homes: list[Home] = [home for home in (tiles, self.pyramid) if home is not None]

    def digests(self, shard: int) -> list[bytes] | None:
        """A shard's digest in each home; None if it is missing in one.

        Missing is what is not there, whole and in its place, as far as the records say.
        """
        if not self.homes:
            return []
        flags = self.flags(shard)
        found = [home.digest(shard, flags) for home in self.homes] if flags else [None]
        there = [digest for digest in found if digest is not None]
        return there if len(there) == len(found) else None

    def of_all(self) -> list[bytes] | None:
        """Digests of all shards; None if one is missing."""
        found: list[bytes] = []
        for shard in range(self.objects.shards):
            if (there := self.digests(shard)) is None:
                return None
            found += there
        return found

    def of_whole(self) -> list[bytes] | None:
        """Digests of all shards and all that is made of them; None if something is missing."""
        found = self.of_all()
        if found is None or self.pyramid is None:
            return found
        levels = self.pyramid.levels(found)
        return None if levels is None else found + levels

    def has(self, shard: int) -> bool:
        """Whether a shard is there."""
        return self.digests(shard) is not None

    def missing(self) -> list[int]:
        """Shards that are not there."""
        return [shard for shard in range(self.objects.shards) if not self.has(shard)]

    @property
    def begun(self) -> bool:
        """Whether tiles of any shard were written."""
        return any(location.exists(home.folder) for home in self.homes)

    def are_of_here(self) -> bool:
        """Whether at least one shard says that it is of this store."""
        return bool(self.homes) and any(map(self.has, range(self.objects.shards)))

    def problem(self, shard: int) -> str | None:
        """What is wrong with a shard, with all its bytes read; None: nothing."""
        if not self.homes:
            return None
        flags = self.flags(shard)
        if not flags:
            return "missing or cut"
        for home in self.homes:
            if problem := home.problem(shard, flags):
                return problem if len(self.homes) == 1 else f"{home.name}: {problem}"
        return None

    def write(self, shard: int, tiles: UInt8, flags: UInt8, check: Callable[[], None]) -> None:
        """Write a shard's flags, then its tiles; OSError if that cannot be done."""
        said = b"".join(encoding.encode_flags(flags, self.objects.slots))
        if not self.has(shard) or self.flags(shard) != said:
            self.drop(shard)  # old tiles never stand beside new flags
        location.write_whole(self.objects.at("flags", shard), [said], check)
        for home in self.homes:
            home.write(shard, tiles, said, check)

    def complete(self, check: Callable[[], None]) -> None:
        """Write what is made of all shards, which are there; OSError if that cannot be done."""
        if self.pyramid is not None and (found := self.of_all()) is not None:
            self.pyramid.build(found, check)

    def strays(self) -> list[Path]:
        """Objects that would be read, but are none of the store."""
        return self.pyramid.strays() if self.pyramid is not None else []

    def drop(self, shard: int) -> None:
        """Remove what says that a shard is there."""
        for home in self.homes:
            home.drop(shard)

    def flags(self, shard: int) -> bytes:
        """The object of a shard's flags; empty where there is none."""
        try:
            return location.read_bytes(self.objects.at("flags", shard))
        except OSError:
            return b""


def finished(path: Path) -> StoreMeta | None:
    """What a complete store with all its objects says of itself; None of any other.

    Of tiles in a pyramid it is seen whether they are there, not how long they are: a store has
    thousands of them.
    What is wrong with one that is not whole, `TileStore.open` says.
    """
    try:
        said = attribute(path)
        meta = StoreMeta.model_validate(said)
    except (OSError, ValueError):
        return None
    if not meta.complete or meta.counts is None:
        return None
    identity = meta.identity_sha256
    if identity not in (None, digests.of_identity(said)):
        return None
    objects = Objects(path, meta, meta.counts["tiles"])
    shards = Shards(objects, by_seals=True)
    if not objects.are_there() or (found := shards.of_whole()) is None:
        return None
    if shards.pyramid is not None and not shards.pyramid.has_chunks():
        return None
    if identity is not None and digests.of_content(said, found) != meta.content_sha256:
        return None
    return meta
