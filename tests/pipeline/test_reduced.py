"""JPEG tiles decoded at a fraction, against the mean of all their pixels and the exact way."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from skimage.registration import phase_cross_correlation

from tests.builders import CMU, TCGA, refusal
from wsi_norm import RunConfig, TileDataset, TileStore, run
from wsi_norm.config import run_config
from wsi_norm.errors import ReadError, SlideError, StoreError
from wsi_norm.geometry import Region, Tile, TileGrid
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline import SlideJob, finish, other_tiles, prepare, process_shard
from wsi_norm.pipeline.tiles import read_tiles
from wsi_norm.plan import plan_grid
from wsi_norm.slide import Slide, open_slide
from wsi_norm.slide.readers import direct
from wsi_norm.sources import SlideSource

MPP = 0.25
SUBSAMPLING = {"444": (1, 1), "420": (2, 2)}


@pytest.fixture(scope="module", params=[CMU, TCGA])
def real(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: Any) -> Path:
    """A real slide's pixels; those that are JPEG 2000 as JPEG."""
    path: Path = data_dir / request.param
    if request.param == CMU:
        return path
    with open_slide(path, table_mpp_um=MPP) as slide:
        pixels = slide.read(Region(0, 0, 0, *slide.dimensions))
    return write(tmp_path_factory.mktemp("real") / "a.tif", pixels)


def write(path: Path, pixels: np.ndarray, colours: str = "420", tile: int = 240) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            pixels,
            tile=(tile, tile),
            compression="jpeg",
            compressionargs={"level": 80},
            subsampling=SUBSAMPLING[colours],
            photometric="rgb",
            metadata=None,
            software=False,
        )
    return path


def grid_of(slide: Slide, factor: float, size: int = 128, **settings: Any) -> TileGrid:
    config = run_config(mpp=factor * slide.mpp_um, tile_size=size, **settings)
    return plan_grid(slide, config)


