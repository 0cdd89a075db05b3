"""Tiles of a plan are the bytes that a store of tiles holds, whoever reads them; or one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from tests.builders import refusal
from tests.loading.conftest import make
from wsi_norm import TileDataset, TileStore, load_checkpoint, save_checkpoint
from wsi_norm.errors import CheckpointError, ConfigError, SlideError, StoreError
from wsi_norm.loading import handles
from wsi_norm.store import TileFlag

LIMIT_SECONDS = 100
"""For a worker's answer: one that hangs after a fork never gives any."""

TAKES: dict[str, Any] = {"timeout": LIMIT_SECONDS, "batch_size": 16}


def pixels_of(samples: Any) -> np.ndarray:
    """uint8 (N, T, T, 3) of tensors (3, T, T)."""
    return torch.stack(list(samples)).permute(0, 2, 3, 1).numpy()


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


def test_few_slides_are_open_at_once(
    slide_path: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "MOST_SLIDES", 2)
    plans = [Path(shutil.copytree(plan, tmp_path / f"{number}.zarr")) for number in range(4)]
    dataset = TileDataset(plans, slides=slide_path.parent)

    def is_open() -> int:
        names = [file.path for file in psutil.Process().open_files()]
        return sum(Path(name).name == slide_path.name for name in names)

    before = is_open()
    for index in range(0, len(dataset), len(dataset) // 8):
        dataset[index]
        assert is_open() <= before + 2 * 2  # OpenSlide's and ours
    del dataset
    assert is_open() == before


# --- where a slide is


@dataclass(frozen=True)
class Moved:
    """A plan beside its run.json, and its slide, which lies elsewhere by now."""

    plan: Path
    slide: Path


@pytest.fixture
def moved(slide_path: Path, plan: Path, tmp_path: Path) -> Moved:
    """Nothing is where run.json says."""
    shutil.copytree(plan.parent, tmp_path / "out")
    run = tmp_path / "out" / "run.json"
    document = json.loads(run.read_text())
    document["slides"][0]["slide"] = str(tmp_path / "gone" / slide_path.name)
    run.write_text(json.dumps(document))
    (tmp_path / "archive" / "deep").mkdir(parents=True)
    slide = Path(shutil.copy(slide_path, tmp_path / "archive" / "deep"))
    return Moved(tmp_path / "out" / plan.name, slide)


def test_a_slide_that_moved_is_found(moved: Moved, stored: Path) -> None:
    message = refusal(TileDataset, moved.plan, kind=SlideError)
    assert "no such file" in message
    assert "slides=" in message
    other = moved.slide.with_name("other.svs")
    renamed = Path(shutil.copy(moved.slide, other))
    namesake = moved.slide.parents[1] / moved.slide.name
    namesake.write_bytes(b"another file of that name")
    for slides in (
        moved.slide.parents[1],  # of the two of that name the right one
        str(moved.slide.parent),
        [moved.slide],
        [renamed, moved.slide.parent],
        {moved.plan.stem: moved.slide},
        {moved.plan.stem: str(renamed), "another": Path("nowhere.svs")},
    ):
        dataset = TileDataset(moved.plan, slides=slides)
        np.testing.assert_array_equal(pixels_of([dataset[3]]), TileStore.open(stored)[3:4])


def overwritten(slide: Path) -> None:
    with slide.open("r+b") as stream:
        stream.seek(slide.stat().st_size // 2)
        stream.write(bytes(range(256)) * 64)


def another(slide: Path) -> None:
    slide.write_bytes(slide.read_bytes()[::-1])


def longer(slide: Path) -> None:
    with slide.open("ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize("change", [overwritten, another, longer])
def test_another_slide_is_refused(moved: Moved, change: Callable[[Path], None]) -> None:
    change(moved.slide)
    for slides in (moved.slide.parent, {moved.plan.stem: moved.slide}):
        message = refusal(TileDataset, moved.plan, slides=slides, kind=SlideError)
        assert str(moved.slide) in message
        assert "slides=" in message


def test_a_slide_that_changes_later_is_refused(moved: Moved) -> None:
    dataset = TileDataset(moved.plan, slides=moved.slide)
    dataset[0]
    overwritten(moved.slide)
    os.utime(moved.slide)
    assert "changed" in refusal(dataset.__getitem__, 1, kind=SlideError)


def test_slides_that_are_not_named(moved: Moved, tmp_path: Path) -> None:
    for slides in (tmp_path / "out", [], {"another": moved.slide}):
        message = refusal(TileDataset, moved.plan, slides=slides, kind=SlideError)
        assert f"its slide {moved.slide.stem}" in message
    message = refusal(TileDataset, moved.plan, slides=[tmp_path / "nowhere"])
    assert "nowhere: no such file or folder" in message
    (moved.plan.parent / "run.json").unlink()
    assert "run.json" in refusal(TileDataset, moved.plan, kind=ConfigError)
    assert len(TileDataset(moved.plan, slides=moved.slide))  # who names it needs no run.json


def test_a_store_that_is_made_anew_is_refused(moved: Moved, stored: Path) -> None:
    dataset = TileDataset(moved.plan, slides=moved.slide)
    shutil.rmtree(moved.plan)
    shutil.copytree(stored, moved.plan)
    assert "another store" in refusal(dataset.__getitem__, 0, kind=StoreError)


def test_a_plan_has_no_flags_to_leave_tiles_out_by(plan: Path) -> None:
    skip = {"skip_flags": TileFlag.EDGE}
    assert "plan" in refusal(TileDataset, plan, kind=StoreError, **skip)


# --- which checkpoint


def test_a_checkpoint_is_known_by_its_digest(slide_path: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    save_checkpoint(load_checkpoint("paper"), own, provenance={"mine": True})
    plan = make(slide_path, tmp_path / "plan", "plan", ckpt=own, step=256)
    assert len(TileDataset(plan))  # run.json says where it is
    elsewhere = own.rename(tmp_path / "elsewhere.safetensors")
    assert "ckpt=" in refusal(TileDataset, plan, kind=CheckpointError)
    assert len(TileDataset(plan, ckpt=elsewhere))
    save_checkpoint(load_checkpoint("paper"), own, provenance={"mine": False})
    for ckpt in (own, "paper", tmp_path / "gone.pt", None):
        message = refusal(TileDataset, plan, ckpt=ckpt, kind=CheckpointError)
        assert TileStore.open(plan).meta.model.sha256 in message
