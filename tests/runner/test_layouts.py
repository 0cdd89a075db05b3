"""What a store holds of the pixels: a plan, a pyramid, tiles, or both, from the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import exit_status, refusal, tree
from wsi_norm import RunConfig, TileStore, run
from wsi_norm.errors import StoreError

SETTINGS: dict[str, Any] = {"workers": 0, "device": "cpu", "tile_size": 128}


def made(slide: Path, output: Path, layout: str, **settings: Any) -> TileStore:
    """The finished store of a run."""
    given = {**SETTINGS, "output": output, "layout": layout, **settings}
    summary = run(slide, RunConfig.model_validate(given))
    assert summary.exit_status == 0, summary.slides[0].error
    return TileStore.open(output / f"{slide.stem}.zarr")


@pytest.fixture(scope="module")
def tiles(slide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> TileStore:
    """With tiles, as ever."""
    return made(slide_path, tmp_path_factory.mktemp("tiles"), "tiles")


# --- a plan


@pytest.fixture(scope="module")
def plan(slide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> TileStore:
    """Without pixels."""
    return made(slide_path, tmp_path_factory.mktemp("plan"), "plan")


def test_a_plan_holds_what_tiles_are_made_of(plan: TileStore, tiles: TileStore) -> None:
    assert len(plan) == len(tiles) > 50
    for name in ("coords", "tissue_fraction", "tissue_mask", "thumbnail", "thumbnail_normalized"):
        np.testing.assert_array_equal(getattr(plan, name), getattr(tiles, name))
    for name in ("slide", "tiling", "tissue", "model", "statistics", "white"):
        assert getattr(plan.meta, name) == getattr(tiles.meta, name)
    assert not plan.flags.any()
    assert plan.meta.complete
    assert plan.meta.counts is not None
    assert plan.meta.counts["tiles"] == len(plan)


def test_a_plan_takes_kilobytes(plan: TileStore) -> None:
    beside = sum(len(data) for name, data in tree(plan.path).items() if "thumbnail" not in name)
    assert beside < 32_000


@pytest.mark.parametrize("index", [0, slice(2, 4)])
def test_a_plan_has_no_pixels_to_give(plan: TileStore, index: Any) -> None:
    message = refusal(lambda: plan[index], kind=StoreError)
    assert message.startswith(f"{plan.path}: ")
    assert "TileDataset" in message


def test_a_finished_plan_is_skipped_and_verified(
    slide_path: Path, plan: TileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(plan.path)
    given = {**SETTINGS, "output": plan.path.parent, "layout": "plan"}
    assert run(slide_path, RunConfig.model_validate(given)).slides[0].status == "skipped"
    assert tree(plan.path) == before
    assert exit_status("verify", plan.path, "--deep", "2") == 0
    assert f"a plan of {len(plan)} tiles" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["coords/c/0/0", "flags/zarr.json", "thumbnail/zarr.json"])
def test_a_damaged_plan_is_named_and_repaired(
    slide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    store = made(slide_path, tmp_path, "plan")
    before = tree(store.path)
    (store.path / name).write_bytes(before[name][:-1])
    assert exit_status("verify", store.path) == 1
    assert name.split("/", maxsplit=1)[0] in capsys.readouterr().err
    made(slide_path, tmp_path, "plan", repair=True)
    assert tree(store.path) == before


def test_a_plan_is_no_store_of_tiles(slide_path: Path, plan: TileStore) -> None:
    given = {**SETTINGS, "output": plan.path.parent}
    error = run(slide_path, RunConfig.model_validate(given)).slides[0].error
    assert error is not None
    assert "layout: plan != tiles" in error


def test_what_a_plan_would_cost(
    slide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--layout", "plan", "--tile-size", "128", "-n", "0", "--dry-run")
    assert exit_status("run", slide_path, "-o", tmp_path / "out", *settings) == 0
    assert "0.0 MB" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
