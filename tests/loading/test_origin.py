"""The slide and the checkpoint of a plan: found by their bytes wherever they are, or one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.builders import refusal
from tests.loading.conftest import Moved, make, pixels_of
from wsi_norm import TileDataset, TileStore, load_checkpoint, save_checkpoint
from wsi_norm.errors import CheckpointError, ConfigError, SlideError

# --- where a slide is


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


def test_slides_that_are_not_named(moved: Moved, tmp_path: Path) -> None:
    for slides in (tmp_path / "out", [], {"another": moved.slide}):
        message = refusal(TileDataset, moved.plan, slides=slides, kind=SlideError)
        assert f"its slide {moved.slide.stem}" in message
    message = refusal(TileDataset, moved.plan, slides=[tmp_path / "nowhere"])
    assert "nowhere: no such file or folder" in message
    (moved.plan.parent / "run.json").unlink()
    assert "run.json" in refusal(TileDataset, moved.plan, kind=ConfigError)
    assert len(TileDataset(moved.plan, slides=moved.slide))  # who names it needs no run.json


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
