"""TileStore: the normalised tiles of one slide as a Zarr v3 group.

One task writes one whole shard: first its piece of `flags`, then its object of `tiles`, whose
existence is the commit record. Nothing is synced to disk by force: after a loss of power, `verify`
or the next run, which check every shard's index, find what did not get there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import zarr
from pydantic import ValidationError
from zarr.errors import BaseZarrError

from wsi_norm import location
from wsi_norm.choices import CODECS
from wsi_norm.errors import StoreError
from wsi_norm.store import encoding
from wsi_norm.store.encoding import UInt8
from wsi_norm.store.metadata import DIMENSIONS, Counts, StoreMeta, TileFlag
from wsi_norm.store.objects import ATTRIBUTE, ROOT, SINGLE_CHUNK, Objects, attribute

SHARD_BYTES = 16 << 20

_OPEN_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    BaseZarrError,
)
"""What zarr raises where metadata are damaged: it looks at them as it uses them."""

_DECODE_ERRORS = (OSError, ValueError, RuntimeError)
"""What zarr and its codecs raise on damaged chunks."""


def tiles_per_shard(tile_size_px: int) -> int:
    """Whole tiles in a shard of about 16 MiB: a power of two, so a Z-order run is a square."""
    return max(1, 1 << (SHARD_BYTES // (3 * tile_size_px**2)).bit_length() >> 1)


class TileStore:
    """One slide's store, opened.

    Use `TileStore.open(path)`; `len(store)`, `store[i]` and `store[i:j]` read tiles, row-aligned
    with `coords`, `flags` and `tissue_fraction`.
    """

    def __init__(self, path: Path, group: zarr.Group, meta: StoreMeta) -> None:
        self.path = path
        self.meta = meta
        self._group = group
        self._arrays = {name: _open_array(path, group, name) for name in DIMENSIONS}
        self._objects = Objects(path, len(self), meta.tiling.tiles_per_shard)

    @classmethod
    def create(
        cls,
        path: Path,
        meta: StoreMeta,
        *,
        coords: npt.NDArray[np.int64],
        tissue_fraction: npt.NDArray[np.float32],
        tissue_mask: npt.NDArray[np.bool_],
        mask_downsample: tuple[float, float],
        thumbnail: UInt8,
        thumbnail_normalized: UInt8,
    ) -> TileStore:
        """Write a new store without tiles; it appears under its name only when whole.

        An existing store of that name is replaced.

        Raises
        ------
        StoreError
            It cannot be written, or something that is no store has its name.
        """
        if location.exists(path) and not _is_store(path):
            raise StoreError(
                f"{path}: not a store of wsi-norm, so it is not replaced; move it away"
            )
        draft = path.with_name(f".{path.name}.draft")
        mask_scale = {"downsample": list(mask_downsample)}
        size = meta.slide.width_px, meta.slide.height_px
        thumbnail_scale = {
            "downsample": [size[0] / thumbnail.shape[1], size[1] / thumbnail.shape[0]]
        }
        try:
            location.remove_tree(draft)
            group = zarr.create_group(draft, attributes={ATTRIBUTE: meta.model_dump(mode="json")})
            encoding.create_arrays(
                group,
                len(coords),
                meta.tiling.tile_size_px,
                meta.tiling.tiles_per_shard,
                CODECS[meta.codec],
            )
            _save(group, "coords", coords)
            _save(group, "tissue_fraction", tissue_fraction)
            _save(group, "tissue_mask", tissue_mask, mask_scale)
            for name, image in (
                ("thumbnail", thumbnail),
                ("thumbnail_normalized", thumbnail_normalized),
            ):
                _save(group, name, image, thumbnail_scale)
            location.publish(draft, path)
        except OSError as error:
            raise StoreError(f"{path}: cannot write the store: {error}") from error
        return cls.open(path, allow_partial=True)

    @classmethod
    def open(cls, path: str | Path, allow_partial: bool = False) -> Self:
        """Open a store for reading.

        Raises
        ------
        StoreError
            No store there, not one of ours, or not complete and `allow_partial` is False.
        """
        path = Path(path)
        try:
            group = zarr.open_group(path, mode="r+")
        except FileNotFoundError as error:
            raise StoreError(f"{path}: no store there; check the path") from error
        except _OPEN_ERRORS as error:
            raise StoreError(f"{path}: cannot open the store: {error}") from error
        try:
            meta = StoreMeta.model_validate(group.attrs.get(ATTRIBUTE))
        except ValidationError as error:
            raise StoreError(f"{path}: not a store of this version of wsi-norm") from error
        store = cls(path, group, meta)
        if lost := store._lost_arrays():
            raise StoreError(f"{path}: {lost[0]}; delete the store and run it again")
        if not store.meta.complete and not allow_partial:
            done = sum(store.has_shard(shard) for shard in range(store.shards))
            raise StoreError(
                f"{path}: incomplete ({done} of {store.shards} shards); run the same command again "
                "to finish it, or open it with allow_partial=True"
            )
        return store

    @staticmethod
    def stamp(path: Path) -> location.Stamp | None:
        """What changes when a store is created anew or its metadata are written; None: no store."""
        return location.stamp(path / ROOT)

    def _lost_arrays(self) -> list[str]:
        """What was written with the store and is gone: zarr would read it as zeros."""
        missing = [f"{name}: missing" for name in self._objects.lost()]
        misfits = [
            f"{name}: another length than tiles"
            for name in ("coords", "flags", "tissue_fraction")
            if self._arrays[name].shape[0] != len(self)
        ]
        return missing + misfits

    def __len__(self) -> int:
        return int(self._arrays["tiles"].shape[0])

    def __getitem__(self, index: int | slice) -> UInt8:
        """uint8 (T, T, 3) of one tile, or (n, T, T, 3) of a slice; StoreError if damaged."""
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        return self._read("tiles", index)

    def __iter__(self) -> Iterator[UInt8]:
        """Every tile, a shard at a time from the disk."""
        for shard in range(self.shards):
            yield from self[self.rows(shard)]

    @property
    def coords(self) -> npt.NDArray[np.int64]:
        """(N, 2): x, y of each tile's top-left corner in level-0 px."""
        return self._read("coords")

    @property
    def flags(self) -> UInt8:
        """(N,): bits of TileFlag."""
        return self._read("flags")

    @property
    def tissue_fraction(self) -> npt.NDArray[np.float32]:
        """(N,): share of each tile that is tissue."""
        return self._read("tissue_fraction")

    @property
    def tissue_mask(self) -> npt.NDArray[np.bool_]:
        """(h, w); the array's attribute `downsample` says how many level-0 px a pixel spans."""
        return self._read("tissue_mask")

    @property
    def thumbnail(self) -> UInt8:
        """(h, w, 3): the slide before."""
        return self._read("thumbnail")

    @property
    def thumbnail_normalized(self) -> UInt8:
        """(h, w, 3): the slide after."""
        return self._read("thumbnail_normalized")

    @property
    def shards(self) -> int:
        """Number of shards."""
        return self._objects.shards

    def rows(self, shard: int) -> slice:
        """The rows of `tiles` that a shard holds."""
        return self._objects.rows(shard)

    def write_shard(self, shard: int, tiles: UInt8, flags: UInt8) -> None:
        """Write one whole shard, `tiles` (n, T, T, 3) and `flags` (n,), atomically."""
        rows, slots = self.rows(shard), self.meta.tiling.tiles_per_shard
        number = rows.stop - rows.start
        if tiles.shape != (number, *self._arrays["tiles"].shape[1:]) or flags.shape != (number,):
            raise ValueError(
                f"shard {shard} holds rows {rows}, not tiles of shape {tiles.shape} with flags of "
                f"shape {flags.shape}"
            )
        flags_file, tiles_file = self._objects.at("flags", shard), self._objects.at("tiles", shard)
        codec = CODECS[self.meta.codec]
        try:
            new_flags = b"".join(encoding.encode_flags(flags, slots))
            if not self.has_shard(shard) or location.read_bytes(flags_file) != new_flags:
                location.remove(tiles_file)  # old tiles never stand beside new flags
            location.write_whole(flags_file, [new_flags])
            location.write_whole(tiles_file, encoding.encode_tiles(tiles, slots, codec))
        except OSError as error:
            raise StoreError(f"{self.path}: cannot write shard {shard}: {error}") from error

    def has_shard(self, shard: int) -> bool:
        """Whether a shard is there, with a whole index and all the bytes that this promises."""
        return self._objects.has_shard(shard)

    def missing_shards(self, unreadable_too: bool = False) -> list[int]:
        """Shards still to be written, and those with unreadable tiles, which may now be read."""
        missing = set(self._objects.missing_shards())
        if unreadable_too:
            try:
                rows = np.flatnonzero(self.flags & TileFlag.UNREADABLE)
            except StoreError:  # damaged flags: write them all anew
                return list(range(self.shards))
            missing |= set((rows // self.meta.tiling.tiles_per_shard).tolist())
        return sorted(missing)

    def sweep(self) -> None:
        """Remove the temporary files that a killed writer left behind."""
        location.sweep(self.path)

    def count(self) -> Counts:
        """Tiles in all, and per flag."""
        flags = self.flags
        per_flag = {flag.key: int(np.count_nonzero(flags & flag)) for flag in TileFlag}
        return {"tiles": len(self), **per_flag}

    def finish(self) -> StoreMeta:
        """Check that every shard is in, count the flags and mark the store complete.

        Raises
        ------
        StoreError
            A shard is missing or damaged.
        """
        missing = self.missing_shards()
        if missing:
            raise StoreError(f"{self.path}: shards {missing} are missing; run the command again")
        self.sweep()
        self._set_meta(counts=self.count(), complete=True)
        return self.meta

    def reopen(self) -> None:
        """Take back `finish`: shards of it are missing and will be written again."""
        self._set_meta(counts=None, complete=False)

    def damage(self) -> list[str]:
        """Read everything back; what is damaged or missing, a line each."""
        found = []
        for shard in range(self.shards):
            rows = self.rows(shard)
            where = f"shard {shard} (tiles {rows.start}-{rows.stop - 1})"
            if not self.has_shard(shard):
                found.append(f"{where}: missing or cut")
            elif problem := self._problem("tiles", rows):
                found.append(f"{where}: {problem}")
        found += self._lost_arrays()
        for name in ("flags", *SINGLE_CHUNK):
            if problem := self._problem(name):
                found.append(f"{name}: {problem}")
        return found

    def _read(self, name: str, rows: int | slice = slice(None)) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._arrays[name][rows])
        except _DECODE_ERRORS as error:
            raise StoreError(
                f"{self.path}: {name}: {error}; delete the store and run it again"
            ) from error

    def _problem(self, name: str, rows: slice = slice(None)) -> str | None:
        """Why an array cannot be read, in the words of zarr."""
        try:
            self._read(name, rows)
        except StoreError as error:
            return str(error.__cause__)
        return None

    def _set_meta(self, **changes: Any) -> None:
        meta = self.meta.model_copy(update=changes)
        try:
            self._group.attrs[ATTRIBUTE] = meta.model_dump(mode="json")
        except OSError as error:
            raise StoreError(f"{self.path}: cannot write the store: {error}") from error
        self.meta = meta


def _is_store(path: Path) -> bool:
    """Whether a folder says that it is a store of ours, of whatever version."""
    try:
        attribute(path)
    except (OSError, ValueError):
        return False
    return True


def _open_array(path: Path, group: zarr.Group, name: str) -> zarr.Array[Any]:
    try:
        array = group.get(name)
    except _OPEN_ERRORS as error:
        raise StoreError(f"{path}: {name}: {error}; delete the store and run it again") from error
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{path}: the array {name} is missing; delete the store and run it again")
    return array


def _save(
    group: zarr.Group,
    name: str,
    data: npt.NDArray[Any],
    attributes: dict[str, Any] | None = None,
) -> None:
    array = group.create_array(
        name,
        shape=data.shape,
        chunks=tuple(max(1, length) for length in data.shape),
        dtype=data.dtype,
        dimension_names=DIMENSIONS[name],
        attributes=attributes,
        compressors=encoding.ZSTD.compressors,
        config={"write_empty_chunks": True},  # its existence says that it is not lost
    )
    if data.size:
        array[...] = data
