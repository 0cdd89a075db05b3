"""What a store holds of the pixels: a plan, a pyramid, tiles, or both, from the same run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from tests.builders import GLASS, exit_status, refusal, tree
from wsi_norm import RunConfig, TileStore, run
from wsi_norm.config import run_config
from wsi_norm.errors import StoreError
from wsi_norm.runner import ShardWritten
from wsi_norm.store import TileFlag
from wsi_norm.synthetic import write_synthetic_slide

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


# --- a pyramid

LARGE: dict[str, Any] = {"tile_size": 512, "min_tissue": 0.0}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 48 tiles of 512 px, 16 in a shard; it ends amid its last tiles."""
    path = tmp_path_factory.mktemp("large") / "large.svs"
    return Path(write_synthetic_slide(path, width=4000, height=3000, mpp_um=0.5, levels=2))


@pytest.fixture(scope="module")
def both(large: Path, tmp_path_factory: pytest.TempPathFactory) -> TileStore:
    """With tiles and a pyramid, by one process."""
    return made(large, tmp_path_factory.mktemp("both"), "both", **LARGE)


def image_of(store: TileStore, level: int = 0) -> np.ndarray:
    """(h, w, 3) of a level, by plain zarr."""
    return np.moveaxis(zarr.open_group(store.path / "pyramid", mode="r")[str(level)][:], 0, -1)


def test_level_0_is_the_tiles(both: TileStore) -> None:
    """Pixel by pixel, at their coordinates; the image is as large as the grid."""
    image, expected = image_of(both), np.full((6 * 512, 8 * 512, 3), 255, np.uint8)
    for (x, y), tile in zip(both.coords.tolist(), both, strict=True):
        expected[y : y + 512, x : x + 512] = tile
    np.testing.assert_array_equal(image, expected)
    assert both.shards > 1
    assert 0 < len(both) < 48


def test_the_same_bytes_with_two_workers(large: Path, both: TileStore, tmp_path: Path) -> None:
    other = made(large, tmp_path, "both", **LARGE, workers=2)
    assert tree(other.path) == tree(both.path)


def test_a_pyramid_has_the_tiles(large: Path, both: TileStore, tmp_path: Path) -> None:
    alone = made(large, tmp_path, "pyramid", **LARGE)
    assert not (alone.path / "tiles").exists()
    np.testing.assert_array_equal(alone[:], both[:])
    np.testing.assert_array_equal(image_of(alone, 3), image_of(both, 3))
    assert exit_status("verify", alone.path, "--deep", "2") == 0


def test_a_run_that_was_interrupted_goes_on(large: Path, both: TileStore, tmp_path: Path) -> None:
    given = {**SETTINGS, "output": tmp_path, "layout": "both", **LARGE}

    def interrupted(event: Any) -> None:
        if isinstance(event, ShardWritten):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(large, RunConfig.model_validate(given), interrupted)
    store = TileStore.open(tmp_path / "large.zarr", allow_partial=True)
    assert 0 < len(store.missing_shards()) < store.shards
    made(large, tmp_path, "both", **LARGE)
    assert tree(store.path) == tree(both.path)


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("pyramid/0/c/0/2/3", 16),
        ("pyramid/1/c/0/1/1", 0),
        ("pyramid/2/c/0/0/0", 0),
        ("seals/c/0/0", 16),
        ("pyramid/1/zarr.json", 0),
        ("pyramid/labels/tissue/0/c/0/0", 0),
    ],
)
@pytest.mark.parametrize("harm", ["flip", "delete"])
def test_repair_redoes_what_is_damaged_and_nothing_else(
    large: Path, both: TileStore, tmp_path: Path, name: str, again: int, harm: str
) -> None:
    path = Path(shutil.copytree(both.path, tmp_path / "large.zarr"))
    data = (path / name).read_bytes()
    (path / name).unlink()
    if harm == "flip":
        (path / name).write_bytes(data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])
    (path / "pyramid/0/c/0/0/0").write_bytes(data)  # where there is no tissue: a foreign chunk
    assert exit_status("verify", path) == 1
    given = {**SETTINGS, "output": tmp_path, "layout": "both", **LARGE, "repair": True}
    (slide,) = run(large, RunConfig.model_validate(given)).slides
    assert slide.status in {"done", "skipped"}, slide.error
    assert slide.tiles_written == again
    assert tree(path) == tree(both.path)
    assert exit_status("verify", path) == 0


