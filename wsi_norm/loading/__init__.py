"""Tiles for PyTorch: from stores, or computed from the slides of stores without pixels."""

from wsi_norm.loading.dataset import TileDataset
from wsi_norm.loading.samplers import ShardSampler
from wsi_norm.loading.stream import TileStream

__all__ = ["ShardSampler", "TileDataset", "TileStream"]
