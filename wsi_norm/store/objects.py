"""The objects of a store: where they lie. Paths alone; zarr is not asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_norm import location
from wsi_norm.choices import HOMES, Layout
from wsi_norm.store import digests
from wsi_norm.store.metadata import DIMENSIONS

ATTRIBUTE = "wsi_norm"

ROOT = "zarr.json"
"""The object that holds the attribute; below each array lies one of that name, too."""

SINGLE_CHUNK = ("coords", "tissue_fraction", "tissue_mask", "thumbnail", "thumbnail_normalized")
"""Arrays that are written whole when the store is created."""


def arrays_of(layout: Layout) -> list[str]:
    """Names of the arrays of a store with this layout."""
    absent = set(DIMENSIONS) & {"tiles"} - set(HOMES[layout])
    return [name for name in DIMENSIONS if name not in absent]


@dataclass(frozen=True)
class Objects:
    """The objects of a store of so many tiles, with `slots` of them in a shard.

    `identity` is the digest that shards are bound to; None in stores that have none.
    """

    path: Path
    tiles: int
    slots: int
    identity: str | None = None
    layout: Layout = "tiles"

    @property
    def arrays(self) -> list[str]:
        """Names of the arrays that there are."""
        return arrays_of(self.layout)

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

    def are_there(self) -> bool:
        """Whether nothing is missing of what was written with the store, by names and sizes."""
        metadata = all(location.size(self.path / name / ROOT) for name in self.arrays)
        return metadata and not self.lost()


def attribute(path: Path) -> Any:
    """The attribute of a store; OSError or ValueError where there is none."""
    document = json.loads(location.read_bytes(path / ROOT))
    attributes = document.get("attributes") if isinstance(document, dict) else None
    if not isinstance(attributes, dict) or ATTRIBUTE not in attributes:
        raise ValueError(f"{path}: no attribute {ATTRIBUTE}")
    return attributes[ATTRIBUTE]
