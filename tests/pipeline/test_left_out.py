"""Tiles that a slide's file holds no bytes for: kept amid tissue, flagged, counted, said."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from wsi_norm.config import RunConfig
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline import SlideJob, finish, prepare, process_shard
from wsi_norm.sources import SlideSource
from wsi_norm.store import TileFlag, TileStore

EDGE, TILE = 2048, 128
HOLE, BESIDE = (8, 8), (1, 1)
"""Row and column of the tiles that are left out, amid tissue and on glass."""


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A disk of tissue on glass, in tiles of which two have no bytes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(EDGE, EDGE)), 2)
    y, x = np.indices((EDGE, EDGE)) - EDGE / 2
    inside = np.hypot(x, y) < 0.4 * EDGE
    tissue = np.array([190, 100, 170]) + 120 * noise[..., None]
    pixels = np.where(inside[..., None], tissue, (242, 240, 238)).clip(0, 255).astype(np.uint8)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, tile=(TILE, TILE), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages.first.tags["TileByteCounts"]
    size = struct.calcsize(tag.dataformat[-1:])
    with path.open("r+b") as file:
        for row, column in (HOLE, BESIDE):
            file.seek(tag.valueoffset + (row * (EDGE // TILE) + column) * size)
            file.write(bytes(size))
    return path


def test_a_hole_amid_tissue_is_kept_and_flagged(slide: Path, tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {"output": tmp_path, "normalizer": "none", "default_mpp": 0.5, "mpp": 0.5, "tile_size": 64}
    )
    job = SlideJob(SlideSource(slide, "a"), tmp_path / "a.zarr", config, Model("none"))
    prepared = prepare(job)
    for shard in prepared.missing:
        process_shard(job, shard)
    counts = finish(job)
    (warning,) = (line for line in prepared.warnings if line.startswith("left out: "))
    assert "2 of 256 tiles of level 0 (white, flag 16), also amid tissue" in warning
    store = TileStore.open(job.store)
    flagged = (store.flags & TileFlag.LEFT_OUT) > 0
    row, column = HOLE
    places = {(x, y) for x in range(2) for y in range(2)}
    expected = {(column * TILE + 64 * x, row * TILE + 64 * y) for x, y in places}
    assert set(map(tuple, store.coords[flagged].tolist())) == expected
    assert counts["left_out"] == len(expected)
    for index in np.flatnonzero(flagged):
        assert (store[int(index)] == 255).all()
