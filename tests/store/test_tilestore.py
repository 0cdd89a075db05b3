"""TileStore against an in-memory model, plain zarr-python and the bytes on disk."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.builders import TILE_SIZE, create_store, store_meta, tree
from wsi_norm.errors import StoreError
from wsi_norm.location import draft_of
from wsi_norm.store import (
    TileFlag,
    TileStore,
    encoding,
    tiles_per_shard,
)
from wsi_norm.store.shards import Shards

SIZE, PER_SHARD = TILE_SIZE, 4
MASK_DOWNSAMPLE = (16.0, 15.0)


def make_store(path: Path, number: int, codec: str = "zstd", per_shard: int = PER_SHARD) -> Any:
    meta = store_meta(codec=codec, tiling={"tiles_per_shard": per_shard})
    return create_store(path, number, meta, mask_downsample=MASK_DOWNSAMPLE)


def content(store: TileStore, shard: int, seed: int) -> tuple[Any, Any]:
    """Random tiles and flags for a shard; some tiles all white, as the fill value is."""
    rows = store.rows(shard)
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 256, (rows.stop - rows.start, SIZE, SIZE, 3), np.uint8)
    tiles[rng.random(len(tiles)) < 0.3] = 255
    return tiles, rng.integers(0, 8, len(tiles)).astype(np.uint8)


def fill(store: TileStore) -> None:
    for shard in range(store.shards):
        store.write_shard(shard, *content(store, shard, shard))


def tile_object(path: Path, shard: int) -> Path:
    return path / "tiles" / "c" / str(shard) / "0" / "0" / "0"


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)


# --- the store and its model


class StoreAndModel(RuleBasedStateMachine):
    """Shards are written in any order, lost, cut and corrupted; the store tells the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "case.zarr"
        self.whole: dict[int, tuple[Any, Any]] = {}
        self.rotten: set[int] = set()
        self.litter = False
        self.complete = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(
        number=st.integers(0, 11),
        per_shard=st.sampled_from([1, 2, 4]),
        codec=st.sampled_from(["zstd", "zstd", "blosc", "none"]),
    )
    def create(self, number: int, per_shard: int, codec: str) -> None:
        self.per_shard = per_shard
        self.shards = [
            range(start, min(start + per_shard, number)) for start in range(0, number, per_shard)
        ]
        self.store = make_store(self.path, number, codec, per_shard)

    def pick(self, data: st.DataObject, among: Any) -> int:
        return int(data.draw(st.sampled_from(sorted(among))))

    @precondition(lambda self: self.shards and not self.complete)
    @rule(data=st.data(), seed=st.integers(0, 99))
    def write(self, data: st.DataObject, seed: int) -> None:
        shard = self.pick(data, range(len(self.shards)))
        tiles, flags = content(self.store, shard, seed)
        assert len(tiles) == len(self.shards[shard])
        self.store.write_shard(shard, tiles, flags)
        self.whole[shard] = tiles, flags
        self.rotten.discard(shard)

    @precondition(lambda self: self.shards and not self.complete)
    @rule(seed=st.integers(0, 99))
    def write_what_is_missing(self, seed: int) -> None:
        for shard in self.store.missing_shards():
            self.whole[shard] = content(self.store, shard, seed)
            self.store.write_shard(shard, *self.whole[shard])
            self.rotten.discard(shard)

    @precondition(lambda self: self.whole)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        shard = self.pick(data, self.whole)
        tile_object(self.path, shard).unlink()
        del self.whole[shard]
        self.rotten.discard(shard)

    @precondition(lambda self: self.whole)
    @rule(data=st.data(), share=st.one_of(st.just(0.0), st.floats(0, 0.999)))
    def cut(self, data: st.DataObject, share: float) -> None:
        shard = self.pick(data, self.whole)
        file = tile_object(self.path, shard)
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
        del self.whole[shard]
        self.rotten.discard(shard)

    @precondition(lambda self: self.whole)
    @rule(data=st.data())
    def corrupt_end(self, data: st.DataObject) -> None:
        shard = self.pick(data, self.whole)
        end = (16 + 4) * self.per_shard + 32 + 4
        flip(tile_object(self.path, shard), -data.draw(st.integers(1, end)))
        del self.whole[shard]

    @precondition(lambda self: self.whole)
    @rule(data=st.data())
    def lose_flags(self, data: st.DataObject) -> None:
        shard = self.pick(data, self.whole)
        (self.path / "flags" / "c" / str(shard)).unlink()
        del self.whole[shard]
        self.rotten.discard(shard)

    @precondition(lambda self: self.whole)
    @rule(data=st.data())
    def corrupt_tile(self, data: st.DataObject) -> None:
        shard = self.pick(data, self.whole)
        file = tile_object(self.path, shard)
        end = (16 + 4) * self.per_shard + 32 + 4  # index, checksums, digest, the index's checksum
        if shard not in self.rotten:
            flip(file, data.draw(st.integers(0, file.stat().st_size - end - 1)))
        self.rotten.add(shard)

    @precondition(lambda self: self.shards)
    @rule(data=st.data())
    def kill_a_writer(self, data: st.DataObject) -> None:
        shard = self.pick(data, range(len(self.shards)))
        file = tile_object(self.path, shard)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".0123abcd.partial").write_bytes(b"half a shard")
        self.litter = True

    @rule()
    def sweep(self) -> None:
        self.store.sweep()
        self.litter = False

    @rule()
    def reopen(self) -> None:
        self.store = TileStore.open(self.path, allow_partial=True)
        assert self.store.meta.complete is self.complete
        if self.complete:
            assert len(TileStore.open(self.path)) == len(self.store)
        else:
            words = rf"incomplete \({len(self.whole)} of {len(self.shards)} shards\)"
            with pytest.raises(StoreError, match=words):
                TileStore.open(self.path)

    @precondition(lambda self: not self.complete)
    @rule()
    def finish(self) -> None:
        missing = [shard for shard in range(len(self.shards)) if shard not in self.whole]
        if missing:
            with pytest.raises(StoreError, match="missing") as caught:
                self.store.finish()
            assert str(missing) in str(caught.value)
            assert not self.store.meta.complete
            return
        counts = self.store.finish().counts
        flags = np.concatenate([flags for _, flags in self.ordered()] or [np.zeros(0, np.uint8)])
        assert counts is not None
        bits = {"unreadable": 1, "passed_through": 2, "edge": 4, "fill": 8, "left_out": 16}
        per_flag = {key: sum(int(flag) & bit != 0 for flag in flags) for key, bit in bits.items()}
        assert counts == {"tiles": len(flags), **per_flag}
        self.complete, self.litter = True, False

    def ordered(self) -> list[tuple[Any, Any]]:
        return [self.whole[shard] for shard in sorted(self.whole)]

    @invariant()
    def it_knows_its_shards(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.shards == len(self.shards)
        missing = [shard for shard in range(len(self.shards)) if shard not in self.whole]
        assert self.store.missing_shards() == missing
        assert any(self.path.rglob("*.partial")) is self.litter

    @invariant()
    def damage_names_what_is_damaged(self) -> None:
        if not hasattr(self, "store"):
            return
        bad = {shard for shard in range(len(self.shards)) if shard not in self.whole} | self.rotten
        lines = self.store.damage()
        named = {int(line.split()[1]) for line in lines if line.startswith("shard ")}
        assert named == bad
        assert len(lines) == len(bad)

    @invariant()
    def whole_shards_hold_what_was_written(self) -> None:
        for shard, (tiles, flags) in self.whole.items():
            rows = slice(self.shards[shard].start, self.shards[shard].stop)
            assert self.store.rows(shard) == rows
            np.testing.assert_array_equal(self.store.flags[rows], flags)
            if shard not in self.rotten:
                np.testing.assert_array_equal(self.store[rows], tiles)


StoreAndModel.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking would take minutes of disk
)
TestStoreAndModel = StoreAndModel.TestCase


