"""What is written of a store before its shards: settings, arrays as they are planned, no tiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.buffer import Buffer
from zarr.storage import MemoryStore

from wsi_norm import location
from wsi_norm.choices import HOMES
from wsi_norm.errors import StoreError
from wsi_norm.store import digests, encoding
from wsi_norm.store.encoding import UInt8
from wsi_norm.store.metadata import DIMENSIONS, StoreMeta
from wsi_norm.store.objects import ATTRIBUTE, ROOT, Objects, attribute
from wsi_norm.store.ome import create_pyramid
from wsi_norm.store.shards import Shards


def write_draft(
    draft: Path,
    meta: StoreMeta,
    *,
    coords: npt.NDArray[np.int64],
    tissue_fraction: npt.NDArray[np.float32],
    tissue_mask: npt.NDArray[np.bool_],
    mask_downsample: tuple[float, float],
    thumbnail: UInt8,
    thumbnail_normalized: UInt8,
) -> None:
    """Write a store without tiles in a place that is its own; OSError if that cannot be done.

    It is made in memory: zarr hands every object that goes to a disk to a thread of its own.
    """
    made: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(made))
    encoding.create_arrays(
        group,
        len(coords),
        meta.tiling.tile_size_px,
        meta.tiling.tiles_per_shard,
        encoding.codec_of(meta.codec, meta.lossy_quality)
        if "tiles" in HOMES[meta.layout]
        else None,
    )
    size = meta.slide.width_px, meta.slide.height_px
    thumbnail_scale = {"downsample": [size[0] / thumbnail.shape[1], size[1] / thumbnail.shape[0]]}
    _save(group, "coords", coords)
    _save(group, "tissue_fraction", tissue_fraction)
    _save(group, "tissue_mask", tissue_mask, {"downsample": list(mask_downsample)})
    _save(group, "thumbnail", thumbnail, thumbnail_scale)
    _save(group, "thumbnail_normalized", thumbnail_normalized, thumbnail_scale)
    if "pyramid" in HOMES[meta.layout]:
        grid = meta.tiling.grid(meta.slide)
        cells = [grid.tile_at(x, y) for x, y in coords.tolist()]
        create_pyramid(group, meta, cells, tissue_mask, mask_downsample)
    _write(draft, made)
    group.attrs[ATTRIBUTE] = _identified(Objects(draft, meta, len(coords)))
    _write(draft, {ROOT: made[ROOT]})


def mend(path: Path, draft: Path, meta: StoreMeta, tiles: int) -> None:
    """Put what a store should hold, but for its shards, in the place of what differs there."""
    made = attribute(draft)["identity_sha256"]
    shards = Shards(Objects(path, meta.model_copy(update={"identity_sha256": made}), tiles))
    try:
        same = attribute(path).get("identity_sha256") == made
    except (OSError, ValueError, AttributeError):
        same = False
    bare = {place.name for place in location.listing(path, "*")} <= {*DIMENSIONS, "pyramid", ROOT}
    if not (same or (bare and not shards.begun) or shards.are_of_here()):
        raise StoreError(
            f"{path}: cannot be repaired: nothing in it is of this slide, with these settings, "
            "versions and kind of machine; use --overwrite, or move it away"
        )
    files = [place for place in location.listing(draft, "**/*") if place.is_file()]
    for file in sorted(files, key=lambda file: file == draft / ROOT):  # which comes last
        place, data = path / file.relative_to(draft), location.read_bytes(file)
        if not _holds(place, data):
            location.write_whole(place, [data])


def _holds(place: Path, data: bytes) -> bool:
    try:
        return location.read_bytes(place) == data
    except OSError:
        return False


def _write(folder: Path, made: Mapping[str, Buffer]) -> None:
    for name, data in made.items():
        location.write_whole(folder / name, [data.as_buffer_like()])


def _identified(objects: Objects) -> dict[str, Any]:
    """The attribute of a new store, with the digests of what is written of it."""
    arrays = {name: objects.digest(name) for name in objects.written}
    said = objects.meta.model_copy(update={"arrays_sha256": arrays}).model_dump(mode="json")
    return said | {"identity_sha256": digests.of_identity(said)}


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
