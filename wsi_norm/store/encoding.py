"""The objects of a shard: its piece of `flags`, then its tiles, whose existence commits it.

The object of tiles is Zarr's codec `sharding_indexed`: one chunk a tile, then the index (offset and
length of each slot, 2**64 - 1 twice where there is no tile) and its CRC-32C; integers are little
endian. It is written by hand because zarr-python takes two to three times as long. Between chunks
and index, where Zarr's readers do not look, stands the seal: the CRC-32C of each slot's chunk (0
where there is no tile) and the shard's digest (`store.digests`). So a shard has its proof with it.
Encoders release the GIL, start no thread and share no state, so any number of threads may write.

An object appears under its name only when whole (`location.write_whole`). Nothing is synced to disk
by force: after a loss of power, `is_whole` finds what did not get there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from wsi_norm.location import read_tail
from wsi_norm.store import digests
from wsi_norm.store.metadata import DIMENSIONS, TileFlag

UInt8 = npt.NDArray[np.uint8]

CHECKSUM_BYTES = 4

_ABSENT = 2**64 - 1


@dataclass(frozen=True)
class Codec:
    """A lossless compression of chunks; `wsi_norm.choices.CODECS` names them.

    Attributes
    ----------
    steps
        What the metadata of an array says of it: zarr's codecs.
    encode
        The function that does it: a uint8 array to bytes, which depend on nothing but the array.
    ratio
        How much smaller normalised tiles get, measured on real ones; for estimates only.
    """

    steps: tuple[Any, ...]
    encode: Callable[[UInt8], Any]
    ratio: float

    @property
    def compressors(self) -> list[Any]:
        """Compression, and a checksum of each chunk, so that a flipped bit is noticed."""
        return [*self.steps, Crc32cCodec()]


ZSTD = Codec((ZstdCodec(level=1),), partial(imagecodecs.zstd_encode, level=1), 2.3)

BLOSC = Codec(
    (BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle"),),
    partial(
        imagecodecs.blosc_encode,
        compressor="lz4",
        level=5,
        shuffle="noshuffle",
        typesize=1,
        numthreads=1,
    ),
    2.1,
)

PYRAMID_RATIO = 1.7
"""How much smaller tiles get in a pyramid, with all its levels; for estimates only."""

NONE = Codec((), lambda data: data, 1.0)


def create_arrays(
    group: zarr.Group, number: int, tile_size_px: int, tiles_per_shard: int, codec: Codec | None
) -> None:
    """`tiles` (a chunk a tile, sharded; no array if `codec` is None) and `flags`, by shards."""
    tile = (tile_size_px, tile_size_px, 3)
    if codec is not None:
        group.create_array(
            "tiles",
            shape=(number, *tile),
            chunks=(1, *tile),
            shards=(tiles_per_shard, *tile),
            dtype=np.uint8,
            fill_value=255,
            compressors=codec.compressors,
            dimension_names=DIMENSIONS["tiles"],
        )
    group.create_array(
        "flags",
        shape=(number,),
        chunks=(tiles_per_shard,),
        dtype=np.uint8,
        fill_value=0,
        compressors=ZSTD.compressors,
        dimension_names=DIMENSIONS["flags"],
        attributes={"bits": {str(flag.name): int(flag) for flag in TileFlag}},
    )


Seal = Callable[[bytes, bytes], bytes]
"""(checksums of the chunks, index) -> a shard's digest."""


def encode_tiles(tiles: UInt8, slots: int, codec: Codec, seal: Seal | None = None) -> Iterator[Any]:
    """The bytes of a shard of `slots` tiles, the first of which are `tiles`, piece by piece."""
    index = np.full((slots, 2), _ABSENT, "<u8")
    checksums = bytearray(CHECKSUM_BYTES * slots)
    start = 0
    for slot, tile in enumerate(np.ascontiguousarray(tiles, np.uint8).reshape(len(tiles), -1)):
        chunk, checksum = _encode(tile, codec)
        index[slot] = start, len(chunk) + len(checksum)
        start += len(chunk) + len(checksum)
        checksums[CHECKSUM_BYTES * slot : CHECKSUM_BYTES * (slot + 1)] = checksum
        yield chunk
        yield checksum
    tail = index.tobytes()
    if seal is not None:
        yield bytes(checksums)
        yield seal(bytes(checksums), tail)
    yield tail
    yield _checksum(tail)


def encode_flags(flags: UInt8, slots: int) -> tuple[Any, bytes]:
    """The bytes of a shard's piece of `flags`, 0 where there is no tile."""
    padded = np.zeros(slots, np.uint8)
    padded[: len(flags)] = flags
    return _encode(padded, ZSTD)


@dataclass(frozen=True)
class End:
    """What stands behind the chunks of a shard.

    Attributes
    ----------
    tiles
        How many there are.
    index
        Offset and length of each slot's chunk.
    checksums, digest
        The seal; empty where the store has none.
    """

    tiles: int
    index: bytes
    checksums: bytes
    digest: bytes


def read_end(file: Path, tiles: int, slots: int, sealed: bool = False) -> End | None:
    """The end of a shard of so many tiles; None if it is not whole.

    That is: its index is intact, names so many tiles and is covered by the bytes. Whether the seal
    is right is not asked.
    """
    seal = CHECKSUM_BYTES * slots if sealed else 0
    digest = digests.BYTES if sealed else 0
    length = seal + digest + 16 * slots + 4
    try:
        size, tail = read_tail(file, length)
    except OSError:
        return None
    index = tail[seal + digest : -4]
    if len(tail) != length or _checksum(index) != tail[-4:]:
        return None
    chunks = np.frombuffer(index, "<u8").reshape(slots, 2)[:tiles]
    if (chunks == _ABSENT).any() or int(chunks.sum(axis=1).max(initial=0)) > size - length:
        return None
    return End(tiles, index, tail[:seal], tail[seal : seal + digest])


def is_whole(file: Path, tiles: int, slots: int, sealed: bool = False) -> bool:
    """Whether a shard has an end, see `read_end`."""
    return read_end(file, tiles, slots, sealed) is not None


def other_chunks(data: bytes, end: End) -> list[int]:
    """Tiles of a sealed shard whose bytes are not those that its checksums are of."""
    found = []
    chunks = np.frombuffer(end.index, "<u8").reshape(-1, 2)[: end.tiles].tolist()
    for slot, (offset, length) in enumerate(chunks):
        sealed = end.checksums[CHECKSUM_BYTES * slot : CHECKSUM_BYTES * (slot + 1)]
        chunk = data[offset : offset + length - CHECKSUM_BYTES]
        stored = data[offset + length - CHECKSUM_BYTES : offset + length]
        if stored != sealed or _checksum(chunk) != sealed:
            found.append(slot)
    return found


def decode(data: bytes) -> bytes:
    """A chunk of `ZSTD`; ValueError or RuntimeError if it is not what was written."""
    chunk = data[:-CHECKSUM_BYTES]
    if _checksum(chunk) != data[-CHECKSUM_BYTES:]:
        raise ValueError("its checksum is another's")
    return bytes(imagecodecs.zstd_decode(chunk))


def _encode(data: UInt8, codec: Codec) -> tuple[Any, bytes]:
    """A chunk and its checksum."""
    chunk = codec.encode(data)
    return chunk, _checksum(chunk)


def _checksum(data: bytes | UInt8) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))
