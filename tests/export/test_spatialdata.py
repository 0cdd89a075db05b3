"""Shapes of tiles and tissue, read back by geopandas. (By SpatialData's readers: tests/interop.)"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from shapely.geometry import box

from tests.export.conftest import Made
from wsi_norm.export import export

MASK = np.zeros((24, 32), bool)  # of px of 10 x 10 on a slide of 320 x 240
MASK[2:10, 2:12] = True
MASK[4:6, 4:6] = False
MASK[14:22, 20:30] = True


def exported(store: Path, **options: Any) -> Path:
    (outcome,) = export([store], "spatialdata", **options)
    assert outcome.status == "written", outcome.error
    return outcome.place


def shapes(place: Path, name: str) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(place / "shapes" / name / "shapes.parquet")


def attributes(place: Path) -> dict[str, Any]:
    return json.loads((place / "zarr.json").read_bytes())["attributes"]


def test_tiles_are_boxes_in_px_of_the_slide(make: Made) -> None:
    store = make(downsample=1.25, tissue_mask=MASK)
    tiles = shapes(exported(store.path), "tiles")
    assert tiles["tile_id"].tolist() == list(range(len(store)))
    np.testing.assert_array_equal(tiles[["x", "y"]], store.coords)
    np.testing.assert_array_equal(tiles["flags"], store.flags)
    np.testing.assert_array_equal(tiles["tissue_fraction"], store.tissue_fraction)
    for (x, y), outline in zip(store.coords.tolist(), tiles.geometry, strict=True):
        assert outline.equals(box(x, y, x + 20, y + 20))


def test_tissue_is_in_pieces_and_each_tile_is_on_one(make: Made) -> None:
    store = make(tile=20, share=1, tissue_mask=MASK)
    place = exported(store.path)
    tissues = shapes(place, "tissues")
    assert tissues["tissue_id"].tolist() == [0, 1]
    # Outlines cut corners: an eighth of a px each.
    np.testing.assert_allclose(tissues.area / 100, [80 - 4, 80 - 4 / 8])
    assert len(tissues.geometry[0].interiors) == 1
    expected = []
    for x, y in store.coords.tolist():
        areas = tissues.intersection(box(x, y, x + 20, y + 20)).area
        expected.append(int(areas.argmax()) if areas.max() > 50 else -1)
    assert set(expected) == {-1, 0, 1}
    assert shapes(place, "tiles")["tissue_id"].tolist() == expected


def test_on_the_pyramid_everything_has_its_scale(make: Made) -> None:
    store = make(downsample=2.0, tissue_mask=MASK)
    on_slide = exported(store.path)
    on_pyramid = exported(store.path, output=store.path.parent / "pyramid", image="pyramid")
    for name in ("tiles", "tissues"):
        slide, pyramid = shapes(on_slide, name), shapes(on_pyramid, name)
        np.testing.assert_allclose(slide.bounds / 2, pyramid.bounds)
    tiles = [shapes(place, "tiles") for place in (on_slide, on_pyramid)]
    assert tiles[0]["tissue_id"].tolist() == tiles[1]["tissue_id"].tolist()
    said = attributes(on_pyramid)
    assert said["slide_properties"] == {"mpp": 1.0}
    assert said["tile_spec"]["tiles"]["base_downsample"] == 1


def test_how_to_read_the_tiles_is_said(make: Made) -> None:
    said = attributes(exported(make(downsample=1.25, overlap=4, tissue_mask=MASK).path))
    spec = said["tile_spec"]["tiles"]
    assert (spec["width"], spec["height"], spec["stride_width"]) == (16, 16, 12)
    assert (spec["ops_level"], spec["ops_downsample"], spec["base_downsample"]) == (0, 1.25, 1.25)
    assert (spec["mpp"], said["slide_properties"]["mpp"]) == (0.625, 0.5)


def test_without_geopandas_the_extra_is_named(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geopandas", None)
    (outcome,) = export([make().path], "spatialdata")
    assert "pip install 'wsi-norm[export]'" in outcome.error
