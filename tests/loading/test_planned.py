"""Tiles of a plan are the bytes that a store of tiles holds, whoever reads them; or one line."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.builders import refusal
from tests.loading.conftest import Moved, make, pixels_of
from wsi_norm import TileDataset, TileStore
from wsi_norm.errors import SlideError, StoreError
from wsi_norm.store import TileFlag

LIMIT_SECONDS = 100
"""For a worker's answer: one that hangs after a fork never gives any."""

TAKES: dict[str, Any] = {"timeout": LIMIT_SECONDS, "batch_size": 16}


def check_same(plan: Path, tiles: Path, **options: Any) -> None:
    """Bytes and flags of a plan against a store of tiles."""
    dataset, store = TileDataset(plan, returns=("tile", "flags"), **options), TileStore.open(tiles)
    assert len(dataset) == len(store) > 0
    samples = dataset.__getitems__(range(len(store)))
    np.testing.assert_array_equal(pixels_of(tile for tile, _ in samples), store[:])
    assert [flags for _, flags in samples] == store.flags.tolist()


# --- the bytes


def test_a_plan_gives_the_stored_bytes(plan: Path, stored: Path) -> None:
    check_same(plan, stored)


@pytest.mark.parametrize(
    "settings",
    [
        {"mpp": 0.8, "step": 256, "statistics": "tile"},  # resized
        {"step": 256, "normalizer": "macenko", "reader": "tiffslide"},  # read in blocks
        {"step": 256, "normalizer": "none", "segmenter": "none", "min_tissue": 0},
    ],
)
def test_with_other_settings(slide_path: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    plan = make(slide_path, tmp_path / "plan", "plan", **settings)
    check_same(plan, make(slide_path, tmp_path / "tiles", "tiles", **settings))


def test_of_real_slides(real_slides: list[Path], tmp_path: Path) -> None:
    assert len(real_slides) == 2
    for slide in real_slides:
        settings = {"step": 256, "default_mpp": 0.25}
        plan = make(slide, tmp_path / "plan", "plan", **settings)
        check_same(plan, make(slide, tmp_path / "tiles", "tiles", **settings))


def test_an_unreadable_tile_is_white_and_said(faulty: Path, tmp_path: Path) -> None:
    slide, settings = faulty / "zeroed_tiles.svs", {"step": 256, "max_unreadable": 1}
    plan = make(slide, tmp_path / "plan", "plan", **settings)
    tiles = make(slide, tmp_path / "tiles", "tiles", **settings)
    assert TileStore.open(tiles).count()["unreadable"]
    with pytest.warns(RuntimeWarning, match=f"{slide.name}: cannot read .*white"):
        check_same(plan, tiles)


# --- workers and threads


# Python 3.12 warns of any fork in a process that has threads, as zarr's does.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1), ("forkserver", 1)])
def test_workers(plan: Path, stored: Path, method: str, workers: int) -> None:
    dataset = TileDataset(plan)
    dataset[0]  # the slide is open, and the kernels have run, before workers start
    torch.rand(999, 999) @ torch.rand(999, 999)  # PyTorch's threads are there, too
    loader = DataLoader(dataset, num_workers=workers, multiprocessing_context=method, **TAKES)
    np.testing.assert_array_equal(pixels_of(torch.cat(list(loader))), TileStore.open(stored)[:])
    dataset[1]  # what workers closed was their own


def test_threads_share_a_dataset(plan: Path, stored: Path) -> None:
    dataset = TileDataset(plan)
    with ThreadPoolExecutor(4) as pool:
        found = pixels_of(pool.map(dataset.__getitem__, range(len(dataset))))
    np.testing.assert_array_equal(found, TileStore.open(stored)[:])


def test_threads_of_the_caller_are_given_back(plan: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        TileDataset(plan)[0]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_slide_that_changes_later_is_refused(moved: Moved) -> None:
    dataset = TileDataset(moved.plan, slides=moved.slide)
    dataset[0]
    with moved.slide.open("r+b") as stream:
        stream.write(b"other")
    assert "changed" in refusal(dataset.__getitem__, 1, kind=SlideError)


def test_a_plan_has_no_flags_to_leave_tiles_out_by(plan: Path) -> None:
    skip = {"skip_flags": TileFlag.EDGE}
    assert "plan" in refusal(TileDataset, plan, kind=StoreError, **skip)