def whole(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A field of tiles as one picture."""
    size = tiles.shape[1]
    field = tiles.reshape(rows, columns, size, size, 3).swapaxes(1, 2)
    return field.reshape(rows * size, columns * size, 3).astype(float)


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one - other) ** 2)))


# --- the pixels


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_as_near_to_the_mean_as_the_exact_way_unshifted_and_seamless(
    real: Path, factor: int
) -> None:
    with open_slide(real, table_mpp_um=MPP) as slide:
        reduced, exact = (grid_of(slide, factor, resample=how) for how in ("auto", "exact"))
        assert (reduced.reduced, exact.reduced) == (factor, 1)
        rows, columns = (min(side, 8) - 1 for side in (reduced.rows, reduced.columns))
        tiles = [Tile(row, column) for row in range(rows) for column in range(columns)]
        found, bicubic = (
            whole(read_tiles(slide, g, tiles)[0], rows, columns) for g in (reduced, exact)
        )
        height, width = found.shape[:2]
        pixels = slide.read(Region(0, 0, 0, factor * width, factor * height))
    mean = pixels.reshape(height, factor, width, factor, 3).mean((1, 3))
    assert decibels(found, mean) > max(44, decibels(bicubic, mean))
    assert decibels(found, bicubic) > 36
    gray = found.mean(-1)
    for other in (mean, bicubic):
        shift, _, _ = phase_cross_correlation(other.mean(-1), gray, upsample_factor=200)
        assert np.abs(shift).max() < 0.05
    step = 240 // factor
    off = np.abs(found - mean).mean(-1)
    for profile in (off.mean(0), off.mean(1)):
        places = np.arange(len(profile)) % step
        border = (places == 0) | (places == step - 1)
        # At the borders of blocks, each alone, any may be a little further off: not more at tiles'.
        block = 8 // factor
        edges = (places % block == 0) | (places % block == block - 1)
        assert profile[border].mean() < 1.15 * profile[edges & ~border].mean()


@pytest.mark.parametrize("factor", [3.0, 2.5])
def test_what_is_left_of_the_way_is_resized(real: Path, factor: float) -> None:
    with open_slide(real, table_mpp_um=MPP) as slide:
        reduced, exact = (grid_of(slide, factor, resample=how) for how in ("auto", "exact"))
        assert reduced.reduced == 2
        tiles = [Tile(row, column) for row in range(3) for column in range(3)]
        found, bicubic = (whole(read_tiles(slide, g, tiles)[0], 3, 3) for g in (reduced, exact))
    assert decibels(found, bicubic) > 40
    shift, _, _ = phase_cross_correlation(bicubic.mean(-1), found.mean(-1), upsample_factor=200)
    assert np.abs(shift).max() < 0.05


@pytest.mark.parametrize("factor", [1.0, 1.9, 2.004, 2.05])
def test_where_borders_lie_between_px_all_is_read(data_dir: Path, factor: float) -> None:
    with open_slide(data_dir / CMU) as slide:
        assert grid_of(slide, factor).reduced == 1


def test_levels_come_first(slide_path: Path) -> None:
    """Downsamples 1 and 4: of the level that serves the target, what divides it."""
    with open_slide(slide_path) as slide:
        found = {f: grid_of(slide, f, 32) for f in (1, 2, 4, 8, 16)}
    assert {f: (grid.level.index, grid.reduced) for f, grid in found.items()} == {
        1: (0, 1),
        2: (0, 2),
        4: (1, 1),
        8: (1, 2),
        16: (1, 4),
    }


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
def test_other_readers_read_all(slide_path: Path, reader: str) -> None:
    with open_slide(slide_path, reader) as slide:
        assert not slide.reducible
        assert grid_of(slide, 2).reduced == 1


def test_edges_and_damage_are_those_of_the_exact_way(faulty: Path, data_dir: Path) -> None:
    path = faulty / "zeroed_tiles.svs"  # x 960-1439, y 1440-1679
    with open_slide(path) as slide, open_slide(data_dir / CMU) as sound:
        grid, exact = (grid_of(slide, 2, 120, resample=how) for how in ("auto", "exact"))
        tiles = list(grid.tiles())
        (pixels, errors), (all_read, all_errors) = (
            read_tiles(slide, g, tiles) for g in (grid, exact)
        )
        intact, _ = read_tiles(sound, grid, tiles)
    lost = {tile for tile, error in zip(tiles, errors, strict=True) if error is not None}
    assert lost == {Tile(6, 4), Tile(6, 5)}
    assert [*map(str, errors)] == [*map(str, all_errors)]
    for tile, found, good, by_exact in zip(tiles, pixels, intact, all_read, strict=True):
        if tile in lost:
            assert (found == 255).all()
        else:
            np.testing.assert_array_equal(found, good)
        same = np.array_equal(found, by_exact)
        assert same == (tile in lost or grid.touches_edge(tile) or (found == found[0, 0]).all())


def test_a_disk_that_fails_is_no_reason_to_read_otherwise(
    slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> bytes:
        raise OSError("Input/output error")

    with open_slide(slide_path) as slide:
        grid = grid_of(slide, 2)
        monkeypatch.setattr(os, "pread", failing)
        _, (error,) = read_tiles(slide, grid, [Tile(3, 3)])
    assert isinstance(error, ReadError)
    assert "Input/output error" in str(error)


def test_apart_as_here(slide_path: Path) -> None:
    with open_slide(slide_path) as here, open_slide(slide_path, apart=True) as apart:
        assert here.reducible == apart.reducible
        grid = grid_of(here, 2)
        tiles = list(grid.tiles())[:: grid.columns - 1]  # at the edge, too
        for one, other in zip(
            read_tiles(here, grid, tiles), read_tiles(apart, grid, tiles), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("colours", SUBSAMPLING)
@pytest.mark.parametrize("tile", [16, 240, 256])
def test_noise_keeps_its_means(tmp_path: Path, colours: str, tile: int) -> None:
    pixels = np.random.default_rng(0).integers(60, 200, (720, 720, 3), np.uint8)
    with open_slide(write(tmp_path / "a.tif", pixels, colours, tile), table_mpp_um=1) as slide:
        assert slide.reducible == {0: {2, 4, 8}}


@pytest.mark.parametrize("change", [lambda p: np.roll(p, 2, 1), lambda p: p // 2, lambda p: p[:-1]])
def test_what_is_no_reduced_tile_is_not_taken(
    slide_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    decode = direct.decode_jpeg
    monkeypatch.setattr(
        direct,
        "decode_jpeg",
        lambda data, **scale: change(decode(data, **scale)) if scale else decode(data),
    )
    with open_slide(slide_path) as slide:
        assert slide.reader == "direct"
        assert not any(slide.reducible.values())
        assert grid_of(slide, 2).reduced == 1


# --- the store


def job_of(slide: Path, output: Path, **settings: Any) -> SlideJob:
    given = {"tile_size": 64, "mpp": 1.0, "overlap": 32, "device": "cpu", "output": output}
    config = RunConfig.model_validate({**given, **settings})
    return SlideJob(SlideSource(slide, "s"), output / "s.zarr", config, Model())


def changed(job: SlideJob, **settings: Any) -> SlideJob:
    return replace(job, config=job.config.model_copy(update=settings))


def made(job: SlideJob) -> TileStore:
    for shard in prepare(job).missing:
        process_shard(job, shard)
    finish(job)
    return TileStore.open(job.store)


def test_the_store_says_it_and_rules(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(slide_path, tmp_path)
    store = made(job)
    assert store.meta.tiling.reduced == 2
    assert other_tiles(changed(job, resample="exact"), 20) == (20, [])
    said = refusal(prepare, changed(job, resample="exact"), kind=StoreError)
    assert "other settings (tiling.reduced: 2 != 1)" in said
    before = store[:]
    file = job.store / "tiles" / "c" / "0" / "0" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-100])
    np.testing.assert_array_equal(made(changed(job, repair=True))[:], before)
    exact = made(job_of(slide_path, tmp_path / "exact", resample="exact"))
    assert exact.meta.tiling.reduced == 1
    np.testing.assert_array_equal(exact.coords, store.coords)
    assert exact.meta.statistics != store.meta.statistics  # measured on the pixels of each
    monkeypatch.setattr(direct, "MEAN_LEVELS", -1.0)
    said = refusal(other_tiles, job, 1, kind=SlideError)
    assert "not decoded at 1/2 here" in said


def test_without_a_fraction_both_choices_are_one(slide_path: Path, tmp_path: Path) -> None:
    made(job_of(slide_path, tmp_path, mpp=0.5, tile_size=256, overlap=0))
    job = job_of(slide_path, tmp_path, mpp=0.5, tile_size=256, overlap=0, resample="exact")
    assert prepare(job).finished


def test_a_plan_gives_the_bytes_of_the_store(slide_path: Path, tmp_path: Path) -> None:
    for layout in ("plan", "tiles"):
        settings = {"tile_size": 128, "mpp": 1.0, "workers": 0, "device": "cpu", "layout": layout}
        run(slide_path, RunConfig.model_validate({**settings, "output": tmp_path / layout}))
    plan, tiles = (tmp_path / layout / f"{slide_path.stem}.zarr" for layout in ("plan", "tiles"))
    assert TileStore.open(plan).meta.tiling.reduced == 2
    stored = TileStore.open(tiles)
    for tile, expected in zip(TileDataset(plan), stored, strict=True):
        np.testing.assert_array_equal(tile.permute(1, 2, 0).numpy(), expected)
