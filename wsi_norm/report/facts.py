"""What a report reads beside the summary: each slide's store, once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wsi_norm.errors import StoreError
from wsi_norm.report.pictures import Picture, Shares, picture, picture_with_tissue
from wsi_norm.report.results import SlideResult
from wsi_norm.stages import Stage
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


def read_store(slide: SlideResult) -> StoreFacts | None:
    """What the store of a slide adds to its result; None if there is none, or a damaged one.

    The store of a slide that did not get as far as its plan is left alone: it is not of this run.
    """
    if slide.status in WITHOUT_STORE and Stage.PLANNING not in slide.spent.wall:
        return None
    try:
        store = TileStore.open(slide.store, allow_partial=True)
        thumbnail, tissue = store.thumbnail, store.tissue_mask
        unreadable = _unreadable(store) if slide.unreadable else slide.unreadable_at
        return StoreFacts(
            meta=store.meta,
            before=picture_with_tissue(thumbnail, tissue, _shares(store.meta, unreadable)),
            after=picture(store.thumbnail_normalized),
            planned_tiles=len(store),
            tissue_share=float(tissue.mean()),
            unreadable_at=unreadable,
        )
    except StoreError:
        return None


def _unreadable(store: TileStore) -> tuple[tuple[int, int], ...]:
    rows = (store.flags & TileFlag.UNREADABLE) > 0
    return tuple((int(x), int(y)) for x, y in sorted(store.coords[rows].tolist()))


def _shares(meta: StoreMeta, corners: Iterable[tuple[int, int]]) -> list[Shares]:
    edge = meta.tiling.tile_size_px * meta.tiling.downsample
    width, height = meta.slide.width_px, meta.slide.height_px
    return [(x / width, y / height, (x + edge) / width, (y + edge) / height) for x, y in corners]
