"""The route of one shard: read -> normalise -> write."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from wsi_norm.errors import ReadError, SlideError
from wsi_norm.geometry import Tile, TileGrid
from wsi_norm.lstainnorm import Statistics
from wsi_norm.machine import peak_memory_bytes
from wsi_norm.normalizers.base import StainNormalizer
from wsi_norm.normalizers.fused import fill_of
from wsi_norm.pipeline.job import ShardResult, SlideJob, SomeShards
from wsi_norm.pipeline.kept import (
    check_files,
    check_owner,
    kept_normalizer,
    kept_slide,
    kept_store,
    release_slide,
)
from wsi_norm.pipeline.tiles import read_tiles
from wsi_norm.slide import LeftOut
from wsi_norm.stages import Seconds, Stage
from wsi_norm.store import StoreMeta, TileFlag

UInt8 = npt.NDArray[np.uint8]

MOSTLY = 0.5
"""A tile with more fill than this share is flagged."""

TASK_SECONDS = 0.5
"""A task of several shards begins none after that: it is as far from hanging as with one."""


def some_shards(
    process: Callable[[SlideJob, int], ShardResult], job: SlideJob, shards: Sequence[int]
) -> SomeShards:
    """Do one shard after the other, the first at any rate, until `TASK_SECONDS` are over."""
    until = time.monotonic() + TASK_SECONDS
    results = [process(job, shards[0])]
    for shard in shards[1:]:
        if time.monotonic() > until:
            break
        results.append(process(job, shard))
    return SomeShards(tuple(results), tuple(shards[len(results) :]))


def process_shard(job: SlideJob, shard: int) -> ShardResult:
    """Fill one shard of a prepared store. Idempotent: running it twice writes the same bytes.

    Raises
    ------
    SlideError
        The slide cannot be read, or is another than the one that was planned.
    StoreError
        The store cannot be written, or is another run's by now.
    """
    layout = kept_store(job.store)
    store, grid = layout.store, layout.grid
    check_owner(job, store)
    tiles = [grid.tile_at(x, y) for x, y in layout.coords[store.rows(shard)].tolist()]
    seconds = Seconds()
    with seconds.spent(Stage.READING):
        try:
            check_files(job)  # it may be opened anew
            try:
                slide = kept_slide(job, store.meta)
                pixels, errors = read_tiles(slide, grid, tiles)
            finally:  # what a file that changes is read as, be it an error, says nothing
                check_files(job)
        except SlideError:
            release_slide()
            raise
    with seconds.spent(Stage.COMPUTING):
        readable = np.array([error is None for error in errors])
        normalizer = kept_normalizer(job.model, job.config)
        done, usable = normalized(normalizer, store.meta, pixels, readable)
    with seconds.spent(Stage.WRITING):
        left_out = slide.metadata.left_out.get(grid.level.index)
        store.write_shard(shard, done, flags_of(grid, tiles, errors, usable, pixels, left_out))
    failed = [index for index, error in enumerate(errors) if error is not None]
    return ShardResult(
        shard=shard,
        tiles=len(tiles),
        unreadable=tuple(grid.origin(tiles[index]) for index in failed),
        first_read_error=str(errors[failed[0]]) if failed else None,
        seconds=seconds,
        worker=f"{platform.node()}:{os.getpid()}",
        peak_memory_bytes=peak_memory_bytes(),
    )


def normalized(
    normalizer: StainNormalizer,
    meta: StoreMeta,
    pixels: UInt8,
    readable: npt.NDArray[np.bool_],
) -> tuple[UInt8, npt.NDArray[np.bool_]]:
    """Normalised tiles, and which had usable statistics; the others are as they were."""
    if meta.statistics is None and meta.model.statistics == "slide":
        return pixels, np.zeros(len(pixels), np.bool_)
    statistics = Statistics.from_dict(meta.statistics) if meta.statistics is not None else None
    if readable.all():
        return normalizer.normalize(pixels, statistics, meta.white)
    done, usable = pixels.copy(), np.ones(len(pixels), np.bool_)
    if readable.any():
        done[readable], usable[readable] = normalizer.normalize(
            pixels[readable], statistics, meta.white
        )
    return done, usable


def flags_of(
    grid: TileGrid,
    tiles: Sequence[Tile],
    errors: Sequence[ReadError | None],
    usable: npt.NDArray[np.bool_],
    pixels: UInt8,
    left_out: LeftOut | None,
) -> UInt8:
    """uint8 (N,): the bits of each tile, given its pixels as they were read."""
    flags = np.zeros(len(tiles), np.uint8)
    for index, (tile, error) in enumerate(zip(tiles, errors, strict=True)):
        if error is not None:
            flags[index] |= TileFlag.UNREADABLE
        elif not usable[index]:
            flags[index] |= TileFlag.PASSED_THROUGH
        if grid.touches_edge(tile):
            flags[index] |= TileFlag.EDGE
        if left_out is not None and left_out.of(grid.box(tile)).any():
            flags[index] |= TileFlag.LEFT_OUT
        fill = fill_of(pixels[index])
        if fill is not None and fill.mean() > MOSTLY:
            flags[index] |= TileFlag.FILL
    return flags
