"""HDF5 as CLAM's and TRIDENT's readers expect it: coordinates, with or without the tiles' pixels.

Both tools keep a dataset `coords` (N, 2) whose attributes say what a patch is, under different
names; one file has both sets. They look for it as `patches/NAME.h5` (CLAM) and
`patches/NAME_patches.h5` (TRIDENT).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

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
    try:
        with h5py.File(draft, "w") as file:
            file.attrs[ORIGIN] = job.origin
            file.create_dataset("coords", data=where.coords).attrs.update(
                _trident(store, where) | _clam(store, where)
            )
            file.create_dataset("flags", data=store.flags)
            file.create_dataset("tissue_fraction", data=store.tissue_fraction)
            if job.options.pixels:
                _write_tiles(file, job, where)
            else:
                job.advance(len(store))
    except RuntimeError as error:  # h5py's, where a file cannot be closed
        raise OSError(str(error)) from error


def _write_tiles(file: Any, job: Job, where: Frame) -> None:
    store, edge = job.store, job.store.meta.tiling.tile_size_px
    tile = (edge, edge, 3)
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
    for row, pixels in enumerate(store):
        images.id.write_direct_chunk(
            (row, 0, 0, 0), imagecodecs.deflate_encode(pixels.tobytes(), DEFLATE_LEVEL)
        )
        job.advance(1)


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
