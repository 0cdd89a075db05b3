"""JPEG tiles: what zarr-python reads after one import is what Pillow decodes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from tests import dicoms
from tests.builders import create_store, store_meta
from wsi_norm import TileStore
from wsi_norm.errors import StoreError
from wsi_norm.store import codec_of
from wsi_norm.store.jpeg import NAME, JpegCodec

SIZE = 64


def tiles() -> np.ndarray:
    whole = dicoms.picture(4 * SIZE).reshape(4, SIZE, 4, SIZE, 3).swapaxes(1, 2)
    return np.ascontiguousarray(whole.reshape(-1, SIZE, SIZE, 3))


def store_of(path: Path, quality: int = 90, finish: bool = True) -> TileStore:
    meta = store_meta(codec="jpeg", lossy_quality=quality, tiling={"tile_size_px": SIZE})
    store: TileStore = create_store(path, 16, meta)
    for shard in range(store.shards):
        store.write_shard(shard, tiles()[store.rows(shard)], np.zeros(4, np.uint8))
    if finish:
        store.finish()
    return store


def by_pillow(path: Path) -> np.ndarray:
    """Tiles from the bytes of the shards alone: offset and length of each stand at the end."""
    found = []
    for shard in range(4):
        data = path.joinpath("tiles", "c", str(shard), "0", "0", "0").read_bytes()
        for offset, length in np.frombuffer(data[-4 - 16 * 4 : -4], "<u8").reshape(4, 2).tolist():
            found.append(np.asarray(Image.open(io.BytesIO(data[offset : offset + length - 4]))))
    return np.stack(found)


@pytest.mark.parametrize("quality", [50, 90])
def test_a_store_gives_what_pillow_decodes(tmp_path: Path, quality: int) -> None:
    store_of(tmp_path / "a.zarr", quality)
    store = TileStore.open(tmp_path / "a.zarr")
    expected = by_pillow(store.path)
    np.testing.assert_array_equal(store[:], expected)
    error = np.abs(expected.astype(int) - tiles()).mean()
    assert 0 < error < (3 if quality == 90 else 6)
    assert (store.meta.codec, store.meta.lossy_quality) == ("jpeg", quality)
    (codec,) = json.loads((store.path / "tiles" / "zarr.json").read_text())["codecs"]
    said = {"level": quality, "subsampling": "444"}
    assert codec["configuration"]["codecs"][0] == {"name": NAME, "configuration": said}
    assert store.damage() == []


def test_plain_zarr_needs_one_import(tmp_path: Path) -> None:
    """In a process of its own, where nothing else of this package was imported."""
    store_of(tmp_path / "a.zarr")
    read = (
        "import sys, numpy, zarr; import wsi_norm.store.jpeg; "
        "numpy.save(sys.argv[2], zarr.open_group(sys.argv[1], mode='r')['tiles'][:])"
    )
    places = [str(tmp_path / "a.zarr"), str(tmp_path / "out.npy")]
    subprocess.run([sys.executable, "-c", read, *places], check=True, timeout=60)
    np.testing.assert_array_equal(np.load(places[1]), by_pillow(tmp_path / "a.zarr"))


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    stores = [store_of(tmp_path / name / "a.zarr") for name in "ab"]
    assert len({store.meta.content_sha256 for store in stores}) == 1


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    store = store_of(tmp_path / "a.zarr")
    file = store.path / "tiles" / "c" / "2" / "0" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[300] ^= 1
    file.write_bytes(data)
    (line,) = store.damage()
    assert "the checksum is not that of tiles [8]" in line
    with pytest.raises(StoreError):
        store[8]


def test_what_a_later_decoder_adds_does_not_matter() -> None:
    """imagecodecs writes more settings than these."""
    said: dict[str, Any] = {"level": 80, "optimize": True}
    assert JpegCodec.from_dict({"name": NAME, "configuration": said}) == JpegCodec(level=80)
    assert JpegCodec.from_dict({"name": NAME}) == JpegCodec()


def test_imagecodecs_own_codec_reads_it() -> None:
    """It is there from Python 3.12 on."""
    theirs = pytest.importorskip("imagecodecs.zarr").Jpeg.from_dict(JpegCodec(level=80).to_dict())
    assert theirs.to_dict() == JpegCodec(level=80).to_dict()


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a",
        shape=(1, 16, 16, 3),
        chunks=(1, 16, 16, 3),
        dtype="uint8",
        serializer=JpegCodec(),
        compressors=None,
    )
    array[:] = 7
    chunk = tmp_path / "a" / "c" / "0" / "0" / "0" / "0"
    chunk.write_bytes(JpegCodec().encode_pixels(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"of shape \(8, 8, 3\) in a chunk of \(1, 16, 16, 3\)"):
        array[:]


def test_an_estimate_follows_the_quality() -> None:
    ratios = [codec_of("jpeg", quality).ratio for quality in (75, 90, 100)]
    assert ratios == sorted(ratios, reverse=True)
    assert codec_of("jpeg").ratio == ratios[1]
    assert codec_of("zstd", None).quality is None
