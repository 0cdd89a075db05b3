"""Objects of shards: what is written by hand against plain zarr-python, and what is not whole."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

from wsi_norm.choices import CODECS
from wsi_norm.location import write_whole
from wsi_norm.store.encoding import (
    NONE,
    Codec,
    create_arrays,
    encode_flags,
    encode_tiles,
    is_whole,
    read_tiles,
)

every_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())


def make_tiles(number: int, size: int, seed: int = 0) -> Any:
    """White, flat, smooth and random tiles: what compresses well and what does not at all."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.arange(size), np.arange(size))[..., None].repeat(3, axis=2)
    kinds = [
        np.full((size, size, 3), 255),
        np.full((size, size, 3), 7),
        ramp % 256,
        rng.integers(0, 256, (size, size, 3)),
    ]
    chosen = rng.integers(0, len(kinds), number)
    return np.array([kinds[kind] for kind in chosen], np.uint8).reshape(number, size, size, 3)


def make_arrays(path: Path, number: int, size: int, slots: int, codec: Codec) -> zarr.Group:
    group = zarr.create_group(path)
    create_arrays(group, number, size, slots, codec)
    return group


def seen(tiles: Any, codec: Codec) -> Any:
    """Tiles as they come back."""
    return np.array([codec.seen(tile) for tile in tiles], np.uint8).reshape(tiles.shape)


def object_of(path: Path, shard: int = 0) -> Path:
    return path / "tiles" / "c" / str(shard) / "0" / "0" / "0"


def one_shard(path: Path, tiles: Any, slots: int, codec: Codec) -> Path:
    make_arrays(path, len(tiles), tiles.shape[1], slots, codec)
    file = object_of(path)
    write_whole(file, encode_tiles(tiles, slots, codec))
    return file


# --- zarr-python reads what is written by hand, and the other way round


