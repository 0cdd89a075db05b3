"""Tiles of a finished store computed anew from its slide, by the route of a run."""

from __future__ import annotations

import numpy as np

from wsi_norm.choices import HOMES
from wsi_norm.errors import SlideError, StoreError
from wsi_norm.pipeline.job import SlideJob
from wsi_norm.pipeline.kept import kept_normalizer, kept_slide, kept_store, release_slide
from wsi_norm.pipeline.origin import files_of, is_model
from wsi_norm.pipeline.shards import normalized
from wsi_norm.pipeline.tiles import read_tiles, spread
from wsi_norm.store import StoreMeta, TileFlag

OTHER_BYTES = 0.01
"""Share of a tile's bytes that may differ by more than a grey level: processors round otherwise."""

OTHER_BYTES_LOSSY = 0.1
"""The same after a lossy codec: a byte that is rounded otherwise may move a block of 64 px."""


def other_tiles(job: SlideJob, number: int) -> tuple[int, list[int]]:
    """Which of at most `number` tiles, spread over a store, are not what its slide gives.

    Returns
    -------
    How many were computed, and the rows of those that are others. Tiles that could not be read when
    the store was written, and can be now, are no others. Of a plan there are none: there it is
    looked alone whether slide and normaliser are the same.

    Raises
    ------
    SlideError
        The slide cannot be read, or is another by now.
    StoreError, CheckpointError
        The store is damaged, or the normaliser is not the one that it was made with.
    """
    layout = kept_store(job.store)
    store, meta = layout.store, layout.store.meta
    try:
        slide = kept_slide(job, meta)
        _check_same(job, meta)
        normalizer = kept_normalizer(job.model, job.config)
        grid = layout.grid
        rows = {grid.tile_at(x, y): row for row, (x, y) in enumerate(layout.coords.tolist())}
        sample = spread(list(rows), number) if HOMES[meta.layout] else []
        flags, found = store.flags, []
        for tile in sample:
            row = rows[tile]
            pixels, errors = read_tiles(slide, grid, [tile])
            if flags[row] & TileFlag.UNREADABLE and errors[0] is None:
                continue
            readable = np.array([errors[0] is None])
            done, _ = normalized(normalizer, meta, pixels, readable)
            again = store.codec.seen(done[0])
            apart = np.abs(again.astype(np.int16) - store[row]) > 1
            if apart.mean() > (OTHER_BYTES if store.codec.quality is None else OTHER_BYTES_LOSSY):
                found.append(row)
    finally:
        release_slide()
    return len(sample), found


def _check_same(job: SlideJob, meta: StoreMeta) -> None:
    if files_of(job.source.path, meta.slide) is None:
        raise SlideError(
            f"{job.source.path}: not the slide that {job.store} was made of, or changed since"
        )
    if not is_model(kept_normalizer(job.model, job.config), meta.model):
        raise StoreError(
            f"{job.store}: made with another normaliser than the run.json beside it names"
        )
