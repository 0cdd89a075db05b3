"""The objects of a store: where they lie. Paths alone; zarr is not asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_norm import location
from wsi_norm.choices import HOMES
from wsi_norm.store import digests
from wsi_norm.store.metadata import DIMENSIONS, StoreMeta

ATTRIBUTE = "wsi_norm"

ROOT = "zarr.json"
"""The object that holds the attribute; below each array lies one of that name, too."""

HOME_ARRAYS = {"tiles": "tiles", "pyramid": "seals"}
"""Arrays that a store has for one home of its pixels alone."""

REMEDY = "run the same command again with --repair"

OTHER_PLACE = "of another place, other flags or another store"

SINGLE_CHUNK = ("coords", "tissue_fraction", "tissue_mask", "thumbnail", "thumbnail_normalized")
"""Arrays that are written whole when the store is created."""


LABELS = ("tissue", "tiles")
"""Of the pyramid: where tissue is, and each cell's tile, from 1."""


@dataclass(frozen=True)
class Objects:
    """The objects of a store with so many `tiles`, of which `meta` says how it is laid out."""

    path: Path
    meta: StoreMeta
    tiles: int

    @property
    def slots(self) -> int:
        """Tiles in a shard."""
        return self.meta.tiling.tiles_per_shard

    @property
    def identity(self) -> str | None:
        """The digest that shards are bound to; None in stores that have none."""
        return self.meta.identity_sha256

    @property
    def arrays(self) -> list[str]:
        """Names of the arrays that there are."""
        homes = HOMES[self.meta.layout]
        absent = {name for home, name in HOME_ARRAYS.items() if home not in homes}
        return [name for name in DIMENSIONS if name not in absent]

    @property
    def written(self) -> list[str]:
        """Names of what is written with the store: arrays, and the group of the pyramid."""
        return [*self.arrays, *(name for name in HOMES[self.meta.layout] if name == "pyramid")]

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
        """What was written with the store and is gone: zarr would read such arrays as zeros."""
        by_row = ("coords", "tissue_fraction")
        arrays = [
            name
            for name in SINGLE_CHUNK
            if (self.tiles or name not in by_row) and not location.exists(self.at(name))
        ]
        whole = "pyramid" not in self.written or all(
            location.sizes(self.path / "pyramid", self._of_pyramid())
        )
        return arrays if whole else [*arrays, "pyramid"]

    def _of_pyramid(self) -> list[str]:
        """What is written of the pyramid with the store: all but the chunks of its levels."""
        levels = range(self.meta.tiling.grid(self.meta.slide).levels)
        arrays = [f"{level}/{ROOT}" for level in levels]
        of_label = [ROOT, *arrays, *(f"{level}/c/0/0" for level in levels)]
        labels = [f"labels/{label}/{name}" for label in LABELS for name in of_label]
        return [ROOT, *arrays, f"labels/{ROOT}", *labels]

    def digest(self, name: str) -> str:
        """Of what was written of an array or the pyramid with the store; OSError if it is gone."""
        if name == "pyramid":
            files = [self.path / name / file for file in self._of_pyramid()]
            return digests.of_parts(map(location.read_bytes, files)).hex()
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
