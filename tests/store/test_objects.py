"""Which objects of a store are there, by paths alone; what arrays' dimensions are called."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from wsi_norm import RunConfig, TileStore, run
from wsi_norm.store import finished

NUMBER_OF_FILES = 15
"""Of a store with one shard, by docs/store.md: an array is an object and its zarr.json."""


@pytest.fixture(scope="module")
def whole(slide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store of several shards."""
    output = tmp_path_factory.mktemp("objects")
    config = RunConfig(output=output, workers=0, device="cpu", tile_size=512, overlap=320)
    assert run(slide_path, config).exit_status == 0
    return output / "synthetic.zarr"


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "synthetic.zarr"))


def test_a_finished_store_says_what_it_says_opened(whole: Path) -> None:
    opened = TileStore.open(whole)
    assert opened.shards > 1
    assert finished(whole) == opened.meta


def test_whatever_is_lost_it_is_not_finished(whole: Path, store: Path) -> None:
    names = [file.relative_to(store) for file in store.rglob("*") if file.is_file()]
    assert len(names) > NUMBER_OF_FILES
    for name in names:
        (store / name).unlink()
        assert finished(store) is None, name
        shutil.copy(whole / name, store / name)
    assert finished(store) is not None


@pytest.mark.parametrize("name", ["tiles/c/1/0/0/0", "flags/c/0", "coords/zarr.json", "zarr.json"])
def test_what_is_cut_is_not_whole(store: Path, name: str) -> None:
    (store / name).write_bytes((store / name).read_bytes()[:-1] if "tiles" in name else b"")
    assert finished(store) is None


@pytest.mark.parametrize("change", [{"complete": False}, {"counts": None}, {"format_version": 9}])
def test_what_does_not_call_itself_complete(store: Path, change: dict[str, object]) -> None:
    document = json.loads((store / "zarr.json").read_bytes())
    document["attributes"]["wsi_norm"] |= change
    (store / "zarr.json").write_text(json.dumps(document))
    assert finished(store) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"attributes": {}}', b'{"attributes": 3}'])
def test_what_is_no_store(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "zarr.json").write_bytes(content)
    assert finished(tmp_path) is None
    assert finished(tmp_path / "none") is None


def test_a_look_takes_less_than_5_ms(whole: Path) -> None:
    """The best of many: other work on the machine is not the store's."""

    def once() -> float:
        start = time.perf_counter()
        finished(whole)
        return time.perf_counter() - start

    assert min(once() for _ in range(50)) < 0.005


def test_a_dimensions_name_stands_for_one_length(whole: Path) -> None:
    lengths: dict[str, set[int]] = {}
    for _, array in zarr.open_group(whole, mode="r").arrays():
        for name, length in zip(array.metadata.dimension_names, array.shape, strict=True):
            lengths.setdefault(name, set()).add(length)
    assert all(len(each) == 1 for each in lengths.values()), lengths
    assert {"tile", "y", "x", "channel", "mask_y", "thumbnail_x"} < set(lengths)


def test_xarray_opens_it(whole: Path) -> None:
    xarray = pytest.importorskip("xarray")
    store = TileStore.open(whole)
    with xarray.open_zarr(whole, consolidated=False, chunks=None) as dataset:
        assert dataset.sizes["tile"] == len(store)
        np.testing.assert_array_equal(dataset["tiles"][3], store[3])
        np.testing.assert_array_equal(dataset["tissue_mask"], store.tissue_mask)


def test_a_small_store_has_no_more_files_than_zarr_asks_for(tmp_path: Path) -> None:
    from wsi_norm.synthetic import write_synthetic_slide

    slide = write_synthetic_slide(tmp_path / "a.svs", width=512, height=512, mpp_um=0.5, levels=1)
    run(slide, RunConfig(output=tmp_path, workers=0, device="cpu", report=False))
    files = [file for file in (tmp_path / "a.zarr").rglob("*") if file.is_file()]
    assert len(files) == NUMBER_OF_FILES
