"""TileStore: the normalised tiles of one slide as a Zarr v3 group.

One task writes one whole shard: first its piece of `flags`, then its tiles in each home that the
layout gives them (`store.homes`), whose records say that they are there. Each shard is bound to its
store by a digest (`store.digests`), and whoever writes one looks first whether the store is still
the one that was opened. Nothing is synced to disk by force: after a loss of power, `verify` or the
next run, which check the records of every shard, find what did not get there.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import zarr
from pydantic import ValidationError
from zarr.errors import BaseZarrError

from wsi_norm import location
from wsi_norm.errors import StoreError
from wsi_norm.store import digests
from wsi_norm.store.draft import mend, write_draft
from wsi_norm.store.encoding import Codec, UInt8, codec_of
from wsi_norm.store.metadata import Counts, StoreMeta, TileFlag
from wsi_norm.store.objects import ATTRIBUTE, REMEDY, ROOT, SINGLE_CHUNK, Objects, attribute
from wsi_norm.store.shards import Shards

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

OTHER_ATTRIBUTE = "settings or numbers are not those that the store was made with"

TRIES = 3
"""Of writing what another run may sweep away meanwhile."""

_DECODE_ERRORS = (OSError, ValueError, RuntimeError)
"""What zarr and its codecs raise on damaged chunks."""


def tiles_per_shard(tile_size_px: int) -> int:
    """Whole tiles in a shard of about 16 MiB: a power of two, so a Z-order run is a square."""
    return max(1, 1 << (SHARD_BYTES // (3 * tile_size_px**2)).bit_length() >> 1)


class TileStore:
    """One slide's store, opened.

    Use `TileStore.open(path)`; `len(store)`, `store[i]` and `store[i:j]` read tiles, row-aligned
    with `coords`, `flags` and `tissue_fraction`.

    Attributes
    ----------
    path, meta
        Where it is, and its attribute.
    identity
        Digest of all that it said of itself when it was made; see `store.digests`.
    """

    def __init__(self, path: Path, group: zarr.Group, meta: StoreMeta) -> None:
        self.path = path
        self.meta = meta
        self._group = group
        names = Objects(path, meta, 0).arrays
        self._arrays = {name: _open_array(path, group, name) for name in names}
        self._objects = Objects(path, meta, len(self))
        self._shards = Shards(self._objects)
        self.identity = digests.of_identity(dict(group.attrs[ATTRIBUTE]))  # type: ignore[arg-type]
        self._stamp: location.Stamp | None = None

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
        existing: Literal["replace", "keep", "mend"] = "replace",
    ) -> TileStore:
        """Write a new store without tiles; it appears under its name only when whole.

        Parameters
        ----------
        existing
            What becomes of a store that has the name. "replace": it goes. "keep": it is opened in
            place of the new one; another run was faster. "mend": if it is the same store, what is
            damaged of it is written anew, but for its shards, and it is no longer complete.

        Raises
        ------
        StoreError
            It cannot be written, something that is no store has its name, or what is to be mended
            is another store.
        """
        if existing != "mend" and location.exists(path) and not _is_store(path):
            raise StoreError(
                f"{path}: not a store of wsi-norm, so it is not replaced; move it away"
            )
        draft = location.draft_of(path)
        try:
            write_draft(
                draft,
                meta,
                coords=coords,
                tissue_fraction=tissue_fraction,
                tissue_mask=tissue_mask,
                mask_downsample=mask_downsample,
                thumbnail=thumbnail,
                thumbnail_normalized=thumbnail_normalized,
            )
            if existing == "mend" and location.exists(path):
                mend(path, draft, meta, len(coords))
            else:
                location.publish(draft, path, replace=existing == "replace")
            location.sweep_drafts(path)
        except OSError as error:
            if existing == "replace" or not location.exists(path):
                raise StoreError(f"{path}: cannot write the store: {error}") from error
        finally:
            with suppress(OSError):  # `sweep` removes it
                location.remove_tree(draft)
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
        stamp = cls.stamp(path)
        try:
            group = zarr.open_group(path, mode="r+")
        except FileNotFoundError as error:
            raise StoreError(f"{path}: no store there; check the path") from error
        except _OPEN_ERRORS as error:
            raise StoreError(f"{path}: cannot open the store: {error}; {REMEDY}") from error
        try:
            meta = StoreMeta.model_validate(group.attrs.get(ATTRIBUTE))
        except ValidationError as error:
            raise StoreError(f"{path}: not a store of this version of wsi-norm") from error
        store = cls(path, group, meta)
        store._stamp = stamp
        if lost := store._lost_arrays():
            raise StoreError(f"{path}: {lost[0]}; {REMEDY}")
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

    @staticmethod
    def made_ns(path: Path) -> int | None:
        """When a store was made, by the clock of its disk; None: there is none."""
        stamp = location.stamp(path / "coords" / ROOT)
        return None if stamp is None else stamp[1]

    def _check_owner(self) -> None:
        """StoreError if the store on disk is no longer the one that was opened."""
        stamp = self.stamp(self.path)
        if stamp == self._stamp:
            return
        try:
            identity = digests.of_identity(attribute(self.path))
        except (OSError, ValueError, AttributeError) as error:
            raise StoreError(
                f"{self.path}: the store is gone, or damaged, since it was made (deleted during "
                "the run?); run the same command again"
            ) from error
        if identity != self.identity:
            raise taken_over(self.path)
        self._stamp = stamp

    def _lost_arrays(self) -> list[str]:
        """What was written with the store and is gone: zarr would read it as zeros."""
        missing = [f"{name}: missing" for name in self._objects.lost()]
        misfits = [
            f"{name}: another length than coords"
            for name in ("tiles", "flags", "tissue_fraction")
            if name in self._arrays and self._arrays[name].shape[0] != len(self)
        ]
        return missing + misfits

    def __len__(self) -> int:
        return int(self._arrays["coords"].shape[0])

    def __getitem__(self, index: int | slice) -> UInt8:
        """uint8 (T, T, 3) of one tile, or (n, T, T, 3) of a slice; see `read`."""
        if isinstance(index, slice):
            return self.read(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        tile: UInt8 = self.read([operator.index(index) % len(self)])[0]
        return tile

    def read(self, rows: Sequence[int]) -> UInt8:
        """uint8 (n, T, T, 3): tiles in any order; no more than these is read.

        Tiles of a shard that is still to be written are white.

        Raises
        ------
        StoreError
            A tile is damaged, a shard of a complete store is gone, or the store is a plan.
        """
        if not self._shards.homes:
            raise StoreError(
                f"{self.path}: a plan, which holds no pixels; read it with "
                "TileDataset(stores, slides=...), or run its slide with --layout tiles"
            )
        if len(rows) and not 0 <= min(rows) <= max(rows) < len(self):
            raise IndexError(f"tiles {min(rows)} to {max(rows)} of {len(self)}")
        edge = self.meta.tiling.tile_size_px
        tiles = np.empty((len(rows), edge, edge, 3), np.uint8)
        places: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row // self._objects.slots, []).append(place)
        for shard, mine in places.items():
            slots = [rows[place] % self._objects.slots for place in mine]
            self._read_tiles(shard, slots, [tiles[place] for place in mine])
        return tiles

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
        """Write one whole shard, `tiles` (n, T, T, 3) and `flags` (n,), atomically.

        Raises
        ------
        StoreError
            It cannot be written, or the store is another one by now.
        """
        rows, edge = self.rows(shard), self.meta.tiling.tile_size_px
        number = rows.stop - rows.start
        if tiles.shape != (number, edge, edge, 3) or flags.shape != (number,):
            raise ValueError(
                f"shard {shard} holds rows {rows}, not tiles of shape {tiles.shape} with flags of "
                f"shape {flags.shape}"
            )
        for attempt in range(TRIES):
            try:
                self._check_owner()
                self._shards.write(shard, tiles, flags, self._check_owner)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and attempt < TRIES - 1:
                    continue  # a run beside this one took the unfinished file for litter
                raise StoreError(f"{self.path}: cannot write shard {shard}: {error}") from error
            else:
                return

    def has_shard(self, shard: int) -> bool:
        """Whether a shard is there, whole and in its place, as far as its records say."""
        return self._shards.has(shard)

    def missing_shards(self, unreadable_too: bool = False) -> list[int]:
        """Shards still to be written, and those with unreadable tiles, which may now be read."""
        missing = set(self._shards.missing())
        if unreadable_too and len(missing) < self.shards:
            try:
                rows = np.flatnonzero(self.flags & TileFlag.UNREADABLE)
            except StoreError:  # damaged flags: write them all anew
                return list(range(self.shards))
            missing |= set((rows // self.meta.tiling.tiles_per_shard).tolist())
        return sorted(missing)

    def sweep(self) -> None:
        """Remove the temporary files that a killed writer left behind."""
        location.sweep(self.path)
        location.sweep_drafts(self.path)

    def count(self) -> Counts:
        """Tiles in all, and per flag."""
        flags = self.flags
        per_flag = {flag.key: int(np.count_nonzero(flags & flag)) for flag in TileFlag}
        return {"tiles": len(self), **per_flag}

    def finish(self) -> StoreMeta:
        """Check that every shard is in, make what is made of all, and mark the store complete.

        That is: the levels of its pyramid, and the numbers of flags.

        Raises
        ------
        StoreError
            A shard is missing or damaged.
        """
        if missing := self._shards.missing():
            raise StoreError(f"{self.path}: shards {missing} are missing; run the command again")
        try:
            self._shards.complete(self._check_owner)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot write the pyramid: {error}") from error
        if (found := self._shards.of_whole()) is None:
            raise StoreError(f"{self.path}: lost a part meanwhile; run the command again")
        self.sweep()
        self._check_owner()
        finished = self.meta.model_copy(update={"counts": self.count(), "complete": True})
        if self._objects.identity is not None:
            content = digests.of_content(finished.model_dump(mode="json"), found)
            finished = finished.model_copy(update={"content_sha256": content})
        self._set_meta(finished)
        return self.meta

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing of shards and what is made of them, as far as records say."""
        return self._shards.of_whole() is not None

    def drop(self, shards: Iterable[int]) -> None:
        """Remove shards, or parts of levels, that are damaged, so that they count as missing."""
        try:
            for shard in shards:
                self._shards.drop(shard)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot remove a damaged shard: {error}") from error

    def remove_strays(self) -> None:
        """Remove chunks of the pyramid that are none of it."""
        try:
            self._check_owner()
            for place in self._shards.strays():
                location.remove(place)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot remove a foreign chunk: {error}") from error

    def reopen(self) -> None:
        """Take back `finish`: shards of it are missing and will be written again."""
        self._set_meta(
            self.meta.model_copy(update={"counts": None, "complete": False, "content_sha256": None})
        )

    def damage(self) -> list[str]:
        """Read everything back; what is damaged or missing, a line each.

        Of a store without digests that each object is whole in itself; else that it is what was
        written here.
        """
        shards = [
            f"{_shard(shard, self.rows(shard))}: {problem}"
            for shard, problem in self.damaged_shards().items()
        ]
        return [*shards, *self.damaged_levels().values(), *self.damaged_beside()]

    def damaged_beside(self) -> list[str]:
        """What is damaged or missing beside the shards, a line each."""
        changed = self.changed()
        found = [line for line in self._lost_arrays() if line.split(":")[0] not in changed]
        found += [f"{name}: {problem}" for name, problem in changed.items()]
        for name in ("flags", *SINGLE_CHUNK):
            if name not in changed and (problem := self._problem(name)):
                found.append(f"{name}: {problem}")
        if strays := self._shards.strays():
            names = [str(place.relative_to(self.path)) for place in strays]
            found.append(f"pyramid: objects that are none of it: {', '.join(names)}")
        if not changed and (problem := self.changed_attribute()):
            found.append(problem)
        return found

    def damaged_shards(self) -> dict[int, str]:
        """Shards that are missing or not as they were written, and what is wrong with each."""
        readable = "tiles" in self._arrays and "tiles" not in self.changed()
        found = {}
        for shard in range(self.shards):
            problem = self._shards.problem(shard)
            if problem is None and readable:
                problem = self._problem("tiles", self.rows(shard))
            if problem is not None:
                found[shard] = problem
        return found

    def damaged_levels(self) -> dict[int, str]:
        """What is wrong with what is made of all shards, by numbers that `drop` takes."""
        pyramid = self._shards.pyramid
        found = pyramid.damaged_levels(self._shards.of_all()) if pyramid is not None else {}
        return {number: f"pyramid: {problem}" for number, problem in found.items()}

    def changed(self) -> dict[str, str]:
        """What was written with the store and is not as it was; nothing in one without digests."""
        if self.meta.identity_sha256 is None:
            return {}
        found = {}
        if self.meta.identity_sha256 != self.identity:
            found[ATTRIBUTE] = OTHER_ATTRIBUTE
        for name in self._objects.written:
            try:
                same = self._objects.digest(name) == (self.meta.arrays_sha256 or {}).get(name)
            except OSError:
                same = False
            if not same:
                found[name] = "missing, or not as it was written"
        return found

    @property
    def codec(self) -> Codec:
        """What its tiles are compressed with."""
        return codec_of(self.meta.codec, self.meta.lossy_quality)

    @property
    def is_sealed(self) -> bool:
        """Whether there are digests; stores of earlier versions have none."""
        return self.meta.identity_sha256 is not None

    def changed_attribute(self) -> str | None:
        """What is wrong with the attribute, as far as digests say; None: nothing.

        Whether a finished store is what was finished is not asked while a shard is missing.
        """
        if not self.is_sealed:
            return None
        if self.meta.identity_sha256 != self.identity:
            return f"{ATTRIBUTE}: {OTHER_ATTRIBUTE}"
        found = self._shards.of_whole()
        if not self.meta.complete or found is None:
            return None
        said = dict(self._group.attrs[ATTRIBUTE])  # type: ignore[arg-type]
        content = digests.of_content(said, found)
        if content == self.meta.content_sha256:
            return None
        return f"{ATTRIBUTE}: counts or digest are not those that the store was finished with"

    def _read_tiles(self, shard: int, which: Sequence[int], out: Sequence[UInt8]) -> None:
        home = self._shards.homes[0]
        what = f"{self.path}: {home.name}: {_shard(shard, self.rows(shard))}"
        try:
            home.read(shard, which, out)
        except FileNotFoundError as error:
            if self.meta.complete:
                raise StoreError(f"{what}: missing, or some of it; {REMEDY}") from error
            for tile in out:
                tile[...] = 255
        except _DECODE_ERRORS as error:
            raise StoreError(f"{what}: {error}; {REMEDY}") from error

    def _read(self, name: str, rows: int | slice = slice(None)) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._arrays[name][rows])
        except _DECODE_ERRORS as error:
            raise StoreError(f"{self.path}: {name}: {error}; {REMEDY}") from error

    def _problem(self, name: str, rows: slice = slice(None)) -> str | None:
        """Why an array cannot be read, in the words of zarr."""
        try:
            self._read(name, rows)
        except StoreError as error:
            return str(error.__cause__)
        return None

    def _set_meta(self, meta: StoreMeta) -> None:
        try:
            self._group.attrs[ATTRIBUTE] = meta.model_dump(mode="json")
        except OSError as error:
            raise StoreError(f"{self.path}: cannot write the store: {error}") from error
        self.meta = meta
        self._stamp = self.stamp(self.path)


def taken_over(path: Path) -> StoreError:
    """What a run says whose store is another one by now."""
    return StoreError(
        f"{path}: another run has taken this store over, with other settings, model or slide; it "
        "is left to that run. Use another --output for this one"
    )


def _shard(shard: int, rows: slice) -> str:
    return f"shard {shard} (tiles {rows.start}-{rows.stop - 1})"


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
        raise StoreError(f"{path}: {name}: {error}; {REMEDY}") from error
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{path}: the array {name} is missing; {REMEDY}")
    return array
