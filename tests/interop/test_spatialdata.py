"""Tiles of both real slides, opened by wsidata and drawn by LazySlide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.documents import snippet
from wsi_norm import TileStore
from wsi_norm.export import export

OPENED = """
import os, warnings
import numpy as np
os.chdir(arguments[0])
warnings.simplefilter("error", UserWarning)
{snippet}
spec = wsi.tile_spec("tiles")
if len(arguments) > 1:
    np.save(arguments[1], np.array([tile.image for tile in wsi.iter.tile_images("tiles")]))
print(json.dumps({{
    "coords": tiles[["x", "y"]].values.tolist(),
    "tissue_ids": sorted(set(tiles["tissue_id"])),
    "tissues": wsi["tissues"]["tissue_id"].tolist(),
    "width": spec.base_width, "mpp": [spec.mpp, wsi.properties.mpp],
}}))
"""
DRAWN = """
import os
os.chdir(arguments[0])
import matplotlib
matplotlib.use("Agg")
import lazyslide
{snippet}
lazyslide.pl.tiles(wsi, color="tissue_fraction")
print(len(matplotlib.pyplot.gcf().axes))
"""


def test_wsidata_opens_the_slide_with_our_tiles(
    real_stores: list[Path], real_slides: list[Path], other: Callable[..., Any], tmp_path: Path
) -> None:
    code = OPENED.format(snippet=snippet("outputs.md", "LazySlide, SpatialData"))
    for outcome, slide in zip(
        export(real_stores, "spatialdata", tmp_path), real_slides, strict=True
    ):
        folder = laid_out(tmp_path / slide.stem, slide, outcome.place)
        said = other(code, folder, needs="wsidata")
        store = TileStore.open(outcome.store)
        assert said["coords"] == store.coords.tolist()
        tiling = store.meta.tiling
        assert abs(said["width"] - tiling.tile_size_px * tiling.downsample) < 1
        assert said["mpp"] == [0.5, store.meta.slide.mpp_um]
        assert set(said["tissue_ids"]) <= {-1, *said["tissues"]}


def test_wsidata_reads_the_normalised_tiles_from_the_ome_tiff(
    real_stores: list[Path], other: Callable[..., Any], tmp_path: Path
) -> None:
    code = OPENED.format(snippet=snippet("outputs.md", "LazySlide, SpatialData"))
    code = code.replace("case.svs", "case.ome.tiff")
    images = export(real_stores, "ome-tiff", tmp_path)
    shapes = export(real_stores, "spatialdata", tmp_path, image="pyramid")
    for image, outcome in zip(images, shapes, strict=True):
        store = TileStore.open(outcome.store)
        folder = laid_out(tmp_path / image.place.stem, image.place, outcome.place)
        said = other(code, folder, folder / "tiles.npy", needs="wsidata")
        assert said["mpp"] == [0.5, 0.5]
        slide, tiling = store.meta.slide, store.meta.tiling
        ends = store.coords + tiling.tile_size_px * tiling.downsample
        inside = (ends <= (slide.width_px, slide.height_px)).all(axis=1)
        assert inside.sum() > 30
        np.testing.assert_array_equal(np.load(folder / "tiles.npy")[inside], store[:][inside])


def test_lazyslide_draws_the_tiles(
    real_stores: list[Path], real_slides: list[Path], other: Callable[..., Any], tmp_path: Path
) -> None:
    (outcome,) = export(real_stores[:1], "spatialdata", tmp_path)
    folder = laid_out(tmp_path / "drawn", real_slides[0], outcome.place)
    code = DRAWN.format(snippet=snippet("outputs.md", "LazySlide, SpatialData"))
    assert other(code, folder, needs="lazyslide") > 0


def laid_out(folder: Path, slide: Path, shapes: Path) -> Path:
    """A folder with both under the names in the documentation."""
    folder.mkdir()
    suffix = ".ome.tiff" if slide.name.endswith(".ome.tiff") else ".svs"
    (folder / f"case{suffix}").symlink_to(slide)
    (folder / "case.spatialdata").symlink_to(shapes)
    return folder
