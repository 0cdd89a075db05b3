"""What the pyramid says of itself, read by plain zarr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.builders import tree
from tests.pyramids import CELLS, EDGE, fill, new_store, pixels
from wsi_norm import TileStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store."""
    store = new_store(tmp_path_factory.mktemp("ome") / "case.zarr", "pyramid")
    fill(store, pixels(len(CELLS)))
    store.finish()
    return Path(store.path)


def test_what_the_image_says_of_itself(whole: Path) -> None:
    group = zarr.open_group(whole / "pyramid", mode="r")
    said: Any = group.attrs["ome"]
    (image,) = said["multiscales"]
    assert said["version"] == "0.5"
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    assert [axis.get("unit") for axis in image["axes"]] == [None, "micrometer", "micrometer"]
    for level, dataset in enumerate(image["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        assert dataset["path"] == str(level)
        assert scale["scale"] == [1, 0.5 * 2**level, 0.5 * 2**level]
        assert translation["translation"] == [0, *[0.25 * (2**level - 1)] * 2]
        array: Any = group[str(level)]
        assert array.chunks == (3, EDGE, EDGE)
        assert array.metadata.dimension_names == ("c", "y", "x")
        assert array.fill_value == 255
        (codec,) = array.compressors
        assert codec.to_dict()["name"] == "zstd"
        assert array.shards is None
    windows = [channel["window"] for channel in said["omero"]["channels"]]
    assert windows == [{"min": 0, "max": 255, "start": 0, "end": 255}] * 3
    colours = [channel["color"] for channel in said["omero"]["channels"]]
    assert colours == ["FF0000", "00FF00", "0000FF"]


def test_labels_are_the_mask_and_the_tiles(whole: Path) -> None:
    """Their pixels lie where the image's are: the mask's span 16 x 15 px of the slide here."""
    group: Any = zarr.open_group(whole / "pyramid" / "labels", mode="r")
    assert group.attrs["ome"]["labels"] == ["tissue", "tiles"]
    np.testing.assert_array_equal(group["tissue/0"][:], TileStore.open(whole).tissue_mask)
    numbers = group["tiles/0"][:]
    assert numbers.shape == (8, 10)
    assert [numbers[cell] for cell in CELLS] == [*range(1, len(CELLS) + 1)]
    assert np.count_nonzero(numbers) == len(CELLS)
    for name, (height, width) in {"tissue": (7.5, 8.0), "tiles": (8.0, 8.0)}.items():
        (image,) = group[name].attrs["ome"]["multiscales"]
        scale, translation = image["datasets"][0]["coordinateTransformations"]
        assert scale["scale"] == [height, width]
        assert translation["translation"] == [(height - 0.5) / 2, (width - 0.5) / 2]
        assert len(image["datasets"]) == 5  # as many as the image has: the format asks for it


def test_nothing_of_the_machine_stands_in_it(whole: Path) -> None:
    for name, data in tree(whole).items():
        if name.endswith("zarr.json"):
            assert str(whole.parent) not in json.dumps(json.loads(data)), name