# --- layout


@pytest.mark.parametrize("codec", ["zstd", "blosc", "none"])
def test_plain_zarr_reads_it(tmp_path: Path, codec: str) -> None:
    store = make_store(tmp_path / "case.zarr", 10, codec)
    fill(store)
    store.finish()
    group = zarr.open_group(tmp_path / "case.zarr", mode="r")
    parts = [content(store, shard, shard) for shard in range(3)]
    np.testing.assert_array_equal(group["tiles"][:], np.concatenate([p[0] for p in parts]))
    np.testing.assert_array_equal(group["flags"][:], np.concatenate([p[1] for p in parts]))
    np.testing.assert_array_equal(group["coords"][:], np.arange(20).reshape(10, 2) * SIZE)
    np.testing.assert_array_equal(store[:], group["tiles"][:])
    np.testing.assert_array_equal(store.flags, group["flags"][:])
    for name in (
        "coords",
        "tissue_fraction",
        "tissue_mask",
        "thumbnail",
        "thumbnail_normalized",
    ):
        np.testing.assert_array_equal(getattr(store, name), group[name][:])


LAYOUT: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], tuple[str, ...]]] = {
    # name: dtype, shape, one object on disk, dimensions
    "tiles": ("uint8", (10, 16, 16, 3), (4, 16, 16, 3), ("tile", "y", "x", "channel")),
    "coords": ("int64", (10, 2), (10, 2), ("tile", "xy")),
    "tissue_fraction": ("float32", (10,), (10,), ("tile",)),
    "flags": ("uint8", (10,), (4,), ("tile",)),
    "tissue_mask": ("bool", (16, 20), (16, 20), ("mask_y", "mask_x")),
    "thumbnail": ("uint8", (24, 32, 3), (24, 32, 3), ("thumbnail_y", "thumbnail_x", "channel")),
    "thumbnail_normalized": (
        "uint8",
        (24, 32, 3),
        (24, 32, 3),
        ("thumbnail_y", "thumbnail_x", "channel"),
    ),
}


