"""HDF5, read as CLAM and TRIDENT read it: written here from their layouts, over OpenSlide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openslide
import pytest

from tests.builders import exit_status
from tests.export.conftest import Made
from wsi_norm import run
from wsi_norm.config import RunConfig
from wsi_norm.export import Outcome, export
from wsi_norm.store import TileStore


def exported(store: Path, to: str = "h5", **options: Any) -> Outcome:
    (outcome,) = export([store], to, **options)
    return outcome


def clam_reads(file: h5py.File, slide: openslide.AbstractSlide) -> list[np.ndarray]:
    """`patch_size` px of `patch_level`, as they are."""
    said = file["coords"].attrs
    size = (said["patch_size"],) * 2
    level = said["patch_level"]
    return [pixels(slide, place, level, size) for place in file["coords"]]


def trident_reads(file: h5py.File, slide: openslide.AbstractSlide) -> list[np.ndarray]:
    """As many px as the two magnifications say, from the level below them, resized."""
    said = file["coords"].attrs
    downsample = said["level0_magnification"] / said["target_magnification"]
    fine = [number for number in slide.level_downsamples if number <= downsample + 0.1]
    size = round(round(said["patch_size"] * downsample) / int(fine[-1]))
    read = [pixels(slide, place, len(fine) - 1, (size, size)) for place in file["coords"]]
    assert size == said["patch_size"]  # nothing to resize in these tests
    return read


def pixels(
    slide: openslide.AbstractSlide, place: np.ndarray, level: int, size: tuple[int, int]
) -> np.ndarray:
    return np.asarray(slide.read_region(tuple(place), level, size).convert("RGB"))


@pytest.mark.parametrize(("mpp", "tile", "level"), [(0.5, 256, 0), (2.0, 64, 1)])
def test_tools_that_read_the_slide_find_the_stores_tiles_there(
    slide_path: Path, tmp_path: Path, mpp: float, tile: int, level: int
) -> None:
    config = RunConfig(
        output=tmp_path, normalizer="none", mpp=mpp, tile_size=tile, workers=0, device="cpu"
    )
    (result,) = run([str(slide_path)], config).slides
    store = TileStore.open(result.store)
    outcome = exported(store.path)
    with h5py.File(outcome.place) as file, openslide.OpenSlide(slide_path) as slide:
        assert file["coords"].attrs["patch_level"] == level
        for tiles in (clam_reads(file, slide), trident_reads(file, slide)):
            np.testing.assert_array_equal(tiles, store[:])


def test_tools_that_read_the_normalised_image_find_the_stores_tiles_there(make: Made) -> None:
    store = make(size=(700, 500), tile=32, downsample=1.7, share=1)
    image = exported(store.path, "ome-tiff").place
    outcome = exported(store.path, "trident", image="pyramid")
    inside = (store.coords + 32 * 1.7 <= (700, 500)).all(axis=1)
    assert inside.sum() > 50
    with h5py.File(outcome.place) as file, openslide.OpenSlide(image) as slide:
        for tiles in (clam_reads(file, slide), trident_reads(file, slide)):
            np.testing.assert_array_equal(np.array(tiles)[inside], store[:][inside])


def test_both_tools_find_what_they_ask_for(make: Made) -> None:
    store = make(downsample=2.0)
    outcome = exported(store.path)
    assert outcome.place.name == "case.h5"
    assert exported(store.path, "trident").place.name == "case_patches.h5"
    with h5py.File(outcome.place) as file:
        said = dict(file["coords"].attrs)
        np.testing.assert_array_equal(file["coords"], store.coords)
        np.testing.assert_array_equal(file["flags"], store.flags)
        np.testing.assert_array_equal(file["tissue_fraction"], store.tissue_fraction)
        assert file["coords"].dtype == np.int64
        assert "imgs" not in file
    assert said["patch_size"] == 16
    assert said["patch_size_level0"] == 32
    assert (said["level0_magnification"], said["target_magnification"]) == (20, 10)
    assert (said["level0_width"], said["level0_height"]) == (320, 240)
    assert said["overlap"] == 0
    assert said["name"] == "case"
    for key in ("downsample", "level_dim", "downsampled_level_dim"):
        assert len(said[key]) == 2
    assert {"savetodir", "save_path"} < said.keys()


def test_between_levels_clam_is_told_of_none(make: Made) -> None:
    """It would take tiles of another size from there, without a word."""
    with h5py.File(exported(make(downsample=1.25).path).place) as file:
        said = file["coords"].attrs
        assert "patch_level" not in said
        assert said["level0_magnification"] / said["target_magnification"] == 1.25


def test_pixels(make: Made) -> None:
    """CLAM's bags of pixels: `imgs` and `coords`, row by row."""
    store = make()
    with h5py.File(exported(store.path, pixels=True).place) as file:
        assert len(file["imgs"]) == len(file["coords"]) == len(store)
        for row in (0, 7, len(store) - 1):
            np.testing.assert_array_equal(file["imgs"][row], store[row])
        assert file["imgs"].chunks == (1, 16, 16, 3)
        assert file["imgs"].attrs["wsi_name"] == "case"
        assert tuple(file["imgs"].attrs["level_dim"]) == (320, 240)


