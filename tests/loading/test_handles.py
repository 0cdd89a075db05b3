"""What is open: little at once, and of the stores that a dataset was made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest

from tests.builders import refusal
from tests.loading.conftest import Moved
from wsi_norm import TileDataset
from wsi_norm.errors import StoreError
from wsi_norm.loading import handles


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


def test_a_store_that_is_made_anew_is_refused(moved: Moved, stored: Path) -> None:
    dataset = TileDataset(moved.plan, slides=moved.slide)
    shutil.rmtree(moved.plan)
    shutil.copytree(stored, moved.plan)
    assert "another store" in refusal(dataset.__getitem__, 0, kind=StoreError)
