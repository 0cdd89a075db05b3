"""A store of random tiles on a slide that they do not fill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import create_store, store_meta
from wsi_norm.geometry import Tile
from wsi_norm.store import TileStore

Made = Callable[..., TileStore]


@pytest.fixture
def make(tmp_path: Path) -> Made:
    """Finished stores with tiles at some of a grid's places."""

    def made(
        name: str = "case",
        *,
        size: tuple[int, int] = (320, 240),
        tile: int = 16,
        overlap: int = 0,
        downsample: float = 1.0,
        share: float = 0.6,
        seed: int = 0,
        flags: Mapping[int, int] | None = None,
        **arrays: Any,
    ) -> TileStore:
        rng = np.random.default_rng(seed)
        meta = store_meta(
            slide={
                "name": name,
                "file_name": f"{name}.svs",
                "width_px": size[0],
                "height_px": size[1],
            },
            tiling={
                "tile_size_px": tile,
                "overlap_px": overlap,
                "downsample": downsample,
                "mpp_um": 0.5 * downsample,
                "level_width_px": size[0],
                "level_height_px": size[1],
            },
        )
        grid = meta.tiling.grid(meta.slide)
        places = [place for place in grid.tiles() if rng.random() < share]
        places = [places[index] for index in rng.permutation(len(places))]
        coords = np.array([grid.origin(place) for place in places], np.int64).reshape(-1, 2)
        fractions = rng.random(len(places)).astype(np.float32)
        store = create_store(
            tmp_path / f"{name}.zarr",
            len(places),
            meta,
            coords=coords,
            tissue_fraction=fractions,
            **arrays,
        )
        tiles = rng.integers(0, 256, (len(places), tile, tile, 3), np.uint8)
        marks = np.zeros(len(places), np.uint8)
        for row, bits in (flags or {}).items():
            marks[row] = bits
        for shard in range(store.shards):
            rows = store.rows(shard)
            store.write_shard(shard, tiles[rows], marks[rows])
        store.finish()
        return TileStore.open(store.path)

    return made


def image_of(store: TileStore, width: int, height: int) -> np.ndarray:
    """Tiles put in their places, one by one."""
    size = store.meta.tiling.tile_size_px
    scale = size * store.meta.tiling.downsample
    image = np.full((height + 2 * size, width + 2 * size, 3), 255, np.uint8)
    for (x, y), tile in zip(store.coords.tolist(), store[:], strict=True):
        place = Tile(round(y / scale), round(x / scale))
        top, left = place.row * size, place.column * size
        image[top : top + size, left : left + size] = tile
    return image[:height, :width]
