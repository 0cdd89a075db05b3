"""The objects of a store: where they lie, and which are there. Paths alone; zarr is not asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_norm import location
from wsi_norm.store import digests, encoding
from wsi_norm.store.metadata import DIMENSIONS, StoreMeta

ATTRIBUTE = "wsi_norm"

ROOT = "zarr.json"
"""The object that holds the attribute; below each array lies one of that name, too."""

SINGLE_CHUNK = ("coords", "tissue_fraction", "tissue_mask", "thumbnail", "thumbnail_normalized")
"""Arrays that are written whole when the store is created."""


@dataclass(frozen=True)
class Objects:
    """The objects of a store of so many `tiles`, with `slots` of them in a shard.

    `identity` is the digest that shards are bound to; None in stores that have none.
    """

    path: Path
    tiles: int
    slots: int
    identity: str | None = None

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.tiles // self.slots)

    def rows(self, shard: int) -> slice:
        """The rows of `tiles` that a shard holds."""
        start = shard * self.slots
        return slice(start, min(start + self.slots, self.tiles))

    def at(self, name: str, shard: int = 0) -> Path:
        """The object of an array's shard, or of all of it where it has one."""
        rest = ["0"] * (len(DIMENSIONS[name]) - 1)
        return self.path.joinpath(name, "c", str(shard), *rest)

    def end(self, shard: int) -> encoding.End | None:
        """The end of a shard that is there, whole but for its tiles' bytes, and in its place.

        Whole: its index is, and the bytes that this promises are there. In its place: its digest is
        of this number, its flags, and this store.
        """
        rows = self.rows(shard)
        try:
            flags = location.read_bytes(self.at("flags", shard))
        except OSError:
            return None
        end = self._end(shard, rows.stop - rows.start)
        if not flags or end is None:
            return None
        in_place = self.identity is None or end.digest == digests.of_shard(
            self.identity, shard, flags, end.checksums, end.index
        )
        return end if in_place else None

    def is_elsewhere(self, shard: int) -> bool:
        """Whether a shard that `end` does not take is whole in itself."""
        rows = self.rows(shard)
        there = location.size(self.at("flags", shard)) > 0
        return there and self._end(shard, rows.stop - rows.start) is not None

    def _end(self, shard: int, tiles: int) -> encoding.End | None:
        return encoding.read_end(
            self.at("tiles", shard), tiles, self.slots, sealed=self.identity is not None
        )

    def has_shard(self, shard: int) -> bool:
        """Whether a shard is there, whole and in its place, as far as its end says; see `end`."""
        return self.end(shard) is not None

    def missing_shards(self) -> list[int]:
        """Shards that are not there."""
        return [shard for shard in range(self.shards) if not self.has_shard(shard)]

    def lost(self) -> list[str]:
        """Arrays written with the store whose object is gone: zarr would read them as zeros."""
        by_row = ("coords", "tissue_fraction")
        return [
            name
            for name in SINGLE_CHUNK
            if (self.tiles or name not in by_row) and not location.exists(self.at(name))
        ]

    def array_digest(self, name: str) -> str:
        """Digest of what was written of an array when the store was; OSError if it is gone."""
        metadata = location.read_bytes(self.path / name / ROOT)
        if name not in SINGLE_CHUNK or not location.exists(self.at(name)):
            return digests.of_array(metadata)
        return digests.of_array(metadata, location.read_bytes(self.at(name)))

    def all_there(self) -> list[encoding.End] | None:
        """The ends of all shards, if nothing is missing, by names, sizes and these ends."""
        arrays = all(location.size(self.path / name / ROOT) for name in DIMENSIONS)
        if not arrays or self.lost():
            return None
        ends: list[encoding.End] = []
        for shard in range(self.shards):
            if (end := self.end(shard)) is None:
                return None
            ends.append(end)
        return ends


def finished(path: Path) -> StoreMeta | None:
    """What a complete store with all its objects says of itself; None of any other.

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
    objects = Objects(path, meta.counts["tiles"], meta.tiling.tiles_per_shard, identity)
    ends = objects.all_there()
    if ends is None:
        return None
    if identity is not None:
        content = digests.of_content(said, [end.digest for end in ends])
        return meta if content == meta.content_sha256 else None
    return meta


def attribute(path: Path) -> Any:
    """The attribute of a store; OSError or ValueError where there is none."""
    document = json.loads(location.read_bytes(path / ROOT))
    attributes = document.get("attributes") if isinstance(document, dict) else None
    if not isinstance(attributes, dict) or ATTRIBUTE not in attributes:
        raise ValueError(f"{path}: no attribute {ATTRIBUTE}")
    return attributes[ATTRIBUTE]