@pytest.mark.parametrize("to", ["h5", "trident", "spatialdata"])
def test_a_plan_has_places_and_no_pixels(slide_path: Path, tmp_path: Path, to: str) -> None:
    config = RunConfig(output=tmp_path, layout="plan", workers=0, device="cpu")
    (result,) = run([str(slide_path)], config).slides
    assert exported(result.store, to).status == "written"
    if to != "spatialdata":
        refused = exported(result.store, to, overwrite=True, pixels=True)
        assert "holds no pixels" in refused.error
        assert refused.place.exists()  # that of before


def test_by_command(make: Made, tmp_path: Path) -> None:
    store = make()
    command = ("export", store.path, "-q", "--to")
    assert exit_status(*command, "h5", "--pixels", "--image", "pyramid") == 0
    with h5py.File(tmp_path / "case.h5") as file:
        assert file["imgs"].shape == (len(store), 16, 16, 3)
    assert exit_status(*command, "webdataset", "--pixels") == 2
    assert exit_status(*command, "webdataset", "--encoding", "npy", "--shard-mib", 1) == 0


FULL = """
import resource, sys
from wsi_norm.export import export
for room in (50_000, 5_000, 0):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    (outcome,) = export([sys.argv[1]], "h5", pixels=True)
    print(outcome.error)
"""


def test_a_disk_that_is_full_is_one_line(make: Made, tmp_path: Path) -> None:
    """HDF5 would crash as it closes the file, or print what it thinks of it."""
    done = subprocess.run([sys.executable, "-c", FULL, make().path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    line = f"{tmp_path / 'case.h5'}: cannot write the export: File too large"
    assert done.stdout.splitlines() == [line] * 3
    assert [place.name for place in tmp_path.iterdir()] == ["case.zarr"]


def test_without_h5py_the_extra_is_named(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install 'wsi-norm[export]'" in exported(make().path).error


def test_of_both_real_slides(real_stores: list[Path], tmp_path: Path) -> None:
    images = export(real_stores, "ome-tiff", tmp_path)
    patches = export(real_stores, "trident", tmp_path, image="pyramid")
    for image, outcome in zip(images, patches, strict=True):
        store = TileStore.open(outcome.store)
        with h5py.File(outcome.place) as file, openslide.OpenSlide(image.place) as slide:
            inside = (file["coords"][:] + 256 <= slide.dimensions).all(axis=1)
            assert inside.sum() > 30
            for tiles in (clam_reads(file, slide), trident_reads(file, slide)):
                np.testing.assert_array_equal(np.array(tiles)[inside], store[:][inside])
