"""The objects of a store: where they lie, and which are there. Paths alone; zarr is not asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_norm import location
from wsi_norm.store import encoding
from wsi_norm.store.metadata import DIMENSIONS, StoreMeta

ATTRIBUTE = "wsi_norm"

ROOT = "zarr.json"
"""The object that holds the attribute; below each array lies one of that name, too."""

SINGLE_CHUNK = ("coords", "tissue_fraction", "tissue_mask", "thumbnail", "thumbnail_normalized")
"""Arrays that are written whole when the store is created."""


@dataclass(frozen=True)
class Objects:
    """The objects of a store of so many `tiles`, with `slots` of them in a shard."""

    path: Path
    tiles: int
    slots: int

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

    def has_shard(self, shard: int) -> bool:
        """Whether a shard is there, with a whole index and all the bytes that this promises."""
        rows = self.rows(shard)
        return location.size(self.at("flags", shard)) > 0 and encoding.is_whole(
            self.at("tiles", shard), rows.stop - rows.start, self.slots
        )

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

    def all_there(self) -> bool:
        """Whether nothing is missing, by names, sizes and the shards' indices."""
        arrays = all(location.size(self.path / name / ROOT) for name in DIMENSIONS)
        return arrays and not self.lost() and not self.missing_shards()


def finished(path: Path) -> StoreMeta | None:
    """What a complete store with all its objects says of itself; None of any other.

    What is wrong with one that is not whole, `TileStore.open` says.
    """
    try:
        meta = StoreMeta.model_validate(attribute(path))
    except (OSError, ValueError):
        return None
    if not meta.complete or meta.counts is None:
        return None
    objects = Objects(path, meta.counts["tiles"], meta.tiling.tiles_per_shard)
    return meta if objects.all_there() else None


def attribute(path: Path) -> Any:
    """The attribute of a store; OSError or ValueError where there is none."""
    document = json.loads(location.read_bytes(path / ROOT))
    attributes = document.get("attributes") if isinstance(document, dict) else None
    if not isinstance(attributes, dict) or ATTRIBUTE not in attributes:
        raise ValueError(f"{path}: no attribute {ATTRIBUTE}")
    return attributes[ATTRIBUTE]