def test_layout(tmp_path: Path) -> None:
    make_store(tmp_path / "case.zarr", 10)
    group = zarr.open_group(tmp_path / "case.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    assert sorted(group.keys()) == sorted(LAYOUT)
    for name, (dtype, shape, unit, dimensions) in LAYOUT.items():
        array = group[name]
        assert array.dtype == np.dtype(dtype), name
        assert array.shape == shape, name
        assert (array.shards or array.chunks) == unit, name
        assert array.metadata.dimension_names == dimensions, name
    assert group["tiles"].chunks == (1, 16, 16, 3)
    assert group["tiles"].fill_value == 255


def test_attributes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    fill(store)
    store.finish()
    group = zarr.open_group(tmp_path / "case.zarr", mode="r")
    assert set(group.attrs) == {"wsi_norm"}
    stated = group.attrs["wsi_norm"]
    assert stated["format_version"] == 1
    assert stated["complete"] is True
    assert stated["tiling"]["tiles_per_shard"] == PER_SHARD
    assert stated["slide"]["file_name"] == "case.svs"
    bits = {"UNREADABLE": 1, "PASSED_THROUGH": 2, "EDGE": 4, "FILL": 8, "LEFT_OUT": 16}
    assert dict(group["flags"].attrs) == {"bits": bits}
    assert dict(group["tissue_mask"].attrs) == {"downsample": list(MASK_DOWNSAMPLE)}
    assert dict(group["thumbnail"].attrs) == {"downsample": [10.0, 10.0]}
    assert dict(group["thumbnail_normalized"].attrs) == {"downsample": [10.0, 10.0]}


@pytest.mark.parametrize(("codec", "expected"), [("zstd", "zstd"), ("blosc", "blosc")])
def test_tiles_are_compressed_as_asked(tmp_path: Path, codec: str, expected: str) -> None:
    make_store(tmp_path / "case.zarr", 1, codec)
    document = json.loads((tmp_path / "case.zarr" / "tiles" / "zarr.json").read_text())
    (sharding,) = document["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert expected in [codec["name"] for codec in sharding["configuration"]["codecs"]]


def test_codec_none_stores_plain_pixels(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 4, "none")
    tiles, flags = content(store, 0, 0)
    store.write_shard(0, tiles, flags)
    assert tiles[0].tobytes() in tile_object(tmp_path / "case.zarr", 0).read_bytes()


def test_one_object_per_shard(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    before = tree(store.path)
    store.write_shard(1, *content(store, 1, 0))
    assert tree(store.path).keys() - before.keys() == {"tiles/c/1/0/0/0", "flags/c/1"}
    fill(store)
    objects = {name for name in tree(store.path) if name.startswith("tiles/c/")}
    assert objects == {f"tiles/c/{shard}/0/0/0" for shard in range(3)}


def test_shards_hold_whole_tiles_of_about_16_mib() -> None:
    for size in (16, 64, 224, 256, 512, 1024, 2048, 4096, 8192):
        tile = 3 * size**2
        fitting = [2**k for k in range(16) if 2**k * tile <= 16 * 2**20]
        assert tiles_per_shard(size) == max(fitting, default=1)
    assert tiles_per_shard(256) == 64


# --- content


def test_all_white_tiles_are_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 6)
    for reopened in (store, TileStore.open(store.path, allow_partial=True)):
        for shard in range(2):
            rows = reopened.rows(shard)
            tiles = np.full((rows.stop - rows.start, SIZE, SIZE, 3), 255, np.uint8)
            reopened.write_shard(shard, tiles, np.zeros(len(tiles), np.uint8))
            assert tile_object(store.path, shard).stat().st_size > 0
            assert (store.path / "flags" / "c" / str(shard)).exists()
        assert reopened.missing_shards() == []
        assert reopened.damage() == []
        for shard in range(2):
            tile_object(store.path, shard).unlink()
            (store.path / "flags" / "c" / str(shard)).unlink()


def test_no_tiles(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 0)
    assert (len(store), store.shards, store.missing_shards()) == (0, 0, [])
    counts = store.finish().counts
    assert counts == {
        "tiles": 0,
        "unreadable": 0,
        "passed_through": 0,
        "edge": 0,
        "fill": 0,
        "left_out": 0,
    }
    reopened = TileStore.open(store.path)
    assert list(reopened) == []
    assert reopened[:].shape == (0, SIZE, SIZE, 3)
    assert reopened.coords.shape == (0, 2)
    assert reopened.damage() == []
    assert zarr.open_group(store.path, mode="r")["tiles"].shape == (0, SIZE, SIZE, 3)
    with pytest.raises(IndexError):
        reopened[0]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    one = make_store(tmp_path / "one" / "case.zarr", 10)
    fill(one)
    one.finish()
    other = make_store(tmp_path / "two" / "other.zarr", 10)
    other.write_shard(1, *content(other, 1, 99))
    for shard in (2, 0, 1):
        other = TileStore.open(other.path, allow_partial=True)
        other.write_shard(shard, *content(other, shard, shard))
    other.finish()
    assert tree(one.path) == tree(other.path)


def test_nothing_of_the_machine_or_the_clock_is_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    fill(store)
    store.finish()
    documents = b"".join(
        data for name, data in tree(store.path).items() if name.endswith("zarr.json")
    )
    for secret in (str(tmp_path), tmp_path.name, str(Path.home()), "tmp"):
        assert secret.encode() not in documents


def test_indexing(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    fill(store)
    tiles = np.concatenate([content(store, shard, shard)[0] for shard in range(3)])
    for index in (0, 3, 4, 9, -1, -10, np.int64(5)):
        np.testing.assert_array_equal(store[index], tiles[index])
    for part in (slice(2, 7), slice(8, 100), slice(-3, None), slice(5, 5), slice(None)):
        np.testing.assert_array_equal(store[part], tiles[part])
    for index in (10, -11, np.int64(10)):
        with pytest.raises(IndexError):
            store[index]
    np.testing.assert_array_equal(np.stack(list(store)), tiles)


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    tiles, flags = content(store, 0, 0)
    for shard, wrong in ((2, tiles), (0, tiles[:2]), (0, tiles[:, :8]), (0, tiles[..., :1])):
        with pytest.raises(ValueError, match="shard"):
            store.write_shard(shard, wrong, flags)
    for wrong in (flags[:2], flags[:, None], np.uint8(0)):
        with pytest.raises(ValueError, match=r"shard 0 .* flags"):
            store.write_shard(0, tiles, wrong)
    assert store.missing_shards() == [0, 1, 2]


# --- damage


def finished(path: Path, codec: str = "zstd") -> TileStore:
    store = make_store(path, 10, codec)
    fill(store)
    store.finish()
    return TileStore.open(path)


@pytest.mark.parametrize("codec", ["zstd", "blosc", "none"])
def test_a_changed_pixel_byte_is_damage(tmp_path: Path, codec: str) -> None:
    store = finished(tmp_path / "case.zarr", codec)
    assert store.damage() == []
    file = tile_object(store.path, 1)
    flip(file, (file.stat().st_size - 16 * PER_SHARD - 4) // 2)
    (line,) = store.damage()
    assert line.startswith("shard 1 (tiles 4-7): ")


@pytest.mark.parametrize("name", ["coords", "tissue_fraction", "tissue_mask", "thumbnail"])
def test_damage_beside_the_tiles(tmp_path: Path, name: str) -> None:
    store = finished(tmp_path / "case.zarr")
    (file,) = (f for f in (store.path / name / "c").rglob("*") if f.is_file())
    flip(file, file.stat().st_size // 2)
    (line,) = store.damage()
    assert line.startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["coords", "tissue_fraction", "tissue_mask", "thumbnail"])
def test_a_lost_object_beside_the_tiles_is_damage(tmp_path: Path, name: str) -> None:
    store = finished(tmp_path / "case.zarr")
    shutil.rmtree(store.path / name / "c")
    assert any(line.startswith(f"{name}: ") for line in store.damage())
    with pytest.raises(StoreError, match=f"{name}: missing"):
        TileStore.open(store.path)


@pytest.mark.parametrize("change", ["lost", "emptied"])
def test_flags_that_did_not_reach_the_disk(tmp_path: Path, change: str) -> None:
    store = finished(tmp_path / "case.zarr")
    file = store.path / "flags" / "c" / "1"
    file.unlink() if change == "lost" else file.write_bytes(b"")
    lines = store.damage()
    assert lines
    assert all(line.startswith(("shard 1 (tiles 4-7): ", "flags: ")) for line in lines)


@pytest.mark.parametrize("change", ["lost", "emptied"])
def test_a_store_without_its_flags_does_not_become_complete(tmp_path: Path, change: str) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    fill(store)
    file = store.path / "flags" / "c" / "1"
    file.unlink() if change == "lost" else file.write_bytes(b"")
    assert store.missing_shards() == [1]
    with pytest.raises(StoreError, match=r"\[1\]"):
        store.finish()
    store.write_shard(1, *content(store, 1, 1))
    store.finish()


@pytest.mark.parametrize("codec", ["zstd", "blosc", "none"])
def test_reading_damaged_bytes_names_store_and_array(tmp_path: Path, codec: str) -> None:
    store = finished(tmp_path / "case.zarr", codec)
    for name in ("tiles", "flags", "coords", "tissue_fraction", "tissue_mask", "thumbnail"):
        for file in (store.path / name / "c").rglob("*"):
            if file.is_file():
                flip(file, 0)
    read: dict[str, Callable[[], Any]] = {
        "tiles": lambda: store[0],
        "flags": lambda: store.flags,
        "coords": lambda: store.coords,
        "tissue_fraction": lambda: store.tissue_fraction,
        "tissue_mask": lambda: store.tissue_mask,
        "thumbnail": lambda: store.thumbnail,
    }
    for read_also in (lambda: store[-2], lambda: store[2:9], lambda: list(store)):
        with pytest.raises(StoreError, match=f"{store.path}: tiles: .*checksum"):
            read_also()
    for name, it in read.items():
        with pytest.raises(StoreError, match=f"{store.path}: {name}: .*checksum"):
            it()
    with pytest.raises(StoreError, match=f"{store.path}: flags: "):
        store.count()
    for unreadable_too in (False, True):  # flags are bound to their shard
        assert store.missing_shards(unreadable_too) == [0, 1, 2]


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("damage") / "case.zarr").path


CHANGES: dict[str, Callable[[bytes, int, int], bytes]] = {
    "a byte changed": lambda data, at, bits: data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :],
    "a byte lost": lambda data, at, _: data[:at] + data[at + 1 :],
    "cut": lambda data, at, _: data[:at],
    "other JSON": lambda _, at, __: [b"null", b"[]", b"{}", b"0", b'"x"', b"\xff\xfe"][at % 6],
}


@given(data=st.data(), change=st.sampled_from(sorted(CHANGES)), bits=st.sampled_from([1, 16, 32]))
@settings(max_examples=150, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_whatever_is_damaged_it_is_said_in_a_line(
    one_store: Path, data: st.DataObject, change: str, bits: int
) -> None:
    """In any file of a store; but white space that JSON does not see, in the group's."""
    file = one_store / data.draw(st.sampled_from(sorted(tree(one_store))))
    whole = file.read_bytes()
    changed = CHANGES[change](whole, data.draw(st.integers(0, len(whole) - 1)), bits)
    said = f"{one_store}: damage"
    try:
        file.write_bytes(changed)
        store = TileStore.open(one_store, allow_partial=True)
        store.missing_shards(unreadable_too=True)
        assert store.damage() or json.loads(changed) == json.loads(whole)
    except StoreError as error:
        said = str(error)
    finally:
        file.write_bytes(whole)
    assert said.startswith(f"{one_store}: ")
    assert "\n" not in said


@pytest.mark.parametrize("name", ["tiles", "flags", "coords", "thumbnail"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", None),
        ("shape", ["x"]),
        ("data_type", "uint9"),
        ("fill_value", 2**70),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk": [1]}}),
        ("codecs", []),
        ("codecs", [{"name": "no such codec"}]),
        ("codecs", 5),
        ("zarr_format", 4),
        ("more", {"must_understand": True}),
    ],
)
def test_damaged_metadata_of_an_array_name_it(
    tmp_path: Path, name: str, key: str, value: Any
) -> None:
    path = finished(tmp_path / "case.zarr").path
    file = path / name / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), key: value}))
    with pytest.raises(StoreError, match=f"{path}: {name}: .*; run the same .* --repair"):
        TileStore.open(path)


