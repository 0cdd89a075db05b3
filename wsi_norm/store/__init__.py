"""Stores: the only home of zarr."""

from wsi_norm.store.encoding import PYRAMID_RATIO, Codec
from wsi_norm.store.metadata import (
    Counts,
    ModelMeta,
    Settings,
    SlideMeta,
    StoreMeta,
    TileFlag,
    TilingMeta,
    TissueMeta,
    differences,
)
from wsi_norm.store.objects import REMEDY
from wsi_norm.store.shards import finished
from wsi_norm.store.tilestore import TileStore, taken_over, tiles_per_shard

__all__ = [
    "PYRAMID_RATIO",
    "REMEDY",
    "Codec",
    "Counts",
    "ModelMeta",
    "Settings",
    "SlideMeta",
    "StoreMeta",
    "TileFlag",
    "TileStore",
    "TilingMeta",
    "TissueMeta",
    "differences",
    "finished",
    "taken_over",
    "tiles_per_shard",
]
