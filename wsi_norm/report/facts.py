"""What a report reads beside the summary: each slide's store once, and the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsi_norm.config import read_yaml
from wsi_norm.errors import StoreError, WsiNormError
from wsi_norm.lstainnorm import LStainNorm, Template, load_checkpoint
from wsi_norm.lstainnorm.checkpoint import sha256_of
from wsi_norm.report.pictures import Box, Picture, picture, picture_with_tissue
from wsi_norm.report.results import RunSummary, SlideResult
from wsi_norm.store import StoreMeta, TileFlag, TileStore

WITHOUT_STORE = ("failed", "interrupted", "planned")
"""With these, a store of that name may be another slide's or another run's."""


@dataclass(frozen=True)
class StoreFacts:
    """What a slide's store says of it.

    Attributes
    ----------
    before, after
        The slide with its tissue outlined, and normalised.
    planned_tiles
        Tiles in the store once it is complete.
    tissue_share
        Of the slide's area, in [0, 1].
    unreadable_at
        (x, y) in level-0 px of every tile with flag 1.
    """

    meta: StoreMeta
    before: Picture
    after: Picture
    planned_tiles: int
    tissue_share: float
    unreadable_at: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ModelFacts:
    """The checkpoint: what it aims at (None: not known here) and how it was trained."""

    target: Template | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> str:
        """Yes, no or unknown, by the provenance's `training` ("none..." says no)."""
        stated = self.provenance.get("training")
        if not stated:
            return "not stated"
        return "no" if str(stated).startswith("none") else "yes"


def read_store(slide: SlideResult) -> StoreFacts | None:
    """What the store of a slide adds to its result; None if there is none, or a damaged one.

    The store of a slide that did not get as far as its plan is left alone: it is not of this run.
    """
    if slide.status in WITHOUT_STORE and not slide.seconds_planning:
        return None
    try:
        store = TileStore.open(slide.store, allow_partial=True)
        thumbnail, tissue = store.thumbnail, store.tissue_mask
        unreadable = _unreadable(store) if slide.unreadable else slide.unreadable_at
        return StoreFacts(
            meta=store.meta,
            before=picture_with_tissue(thumbnail, tissue, _boxes(store.meta, unreadable)),
            after=picture(store.thumbnail_normalized),
            planned_tiles=len(store),
            tissue_share=float(tissue.mean()),
            unreadable_at=unreadable,
        )
    except StoreError:
        return None


def read_model(summary: RunSummary, stores: Iterable[StoreFacts | None]) -> ModelFacts:
    """Target and provenance of a run's checkpoint, from the file or else from a store."""
    sha256 = summary.model.get("sha256")
    layer = _layer(summary)
    if layer is not None:
        return ModelFacts(layer.target, layer.provenance)
    for store in stores:
        if store is not None and store.meta.model.sha256 == sha256:
            return ModelFacts(None, store.meta.model.provenance)
    return ModelFacts()


def _layer(summary: RunSummary) -> LStainNorm | None:
    """The checkpoint, if that very file still is where the run had it."""
    path, template = summary.settings.get("ckpt"), summary.settings.get("template")
    try:
        if sha256_of(path) != summary.model.get("sha256"):
            return None
        return load_checkpoint(path, read_yaml(Path(template)) if template else None)
    except (WsiNormError, OSError):
        return None


def _unreadable(store: TileStore) -> tuple[tuple[int, int], ...]:
    rows = (store.flags & TileFlag.UNREADABLE) > 0
    return tuple((int(x), int(y)) for x, y in sorted(store.coords[rows].tolist()))


def _boxes(meta: StoreMeta, corners: Iterable[tuple[int, int]]) -> list[Box]:
    """Tiles as shares of the slide's width and height."""
    edge = meta.tiling.tile_size_px * meta.tiling.downsample
    shares = np.array([meta.slide.width_px, meta.slide.height_px] * 2)
    return [tuple(np.array([x, y, x + edge, y + edge]) / shares) for x, y in corners]