@given(
    codec=st.sampled_from(list(CODECS.values())),
    number=st.integers(1, 20),
    slots=st.integers(1, 9),
    size=st.integers(1, 40),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_plain_zarr_reads_it(codec: Codec, number: int, slots: int, size: int, seed: int) -> None:
    tiles = make_tiles(number, size, seed)
    flags = np.random.default_rng(seed).integers(0, 8, number, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        make_arrays(path, number, size, slots, codec)
        for shard, start in enumerate(range(0, number, slots)):
            part = tiles[start : start + slots]
            write_whole(object_of(path, shard), encode_tiles(part, slots, codec))
            piece = encode_flags(flags[start : start + slots], slots)
            write_whole(path / "flags" / "c" / str(shard), piece)
            assert is_whole(object_of(path, shard), len(part), slots)
            assert not is_whole(object_of(path, shard), len(part), slots + 1)
            assert (len(part) == slots) or not is_whole(object_of(path, shard), slots, slots)
        group = zarr.open(path, mode="r")
        np.testing.assert_array_equal(group["tiles"][:], seen(tiles, codec))
        one = number // 2
        np.testing.assert_array_equal(group["tiles"][one], codec.seen(tiles[one]))
        np.testing.assert_array_equal(group["flags"][:], flags)


@every_codec
def test_zarr_writes_the_same(tmp_path: Path, codec: Codec) -> None:
    """Side by side in one array; without compression, whose version may differ, byte by byte."""
    tiles = make_tiles(10, 32)
    array = make_arrays(tmp_path, 10, 32, 4, codec)["tiles"]
    array = array.with_config({"write_empty_chunks": True})
    array[:4] = tiles[:4]
    array[8:] = tiles[8:]
    write_whole(object_of(tmp_path, 1), encode_tiles(tiles[4:8], 4, codec))
    np.testing.assert_array_equal(zarr.open(tmp_path, mode="r")["tiles"][:], seen(tiles, codec))
    assert [is_whole(object_of(tmp_path, i), n, 4) for i, n in enumerate((4, 4, 2))] == [True] * 3
    if codec is NONE:
        by_hand = b"".join(map(bytes, encode_tiles(tiles[8:], 4, codec)))
        assert object_of(tmp_path, 2).read_bytes() == by_hand


class CountingStore(LocalStore):
    """A folder that counts the bytes read from it."""

    read = 0

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        found = await super().get(key, *args, **options)
        self.read += len(found) if found is not None and "/c/" in key else 0
        return found


@every_codec
def test_one_tile_is_read_through_the_index(tmp_path: Path, codec: Codec) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    file = one_shard(tmp_path, tiles, 8, codec)
    offset, length = np.frombuffer(file.read_bytes()[-(16 * 8 + 4) : -4], "<u8").reshape(8, 2)[3]
    data = bytearray(file.read_bytes())
    data[:offset] = bytes(offset)
    data[offset + length : -(16 * 8 + 4)] = bytes(len(data) - 16 * 8 - 4 - offset - length)
    file.write_bytes(data)
    store = CountingStore(tmp_path, read_only=True)
    np.testing.assert_array_equal(
        zarr.open_group(store, mode="r")["tiles"][3], codec.seen(tiles[3])
    )
    assert store.read == 16 * 8 + 4 + length


@every_codec
def test_any_memory_layout(tmp_path: Path, codec: Codec) -> None:
    tiles = make_tiles(4, 16)
    wide = np.zeros((4, 16, 16, 4), np.uint8)
    wide[..., :3] = tiles
    frozen = np.frombuffer(tiles.tobytes(), np.uint8).reshape(tiles.shape)
    expected = list(map(bytes, encode_tiles(tiles, 4, codec)))
    for given_as in (wide[..., :3], frozen, np.asfortranarray(tiles), tiles.astype(np.int64)):
        assert list(map(bytes, encode_tiles(given_as, 4, codec))) == expected


@every_codec
def test_threads_do_not_meet(codec: Codec) -> None:
    shards = [make_tiles(8, 64, seed) for seed in range(16)]

    def encode(tiles: Any) -> bytes:
        return b"".join(map(bytes, encode_tiles(tiles, 8, codec)))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(encode, shards * 4)) == [encode(tiles) for tiles in shards] * 4


# --- what is not whole


@every_codec
def test_a_cut_shard_is_not_whole(tmp_path: Path, codec: Codec) -> None:
    """Cut after any byte, begun late, a piece missing, or zeros at the end."""
    file = one_shard(tmp_path, make_tiles(3, 4, seed=1), 4, codec)
    data = file.read_bytes()
    assert is_whole(file, 3, 4)
    for at in range(len(data)):
        for damaged in (data[:at], data[at + 1 :], data[:at] + data[at + 1 :]):
            file.write_bytes(damaged)
            assert not is_whole(file, 3, 4), at
    file.write_bytes(data[:-4] + bytes(4))
    assert not is_whole(file, 3, 4)
    file.write_bytes(bytes(len(data)))
    assert not is_whole(file, 3, 4)
    file.unlink()
    assert not is_whole(file, 3, 4)
    file.mkdir()
    assert not is_whole(file, 3, 4)


@every_codec
def test_an_index_with_a_flipped_bit_is_not_whole(tmp_path: Path, codec: Codec) -> None:
    file = one_shard(tmp_path, make_tiles(3, 4), 4, codec)
    data = file.read_bytes()
    for at in range(len(data) - 16 * 4 - 4, len(data)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert not is_whole(file, 3, 4), at


# --- codecs


@every_codec
def test_a_codec_by_name_is_what_zarr_undoes(tmp_path: Path, codec: Codec) -> None:
    """Whatever is added to CODECS: its metadata and its function are of one codec."""
    tiles = make_tiles(5, 24, seed=3)
    one_shard(tmp_path, tiles, 8, codec)
    np.testing.assert_array_equal(
        zarr.open_group(tmp_path, mode="r")["tiles"][:], seen(tiles, codec)
    )
    assert codec.ratio >= 1


@every_codec
def test_every_chunk_ends_in_its_checksum(codec: Codec) -> None:
    """CRC-32C by its polynomial, bit by bit (RFC 3720, B.4)."""
    chunk, checksum, *_ = encode_tiles(make_tiles(1, 8), 1, codec)
    register = 0xFFFFFFFF
    for byte in bytes(chunk):
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    assert checksum == (register ^ 0xFFFFFFFF).to_bytes(4, "little")


# --- tiles are read without zarr-python


def read(file: Path, which: list[int], size: int, slots: int, codec: Codec) -> np.ndarray:
    out = np.empty((len(which), size, size, 3), np.uint8)
    read_tiles(file, which, list(out), slots, codec)
    return out


@every_codec
def test_tiles_are_read_as_zarr_reads_them(tmp_path: Path, codec: Codec) -> None:
    tiles = make_tiles(5, 16)
    file = one_shard(tmp_path, tiles, 8, codec)
    plain = zarr.open_group(tmp_path, mode="r")["tiles"]
    which = [4, 0, 2, 2]
    np.testing.assert_array_equal(read(file, which, 16, 8, codec), plain[:][which])
    with pytest.raises(ValueError, match="lacks a tile"):
        read(file, [5], 16, 8, codec)
    with pytest.raises((ValueError, RuntimeError)):  # what was written are tiles of another size
        read(file, [0], 8, 8, codec)
    with pytest.raises((ValueError, RuntimeError)):
        read(file, [0], 32, 8, codec)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "gone", [0], 16, 8, codec)


@every_codec
def test_no_flipped_byte_and_no_cut_file_is_read(tmp_path: Path, codec: Codec) -> None:
    tiles = make_tiles(2, 16)
    file = one_shard(tmp_path, tiles, 2, codec)
    data = file.read_bytes()
    for at in (*range(0, len(data), 97), *range(len(data) - 40, len(data))):
        file.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises((ValueError, RuntimeError)):
            read(file, [0, 1], 16, 2, codec)
    for length in (0, 1, 35, 36, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises((ValueError, RuntimeError)):
            read(file, [0, 1], 16, 2, codec)
