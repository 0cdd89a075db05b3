"""Small stores whose tiles lie at chosen cells, for tests of where a store keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.builders import create_store, store_meta
from wsi_norm import TileStore

EDGE = 16
CELLS = [(0, 0), (0, 1), (1, 0), (3, 4), (3, 5), (2, 4), (4, 7), (6, 8), (7, 2), (0, 9), (5, 3)]
"""(row, column) of 11 tiles on a grid of 8 rows and 10 columns: three shards of four."""


def new_store(path: Path, layout: str, cells: Any = CELLS, edge: int = EDGE, **tiling: Any) -> Any:
    """Without tiles, on a slide whose 10 x 8 tiles are a bit larger than it."""
    size = {"width_px": 10 * edge - 3, "height_px": 8 * edge - 5} | tiling.pop("slide", {})
    sizes = {"level_width_px": size["width_px"], "level_height_px": size["height_px"]}
    meta = store_meta(
        layout=layout, slide=size, tiling={"tile_size_px": edge, "tiles_per_shard": 4, **sizes}
    )
    coords = np.array([(column * edge, row * edge) for row, column in cells], np.int64)
    return create_store(path, len(cells), meta, coords=coords.reshape(-1, 2))


def pixels(number: int, edge: int = EDGE, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, edge, edge, 3), np.uint8)


def fill(store: TileStore, tiles: np.ndarray, shards: Any = None) -> None:
    for shard in range(store.shards) if shards is None else shards:
        rows = store.rows(shard)
        store.write_shard(shard, tiles[rows], np.zeros(len(tiles[rows]), np.uint8))
