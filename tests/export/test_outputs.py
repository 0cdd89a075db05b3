"""The lines of docs/outputs.md and docs/extending.md, run as they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.documents import snippet
from tests.export.conftest import Made, image_of
from wsi_norm.choices import EXPORTS
from wsi_norm.export import export


def ran(heading: str, page: str = "outputs.md") -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(snippet(page, heading), names)
    return names


def test_lines_that_open_exports(
    make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tile=64, size=(1280, 960))
    for to in ("ome-tiff", "png"):
        list(export([store.path], to))
    monkeypatch.chdir(tmp_path)
    expected = image_of(store, 1280, 960)
    by_openslide = ran("OpenSlide")
    assert by_openslide["levels"][0] == (1280, 960)
    assert by_openslide["mpp"] == "0.5"
    np.testing.assert_array_equal(np.asarray(by_openslide["region"]), expected[:512, :512])
    np.testing.assert_array_equal(ran("tifffile")["levels"][0], expected)
    tiles = ran("A folder of tiles")["tiles"]
    assert len(tiles) == len(store)
    for tile in tiles:
        assert tile.size == (64, 64)
        tile.close()


def test_lines_that_open_h5(make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(flags={2: 4})
    list(export([store.path], "h5", pixels=True))
    monkeypatch.chdir(tmp_path)
    found = ran("HDF5")
    np.testing.assert_array_equal(found["coords"], store.coords)
    np.testing.assert_array_equal(found["flags"], store.flags)
    np.testing.assert_array_equal(found["tile"], store[0])


@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO")  # webdataset's own files
def test_lines_that_stream_webdataset(
    make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = {name: make(name, seed=seed) for seed, name in enumerate(("first", "second"))}
    list(export([store.path for store in stores.values()], "webdataset"))
    monkeypatch.chdir(tmp_path)
    seen = set()
    for tile, facts in ran("WebDataset")["data"]:
        np.testing.assert_array_equal(tile, stores[facts["slide"]][facts["row"]])
        seen.add((facts["slide"], facts["row"]))
    assert len(seen) == sum(map(len, stores.values()))


def test_a_format_of_ones_own(make: Made) -> None:
    store = make()
    ran("An export format of one's own", "extending.md")
    try:
        (outcome,) = export([store.path], "means")
    finally:
        EXPORTS.remove("means")
    assert outcome.place.name == "case_means"
    assert (outcome.place / "3.txt").read_text() == f"{store[3].mean():.1f}\n"