def test_tiles_of_no_size(tmp_path: Path) -> None:
    """zarr divides by them."""
    path = finished(tmp_path / "case.zarr").path
    file = path / "tiles" / "zarr.json"
    document = json.loads(file.read_bytes())
    document["codecs"][0]["configuration"]["chunk_shape"] = [0, SIZE, SIZE, 3]
    file.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=f"{path}: tiles: "):
        TileStore.open(path)


@pytest.mark.parametrize("bug", [TypeError, IndexError, KeyError, AttributeError, AssertionError])
def test_a_bug_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: type[Exception]
) -> None:
    store = finished(tmp_path / "case.zarr")

    def wrong(*_: Any) -> Any:
        raise bug("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__getitem__", wrong)
        for use in (
            store.damage,
            store.count,
            lambda: store[0],
            lambda: store.missing_shards(unreadable_too=True),
        ):
            with pytest.raises(bug, match="a bug"):
                use()
    monkeypatch.setattr(Shards, "digests", wrong)
    with pytest.raises(bug, match="a bug"):
        store.damage()


@pytest.mark.parametrize("index", ["0", 1.0, None])
def test_what_is_no_index_is_no_damage(tmp_path: Path, index: Any) -> None:
    with pytest.raises((IndexError, TypeError)):
        finished(tmp_path / "case.zarr")[index]


