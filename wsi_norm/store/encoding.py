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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from wsi_norm import location
from wsi_norm.choices import CODECS
from wsi_norm.store import digests
from wsi_norm.store.jpeg import JpegCodec, decode_pixels
from wsi_norm.store.metadata import DIMENSIONS, TileFlag

UInt8 = npt.NDArray[np.uint8]

CHECKSUM_BYTES = 4

_ABSENT = 2**64 - 1


@dataclass(frozen=True)
class Codec:
    """A compression of chunks; `wsi_norm.choices.CODECS` names them.

    Attributes
    ----------
    steps
        What the metadata of an array says of it: zarr's codecs from bytes to bytes.
    encode
        The function that does it: a uint8 array to bytes, which depend on nothing but the array.
    ratio
        How much smaller normalised tiles get, measured on real ones; for estimates only.
    decode_into
        The way back: (bytes, flat uint8 array) -> what it filled of the array.
    serializer
        zarr's codec from a chunk to bytes; "auto": its bytes as they are.
    quality
        Of a lossy one, 1 to 100; None: what comes back is what was stored.
    """

    steps: tuple[Any, ...]
    encode: Callable[[UInt8], Any]
    ratio: float
    decode_into: Callable[[bytes, UInt8], Any] = field(kw_only=True)
    serializer: Any = "auto"
    quality: int | None = None

    @property
    def compressors(self) -> list[Any]:
        """Compression, and a checksum of each chunk, so that a flipped bit is noticed."""
        return [*self.steps, Crc32cCodec()]

    def seen(self, pixels: UInt8) -> UInt8:
        """A tile uint8 (T, T, 3) as it comes back."""
        if self.quality is None:
            return pixels
        out = np.empty(pixels.size, np.uint8)
        return np.asarray(self.decode_into(self.encode(pixels), out)).reshape(pixels.shape)


def _by_zstd(data: bytes, out: UInt8) -> Any:
    return imagecodecs.zstd_decode(data, out=out.data)


def _by_blosc(data: bytes, out: UInt8) -> Any:
    return imagecodecs.blosc_decode(data, numthreads=1, out=out.data)


def _by_copying(data: bytes, out: UInt8) -> UInt8:
    out[:] = np.frombuffer(data, np.uint8)
    return out


ZSTD = Codec(
    (ZstdCodec(level=1),), partial(imagecodecs.zstd_encode, level=1), 2.3, decode_into=_by_zstd
)

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
    decode_into=_by_blosc,
)

PYRAMID_RATIO = 1.7
"""How much smaller tiles get in a pyramid, with all its levels; for estimates only."""

NONE = Codec((), lambda data: data.reshape(-1), 1.0, decode_into=_by_copying)


def jpeg(quality: int = 90) -> Codec:
    """Lossy: a JPEG file a tile, colours at full resolution."""
    serializer = JpegCodec(level=quality)
    ratio = float(np.interp(quality, [*JPEG_RATIOS], [*JPEG_RATIOS.values()]))
    return Codec(
        (),
        serializer.encode_pixels,
        ratio,
        decode_into=_by_jpeg,
        serializer=serializer,
        quality=quality,
    )


def _by_jpeg(data: bytes, out: UInt8) -> UInt8:
    out[:] = decode_pixels(data).reshape(-1)
    return out


JPEG_RATIOS = {1: 60.0, 75: 11.0, 90: 6.4, 95: 4.3, 100: 2.0}
"""Quality, and how much smaller tiles get; by it linear enough for an estimate."""

JPEG = jpeg()


def codec_of(name: str, quality: int | None = None) -> Codec:
    """A codec by its name, of a quality if it has one; None: its usual one."""
    codec: Codec = CODECS[name]
    return codec if codec.quality is None or quality is None else jpeg(quality)


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
            serializer=codec.serializer,
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
    for slot, tile in enumerate(np.ascontiguousarray(tiles, np.uint8)):
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


def read_tiles(
    file: Path, which: Sequence[int], out: Sequence[UInt8], slots: int, codec: Codec
) -> None:
    """Tiles of a shard, by their slots, each into its array of `out`: no more is read.

    A quarter of the time that zarr-python takes for a tile, and no thread of its is needed.

    Raises
    ------
    OSError
        There is no such shard, or it cannot be read.
    ValueError, RuntimeError
        Its index or one of the tiles is not as it was written.
    """
    length = 16 * slots + CHECKSUM_BYTES

    def chunks(size: int, tail: bytes) -> list[tuple[int, int]]:
        index = tail[:-CHECKSUM_BYTES]
        if len(tail) != length or _checksum(index) != tail[-CHECKSUM_BYTES:]:
            raise ValueError("the index of a shard is cut or damaged")
        found = np.frombuffer(index, "<u8").reshape(slots, 2)[list(which)]
        if (found > size).any():
            raise ValueError("a shard lacks a tile")
        return [(offset, nbytes) for offset, nbytes in found.tolist()]

    pieces = location.read_parts(file, length, chunks)
    for tile, piece in zip(out, pieces, strict=True):
        chunk = piece[:-CHECKSUM_BYTES]
        if _checksum(chunk) != piece[-CHECKSUM_BYTES:]:
            raise ValueError("the checksum is not that of the tile")
        if len(codec.decode_into(chunk, tile.reshape(-1))) != tile.size:
            raise ValueError("a tile is cut")


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
        size, tail = location.read_tail(file, length)
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
