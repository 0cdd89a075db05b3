"""GeoJSON: what QuPath imports, and what our own reader of regions makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.export.conftest import Made
from wsi_norm.export import export
from wsi_norm.export.geojson import tissue_outlines
from wsi_norm.geometry import Box
from wsi_norm.store import TileFlag, TileStore
from wsi_norm.tissue.regions import Polygon, placed, polygons_mask, read_geojson


def document_of(store: TileStore) -> tuple[Path, dict[str, Any]]:
    (outcome,) = export([store.path], "geojson")
    assert outcome.status == "written", outcome.error
    return outcome.place, json.loads(outcome.place.read_text(encoding="utf-8"))


def features(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [part for part in document["features"] if part["properties"]["objectType"] == kind]


def test_tiles_with_their_flags(make: Made) -> None:
    flags = {1: TileFlag.UNREADABLE, 2: TileFlag.EDGE | TileFlag.FILL}
    store = make(downsample=1.7, size=(700, 391), flags=flags)
    _, document = document_of(store)
    assert document["type"] == "FeatureCollection"
    tiles = features(document, "tile")
    assert len(tiles) == len(store)
    for (x, y), share, tile in zip(store.coords, store.tissue_fraction, tiles, strict=True):
        assert (tile["type"], tile["geometry"]["type"]) == ("Feature", "Polygon")
        (ring,) = tile["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        corners = np.array(ring[:4])
        np.testing.assert_allclose(corners.min(axis=0), (x, y), atol=0.51)
        np.testing.assert_allclose(np.ptp(corners, axis=0), 16 * 1.7, atol=0.011)
        assert tile["properties"]["measurements"]["Tissue fraction"] == pytest.approx(
            float(share), abs=1e-4
        )
    classes = [tile["properties"].get("classification", {}).get("name") for tile in tiles[:4]]
    assert classes == [None, "Unreadable", "At the edge: Mostly fill", None]
    assert tiles[2]["properties"]["measurements"]["Flag: mostly fill"] == 1


@pytest.mark.parametrize("seed", range(4))
def test_tissue_outlines_are_the_mask(make: Made, seed: int) -> None:
    """Drawn on the mask's own pixels: holes, islands in holes, corners that touch, edges."""
    mask = np.random.default_rng(seed).random((40, 50)) > (0.2, 0.4, 0.6, 0.9)[seed]
    store = make(tissue_mask=mask, mask_downsample=(6.4, 6.0))
    polygons = [
        Polygon(np.array(outline), tuple(map(np.array, holes)))
        for outline, *holes in tissue_outlines(store)
    ]
    np.testing.assert_array_equal(polygons_mask(polygons, (40, 50), (6.4, 6.0)), mask)
    _, document = document_of(store)
    tissue = features(document, "annotation")
    assert [part["geometry"]["coordinates"] for part in tissue] == tissue_outlines(store)
    assert {part["properties"]["classification"]["name"] for part in tissue} == {"Tissue"}


def test_no_tissue_is_no_outline(make: Made) -> None:
    store = make(tissue_mask=np.zeros((40, 50), bool), share=0)
    assert document_of(store)[1]["features"] == []


def test_read_back_as_regions(make: Made) -> None:
    mask = np.zeros((40, 50), bool)
    mask[3:9, 10:30] = True
    path, _ = document_of(make(tissue_mask=mask, share=0))
    regions = read_geojson(path)
    np.testing.assert_array_equal(polygons_mask(regions, (40, 50), (6.4, 6.0)), mask)
    bounds = Box(20, 30, 320, 240)
    assert placed(regions, bounds) == (regions, [])  # not counted from the bounds: it is ours
