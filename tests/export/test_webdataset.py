"""Tar files of tiles, read back by webdataset."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from tests.builders import refusal
from tests.export.conftest import Made
from wsi_norm.export import export
from wsi_norm.store import TileStore

# webdataset leaves its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO")


def exported(store: Path, **options: Any) -> list[Path]:
    """The tar files, sorted."""
    (outcome,) = export([store], "webdataset", **options)
    assert outcome.status == "written", outcome.error
    return sorted(outcome.place.glob("*.tar"))


def samples(tars: list[Path]) -> list[dict[str, Any]]:
    data = webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False)
    return list(data.decode("rgb8"))


@pytest.mark.parametrize(("encoding", "suffix"), [("png", "png"), ("npy", "npy")])
def test_webdataset_gives_the_stores_tiles(make: Made, encoding: str, suffix: str) -> None:
    store = make("a.b", flags={3: 5})
    tars = exported(store.path, encoding=encoding)
    assert [tar.name for tar in tars] == ["a.b-000000.tar"]
    read = samples(tars)
    assert len(read) == len(store)
    for row, ((x, y), sample) in enumerate(zip(store.coords.tolist(), read, strict=True)):
        assert sample["__key__"] == f"a_b_{x}_{y}"
        np.testing.assert_array_equal(sample[suffix], store[row])
        assert sample["json"] == {
            "slide": "a.b",
            "row": row,
            "x": x,
            "y": y,
            "mpp": 0.5,
            "flags": 5 if row == 3 else 0,
            "tissue_fraction": pytest.approx(store.tissue_fraction[row], abs=1e-6),
            "model_sha256": "1" * 64,
        }


def test_jpeg_is_near(make: Made) -> None:
    store = make(tile=64)
    tile = np.full((64, 64, 3), (200, 120, 180), np.uint8)
    store.write_shard(0, np.repeat(tile[None], 4, axis=0), np.zeros(4, np.uint8))
    store.finish()
    (sample, *_) = samples(exported(store.path, encoding="jpeg", quality=95))
    assert np.abs(sample["jpg"].astype(int) - tile).max() <= 3


def test_a_tar_file_ends_once_it_is_as_large_as_asked(make: Made) -> None:
    store = make(size=(1280, 1024), tile=128, share=1)  # 80 tiles of 48 KiB
    tars = exported(store.path, encoding="npy", shard_mib=1)
    numbers = []
    for tar in tars:
        with tarfile.open(tar) as file:
            numbers.append(len(file.getnames()) // 2)
    assert sum(numbers) == 80
    assert len(tars) == 4
    assert len(set(numbers[:-1])) == 1
    assert all((1 << 20) <= tar.stat().st_size < (1 << 20) + 70_000 for tar in tars[:-1])
    assert len({sample["__key__"] for sample in samples(tars)}) == 80


def test_members_are_nobodys_and_of_no_time(make: Made) -> None:
    for tar in exported(make().path):
        with tarfile.open(tar) as file:
            whose = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in file}
    assert whose == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ({"encoding": "tiff"}, "png, jpeg, npy"),
        ({"encoding": "jpeg", "quality": 0}, "1 to 100"),
        ({"quality": 80}, "for encoding jpeg"),
        ({"shard_mib": 0}, "1 or more"),
    ],
)
def test_options_that_make_no_sense(make: Made, option: dict[str, Any], why: str) -> None:
    assert why in refusal(export, [make().path], "webdataset", **option)


def test_of_both_real_slides(real_stores: list[Path], tmp_path: Path) -> None:
    outcomes = list(export(real_stores, "webdataset", tmp_path))
    read = samples([tar for outcome in outcomes for tar in outcome.place.glob("*.tar")])
    stores = [TileStore.open(outcome.store) for outcome in outcomes]
    expected = [tile for store in stores for tile in store]
    np.testing.assert_array_equal([sample["png"] for sample in read], expected)
