"""Tiles of a store computed anew: those that are not what the slide gives are named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import refusal
from wsi_norm import RunConfig, TileStore
from wsi_norm.errors import SlideError, StoreError
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline import SlideJob, finish, other_tiles, prepare, process_shard
from wsi_norm.sources import SlideSource


@pytest.fixture
def job(slide_path: Path, tmp_path: Path) -> SlideJob:
    """A slide of its own with its finished store, of several shards of tiles as they are."""
    slide = Path(shutil.copy(slide_path, tmp_path / "case.svs"))
    settings = {"tile_size": 512, "step": 256, "normalizer": "none", "device": "cpu"}
    config = RunConfig.model_validate({"output": tmp_path, **settings})
    job = SlideJob(SlideSource(slide, "s"), tmp_path / "s.zarr", config, Model("none"))
    for shard in prepare(job).missing:
        process_shard(job, shard)
    finish(job)
    return job


def test_tiles_computed_anew(job: SlideJob) -> None:
    store = TileStore.open(job.store)
    assert other_tiles(job, 6) == (6, [])
    assert other_tiles(job, 10**6) == (len(store), [])
    rows = store.rows(1)
    tiles, flags = store[rows], store.flags[rows]
    tiles[3] = 255 - tiles[3]
    tiles[4, 0, 0] ^= 0xFF  # a speck is no other tile
    store.write_shard(1, tiles, flags)  # by the rules, so that no digest says anything
    assert other_tiles(job, 10**6) == (len(store), [rows.start + 3])
    with job.source.path.open("ab") as slide:
        slide.write(b"more")
    assert "not the slide" in refusal(other_tiles, job, 1, kind=SlideError)


def test_another_normaliser_is_not_compared(job: SlideJob) -> None:
    other = replace(job, model=Model("reinhard"))
    assert "another normaliser" in refusal(other_tiles, other, 1, kind=StoreError)


def test_lossy_tiles_are_compared_as_they_come_back(slide_path: Path, tmp_path: Path) -> None:
    settings = {"tile_size": 512, "normalizer": "none", "device": "cpu"}
    settings |= {"codec": "jpeg", "quality": 30}
    config = RunConfig.model_validate({"output": tmp_path, **settings})
    job = SlideJob(SlideSource(slide_path, "s"), tmp_path / "s.zarr", config, Model("none"))
    for shard in prepare(job).missing:
        process_shard(job, shard)
    finish(job)
    store = TileStore.open(job.store)
    assert store.meta.lossy_quality == 30
    assert other_tiles(job, 10**6) == (len(store), [])
    other = replace(job, config=config.model_copy(update={"quality": 31}))
    assert "lossy_quality: 30 != 31" in refusal(prepare, other, kind=StoreError)
    tiles = store[store.rows(0)].copy()
    tiles[1] = tiles[1][::-1]
    store.write_shard(0, tiles, store.flags[store.rows(0)])
    assert 1 in other_tiles(job, 10**6)[1]