@pytest.mark.parametrize("name", ["pyramid/0/c/0/2/3", "pyramid/1/c/0/1/1", "seals/c/3/0"])
def test_a_finished_pyramid_that_lost_something_gets_it_back(
    large: Path, both: TileStore, tmp_path: Path, name: str
) -> None:
    path = Path(shutil.copytree(both.path, tmp_path / "large.zarr"))
    (path / name).unlink()
    made(large, tmp_path, "both", **LARGE)
    assert tree(path) == tree(both.path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layout": "pyramid", "overlap": 32}, "cannot overlap"),
        ({"layout": "both", "step": 200}, "cannot overlap"),
        ({"layout": "pyramid", "codec": "blosc"}, "no use for codec blosc"),
        ({"layout": "plan", "codec": "none"}, "no use for codec none"),
        ({"layout": "image"}, "layout"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], words: str) -> None:
    assert words in refusal(run_config, **settings)


# --- the whole slide


def test_the_whole_slide_has_no_holes(large: Path, both: TileStore, tmp_path: Path) -> None:
    """Tiles of tissue are as they are without it: glass is not measured."""
    whole = made(large, tmp_path, "pyramid", **LARGE, whole_slide=True)
    assert len(whole) == 8 * 6
    assert whole.meta.statistics == both.meta.statistics
    rows = {tuple(corner): row for row, corner in enumerate(whole.coords.tolist())}
    there = [rows[tuple(corner)] for corner in both.coords.tolist()]
    np.testing.assert_array_equal(np.stack([whole[row] for row in there]), both[:])
    np.testing.assert_array_equal(whole.tissue_fraction[there], both.tissue_fraction)
    glass = sorted(set(range(48)) - set(there))
    assert not whole.tissue_fraction[glass].any()
    image = image_of(whole)[:3000, :4000]
    assert (image == 255).all(axis=-1).mean() < 0.01, "glass is not pure white"
    chunks = [name for name in tree(whole.path) if name.startswith("pyramid/0/c/")]
    assert len(chunks) == 48


def test_the_whole_slide_and_a_region(slide_path: Path, tmp_path: Path) -> None:
    """What is measured, and counts as tissue, lies in the region; what is written does not."""
    ring = [[0, 0], [1024, 0], [1024, 1536], [0, 1536], [0, 0]]
    roi = tmp_path / "left.geojson"
    roi.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    inside = made(slide_path, tmp_path / "inside", "tiles", roi=roi)
    whole = made(slide_path, tmp_path / "whole", "tiles", roi=roi, whole_slide=True)
    assert len(whole) == 16 * 12 > len(inside)
    assert whole.meta.statistics == inside.meta.statistics
    assert not whole.tissue_fraction[whole.coords[:, 0] >= 1024 + 128].any()


def test_a_whole_slide_of_glass(tmp_path: Path) -> None:
    """There is nothing to measure: tiles are as they are, and it is said."""
    slide = tmp_path / "glass.png"
    noise = np.random.default_rng(1).integers(-2, 3, (512, 512, 3))
    Image.fromarray((np.array(GLASS) + noise).astype(np.uint8)).save(slide)
    store = made(slide, tmp_path, "both", whole_slide=True, default_mpp=0.5)
    assert len(store) == 16
    assert (store.flags & TileFlag.PASSED_THROUGH).all()
    assert any("no tissue" in warning for warning in store.meta.warnings)
    np.testing.assert_array_equal(image_of(store), np.asarray(Image.open(slide)))
