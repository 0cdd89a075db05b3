"""Tiles of a finished store computed anew from its slide, by the route of a run."""

from __future__ import annotations

import numpy as np
import torch

from wsi_norm.choices import HOMES
from wsi_norm.errors import SlideError, StoreError
from wsi_norm.pipeline.job import SlideJob
from wsi_norm.pipeline.kept import kept_normalizer, kept_slide, kept_store, release_slide
from wsi_norm.pipeline.shards import normalized
from wsi_norm.pipeline.tiles import read_tiles, spread
from wsi_norm.slide import fingerprint, slide_files
from wsi_norm.store import ModelMeta, StoreMeta, TileFlag

OTHER_BYTES = 0.01
"""Share of a tile's bytes that may differ by more than a grey level: processors round otherwise."""


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
    torch.set_num_threads(1)
    layout = kept_store(job.store)
    store, meta = layout.store, layout.store.meta
    try:
        slide = kept_slide(job, meta)
        _check_same(job, meta)
        grid = layout.grid
        rows = {grid.tile_at(x, y): row for row, (x, y) in enumerate(layout.coords.tolist())}
        sample = spread(list(rows), number) if HOMES[meta.layout] else []
        flags, found = store.flags, []
        for tile in sample:
            row = rows[tile]
            pixels, errors = read_tiles(slide, grid, [tile])
            if flags[row] & TileFlag.UNREADABLE and errors[0] is None:
                continue
            done, _ = normalized(job, meta, pixels, np.array([errors[0] is None]))
            apart = np.abs(done[0].astype(np.int16) - store[row]) > 1
            if apart.mean() > OTHER_BYTES:
                found.append(row)
    finally:
        release_slide()
    return len(sample), found


def _check_same(job: SlideJob, meta: StoreMeta) -> None:
    files = slide_files(job.source.path)
    seen = kept_slide(job, meta)
    if (
        (seen.path.stat().st_size, fingerprint(seen.path))
        != (meta.slide.size_bytes, meta.slide.sha256_first_mib)
    ) or meta.slide.sha256_samples not in (None, files.sha256):
        raise SlideError(
            f"{job.source.path}: not the slide that {job.store} was made of, or changed since"
        )
    model = ModelMeta(**kept_normalizer(job.model, job.config).facts())
    without = {"provenance"}
    if model.model_dump(exclude=without) != meta.model.model_dump(exclude=without):
        raise StoreError(
            f"{job.store}: made with another normaliser than the run.json beside it names"
        )
