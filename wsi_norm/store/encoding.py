"""The objects of a shard: its piece of `flags`, then its tiles, whose existence commits it.

The object of tiles is Zarr's codec `sharding_indexed`: one chunk a tile, then the index (offset and
length of each slot, 2**64 - 1 twice where there is no tile) and its CRC-32C; integers are little
endian. It is written by hand because zarr-python takes two to three times as long.
Encoders release the GIL, start no thread and share no state, so any number of threads may write.

An object is written under a `*.partial` name and renamed when whole. Nothing is synced to disk by
force: after a loss of power, `is_whole` finds what did not get there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import google_crc32c
import imagecodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from wsi_norm.store.metadata import TileFlag

UInt8 = npt.NDArray[np.uint8]
Codec = Literal["zstd", "blosc", "none"]

_ABSENT = 2**64 - 1

_CODECS: dict[Codec, tuple[list[Any], Callable[[UInt8], Any]]] = {
    "zstd": ([ZstdCodec(level=1)], partial(imagecodecs.zstd_encode, level=1)),
    "blosc": (
        [BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle")],
        partial(
            imagecodecs.blosc_encode,
            compressor="lz4",
            level=5,
            shuffle="noshuffle",
            typesize=1,
            numthreads=1,
        ),
    ),
    "none": ([], lambda data: data),
}
"""What the metadata says, and the function that does it."""


def compressors(codec: Codec) -> list[Any]:
    """Compression, and a checksum of each chunk, so that a flipped bit is noticed."""
    return [*_CODECS[codec][0], Crc32cCodec()]


def create_arrays(
    group: zarr.Group, number: int, tile_size_px: int, tiles_per_shard: int, codec: Codec
) -> None:
    """`tiles` (one chunk a tile, sharded) and `flags`, one object of each per shard."""
    tile = (tile_size_px, tile_size_px, 3)
    group.create_array(
        "tiles",
        shape=(number, *tile),
        chunks=(1, *tile),
        shards=(tiles_per_shard, *tile),
        dtype=np.uint8,
        fill_value=255,
        compressors=compressors(codec),
        dimension_names=("tile", "y", "x", "channel"),
    )
    group.create_array(
        "flags",
        shape=(number,),
        chunks=(tiles_per_shard,),
        dtype=np.uint8,
        fill_value=0,
        compressors=compressors("zstd"),
        dimension_names=("tile",),
        attributes={"bits": {str(flag.name): int(flag) for flag in TileFlag}},
    )


def encode_tiles(tiles: UInt8, slots: int, codec: Codec) -> Iterator[Any]:
    """The bytes of a shard of `slots` tiles, the first of which are `tiles`, piece by piece."""
    index = np.full((slots, 2), _ABSENT, "<u8")
    start = 0
    for slot, tile in enumerate(np.ascontiguousarray(tiles, np.uint8).reshape(len(tiles), -1)):
        chunk, checksum = _encode(tile, codec)
        index[slot] = start, len(chunk) + len(checksum)
        start += len(chunk) + len(checksum)
        yield chunk
        yield checksum
    tail = index.tobytes()
    yield tail
    yield _checksum(tail)


def encode_flags(flags: UInt8, slots: int) -> tuple[Any, bytes]:
    """The bytes of a shard's piece of `flags`, 0 where there is no tile."""
    padded = np.zeros(slots, np.uint8)
    padded[: len(flags)] = flags
    return _encode(padded, "zstd")


def write(file: Path, pieces: Iterable[Any]) -> None:
    """Write a file that appears under its name only when whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{uuid4().hex}.partial")
    try:
        with draft.open("xb") as stream:
            stream.writelines(pieces)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def is_whole(file: Path, tiles: int, slots: int) -> bool:
    """Whether a shard's index is intact, names so many tiles and is covered by the bytes."""
    length = 16 * slots + 4
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            stream.seek(max(0, size - length))
            tail = stream.read()
    except OSError:
        return False
    if len(tail) != length or _checksum(tail[:-4]) != tail[-4:]:
        return False
    index = np.frombuffer(tail[:-4], "<u8").reshape(slots, 2)[:tiles]
    present = bool((index != _ABSENT).all())
    return present and int(index.sum(axis=1).max(initial=0)) <= size - length


def _encode(data: UInt8, codec: Codec) -> tuple[Any, bytes]:
    """A chunk and its checksum."""
    chunk = _CODECS[codec][1](data)
    return chunk, _checksum(chunk)


def _checksum(data: bytes | UInt8) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))
