"""HDF5 as CLAM's and TRIDENT's readers expect it: coordinates, with or without the tiles' pixels.

Both tools keep a dataset `coords` (N, 2) whose attributes say what a patch is, under different
names; one file has both sets. They look for it as `patches/NAME.h5` (CLAM) and
`patches/NAME_patches.h5` (TRIDENT).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import imagecodecs

from wsi_norm.errors import ExportError
from wsi_norm.export.base import Format, Job
from wsi_norm.export.frame import Frame, ImageOptions, frame
from wsi_norm.store import TileStore

ORIGIN = "wsi_norm"
"""Attribute of the file: its origin."""

DEFLATE_LEVEL = 1
"""Of libdeflate: as small as zlib's level 1, in half the time."""


@dataclass(frozen=True)
class H5Options(ImageOptions):
    """`pixels`: the tiles, too, as `imgs`. `image`: whose level-0 px `coords` are."""

    pixels: bool = False


def write(job: Job, draft: Path) -> None:
    """Write one file; memory for one shard."""
    h5py, store = _h5py(), job.store
    where = frame(store, job.options.image)
    with _Disk(draft) as disk:
        with h5py.File(disk, "w") as file:
            file.attrs[ORIGIN] = job.origin
            file.create_dataset("coords", data=where.coords).attrs.update(
                _trident(store, where) | _clam(store, where)
            )
            file.create_dataset("flags", data=store.flags)
            file.create_dataset("tissue_fraction", data=store.tissue_fraction)
            if job.options.pixels:
                images = _images(file, store, where)
                for row, tile in enumerate(store):
                    chunk = imagecodecs.deflate_encode(tile.tobytes(), DEFLATE_LEVEL)
                    images.id.write_direct_chunk((row, 0, 0, 0), chunk)
                    disk.check()
                    job.advance(1)
            else:
                job.advance(len(store))
        disk.check()


def _images(file: Any, store: TileStore, where: Frame) -> Any:
    """The dataset `imgs`, with a chunk for each tile."""
    tile = (where.tile_size, where.tile_size, 3)
    images = file.create_dataset(
        "imgs",
        shape=(len(store), *tile),
        maxshape=(None, *tile),
        chunks=(1, *tile),
        dtype="u1",
        compression="gzip",
        compression_opts=DEFLATE_LEVEL,
    )
    images.attrs.update({"wsi_name": store.meta.slide.name} | _clam(store, where))
    return images


class _Disk:
    """A file for HDF5, which may crash where a write fails: failures are kept from it.

    After the first one nothing more is written; `check` raises it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x+b", buffering=0)
        self._failure: OSError | KeyboardInterrupt | None = None
        self.seek, self.tell = self._file.seek, self._file.tell
        self.read, self.readinto = self._file.read, self._file.readinto

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def check(self) -> None:
        """Raise what kept anything from being written."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: Any) -> int:
        """Write at the position, or seem to."""
        rest = memoryview(data)
        while rest and self._failure is None:
            try:
                rest = rest[self._file.write(rest) :]
            except (OSError, KeyboardInterrupt) as error:
                self._failure = error
        return len(data)

    def truncate(self, size: int) -> int:
        """Set the length, or seem to."""
        if self._failure is None:
            try:
                self._file.truncate(size)
            except (OSError, KeyboardInterrupt) as error:
                self._failure = error
        return size

    def flush(self) -> None:
        """Nothing is held back."""


def _trident(store: TileStore, where: Frame) -> dict[str, Any]:
    """What TRIDENT asks of `coords`. Of the two magnifications it takes the ratio alone."""
    tiling, magnification = store.meta.tiling, 10 / store.meta.tiling.mpp_um
    return {
        "patch_size": tiling.tile_size_px,
        "patch_size_level0": where.edge,
        "level0_magnification": magnification * where.downsample,
        "target_magnification": magnification,
        "overlap": tiling.overlap_px,
        "name": store.meta.slide.name,
        "savetodir": ".",
        "level0_width": where.width,
        "level0_height": where.height,
    }


def _clam(store: TileStore, where: Frame) -> dict[str, Any]:
    """What CLAM asks of `coords` and `imgs`; no level where none has the tiles' resolution."""
    size = (where.level_width, where.level_height)
    facts = {
        "name": store.meta.slide.name,
        "save_path": ".",
        "downsample": (where.level_downsample,) * 2,
        "level_dim": size,
        "downsampled_level_dim": size,
    }
    return facts | ({"patch_level": where.level} if where.has_resolution else {})


def origin(place: Path) -> str | None:
    """What `write` was given; None of any other file."""
    h5py = _h5py()
    try:
        with h5py.File(place, "r") as file:
            said = file.attrs.get(ORIGIN)
    except (OSError, RuntimeError):
        return None
    return said if isinstance(said, str) else None


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise ExportError("HDF5 needs h5py: pip install 'wsi-norm[export]'") from error
    module: ModuleType = h5py
    return module


CLAM = Format(".h5", write, origin, H5Options)
TRIDENT = Format("_patches.h5", write, origin, H5Options)