def test_a_damaged_shard_is_written_again(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    fill(store)
    for shard in range(3):
        file = tile_object(store.path, shard)
        file.write_bytes(file.read_bytes()[:50])
        assert not store.has_shard(shard)
        store.write_shard(shard, *content(store, shard, shard))
    assert store.damage() == []
    store.finish()


def test_an_index_without_its_data_is_no_shard(tmp_path: Path) -> None:
    store = finished(tmp_path / "case.zarr")
    file = tile_object(store.path, 1)
    file.write_bytes(file.read_bytes()[-(16 * PER_SHARD + 4) - 100 :])
    assert not store.has_shard(1)
    assert store.missing_shards() == [1]


def test_a_shard_of_which_a_tile_is_missing_is_no_shard(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    group = zarr.open_group(store.path, mode="r+")
    group["flags"][4:8] = 4
    group["tiles"][4:7] = content(store, 1, 1)[0][:3]
    assert tile_object(store.path, 1).exists()
    assert not store.has_shard(1)
    store.write_shard(1, *content(store, 1, 1))
    assert store.missing_shards() == [0, 2]


def test_new_flags_do_not_make_old_tiles_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    fill(store)
    (store.path / "flags" / "c" / "1").unlink()

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoding, "encode_tiles", full_disk)
    with pytest.raises(StoreError, match=r"cannot write shard 1: .* No space left"):
        store.write_shard(1, *content(store, 1, 99))
    assert (store.path / "flags" / "c" / "1").exists()
    assert store.missing_shards() == [1]
    assert not list(store.path.rglob("*.partial"))


def test_old_tiles_never_stand_beside_new_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard is written again because a tile was unreadable, and the writer dies half way."""
    store = make_store(tmp_path / "case.zarr", 10)
    fill(store)
    tiles, flags = content(store, 1, 1)
    store.write_shard(1, tiles, flags | TileFlag.UNREADABLE)

    def half(*_: Any) -> Iterator[bytes]:
        yield b"half a shard"
        raise OSError(5, "the writer dies")

    monkeypatch.setattr(encoding, "encode_tiles", half)
    with pytest.raises(StoreError):
        store.write_shard(1, tiles, flags & ~np.uint8(TileFlag.UNREADABLE))
    assert store.missing_shards() == [1]
    with pytest.raises(StoreError):
        store.write_shard(2, tiles[:2], content(store, 2, 2)[1])  # the same flags: old tiles stay
    assert store.missing_shards() == [1]


def test_litter_is_swept_and_nothing_else(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    fill(store)
    before = tree(store.path)
    for end in (store.sweep, store.finish):
        for folder in ("tiles/c/1/0/0", "flags/c"):
            (store.path / folder / "0.89ab.partial").write_bytes(b"half an object")
        end()
        assert tree(store.path).keys() == before.keys()
    assert store.damage() == []


def test_a_write_that_fails_is_one_line(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    (store.path / "tiles" / "c").write_bytes(b"a file where a folder must be")
    with pytest.raises(StoreError, match="cannot write shard 0") as caught:
        store.write_shard(0, *content(store, 0, 0))
    assert str(store.path) in str(caught.value)


def test_a_store_that_cannot_be_marked_complete(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    fill(store)
    (store.path / "zarr.json").unlink()
    (store.path / "zarr.json").mkdir()  # what no file can replace
    with pytest.raises(StoreError, match=f"{store.path}: the store is gone, or damaged"):
        store.finish()
    assert not store.meta.complete


# --- creation and opening


def test_a_new_store_replaces_an_old_one(tmp_path: Path) -> None:
    finished(tmp_path / "case.zarr")
    draft = draft_of(tmp_path / "case.zarr")
    draft.mkdir()
    (draft / "old").write_bytes(b"left by a killed run")
    store = make_store(tmp_path / "case.zarr", 5)
    assert len(store) == 5
    assert store.missing_shards() == [0, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["case.zarr"]
    assert not (store.path / "old").exists()


def test_a_store_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot write") as caught:
        make_store(tmp_path / "file" / "case.zarr", 5)
    assert str(tmp_path) in str(caught.value)


def test_an_unfinished_store_is_refused_unless_asked_for(tmp_path: Path) -> None:
    store = make_store(tmp_path / "case.zarr", 10)
    store.write_shard(1, *content(store, 1, 1))
    with pytest.raises(StoreError, match=r"incomplete \(1 of 3 shards\).*allow_partial"):
        TileStore.open(store.path)
    partial = TileStore.open(str(store.path), allow_partial=True)
    np.testing.assert_array_equal(partial[4:8], content(store, 1, 1)[0])
    assert (partial[:4] == 255).all()
    fill(store)
    with pytest.raises(StoreError, match=r"3 of 3"):
        TileStore.open(store.path)  # whole, but nobody has checked
    store.finish()
    assert TileStore.open(store.path).meta == store.meta


def no_attribute(path: Path) -> None:
    zarr.create_group(path)


def other_version(path: Path) -> None:
    group = zarr.open_group(finished(path).path)
    group.attrs["wsi_norm"] = group.attrs["wsi_norm"] | {"format_version": 99}


def no_tiles(path: Path) -> None:
    shutil.rmtree(finished(path).path / "tiles")


def bad_json(path: Path) -> None:
    (finished(path).path / "zarr.json").write_text("{")


def an_array(path: Path) -> None:
    zarr.create_array(path, shape=(1,), dtype="u1")


def tiles_is_a_group(path: Path) -> None:
    no_tiles(path)
    zarr.create_group(path / "tiles")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b"a file"),
        no_attribute,
        other_version,
        no_tiles,
        bad_json,
        an_array,
        tiles_is_a_group,
    ],
    ids=[
        "absent",
        "empty",
        "file",
        "no attribute",
        "version",
        "no tiles",
        "bad json",
        "array",
        "group",
    ],
)
@pytest.mark.parametrize("allow_partial", [False, True])
def test_what_is_no_store(
    tmp_path: Path, make: Callable[[Path], None], allow_partial: bool
) -> None:
    path = tmp_path / "case.zarr"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError) as caught:
        TileStore.open(path, allow_partial=allow_partial)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_flags_have_the_bits_of_the_contract() -> None:
    assert [(flag.value, flag.key, flag.label) for flag in TileFlag] == [
        (1, "unreadable", "unreadable"),
        (2, "passed_through", "passed through"),
        (4, "edge", "at the edge"),
        (8, "fill", "mostly fill"),
        (16, "left_out", "partly left out of the file"),
    ]
    assert TileFlag(5) == TileFlag.UNREADABLE | TileFlag.EDGE
