"""What a report reads beside the summary: each slide's store, once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsi_norm.errors import StoreError
from wsi_norm.report.pictures import Pair, Picture, Shares, Shelf, picture, picture_with_tissue
from wsi_norm.report.results import SlideResult
from wsi_norm.stages import Stage
from wsi_norm.store import StoreMeta, TileFlag, TileStore, finished

WITHOUT_STORE = ("failed", "interrupted", "planned")
"""With these, a store of that name may be another slide's or another run's."""


@dataclass(frozen=True)
class StoreFacts:
    """What a slide's store says of it.

    Attributes
    ----------
    before, after
        The slide with its tissue outlined, and normalised; None where there was no time to draw.
    planned_tiles
        Tiles in the store once it is complete.
    tissue_share
        Of the slide's area, in [0, 1].
    unreadable_at
        (x, y) in level-0 px of every tile with flag 1.
    """

    meta: StoreMeta
    before: Picture | None
    after: Picture | None
    planned_tiles: int
    tissue_share: float
    unreadable_at: tuple[tuple[int, int], ...]


def read_store(
    slide: SlideResult, shelf: Shelf | None = None, known_only: bool = False
) -> StoreFacts | None:
    """What the store of a slide adds to its result; None if there is none, or a damaged one.

    The store of a slide that did not get as far as its plan is left alone: it is not of this run.

    Parameters
    ----------
    slide
        The result.
    shelf
        Where the pictures go; None: into the page.
    known_only
        Draw nothing: there are pictures if the shelf has them already.
    """
    if slide.status in WITHOUT_STORE and Stage.PLANNING not in slide.spent.wall:
        return None
    known = _known(slide, shelf)
    if known_only or (known is not None and known.before is not None):
        return known
    try:
        return _drawn(slide, TileStore.open(slide.store, allow_partial=True), shelf)
    except StoreError:
        return None


def _known(slide: SlideResult, shelf: Shelf | None) -> StoreFacts | None:
    """From the attribute of a finished store alone, with the pictures that are on the shelf."""
    meta = finished(Path(slide.store))
    if meta is None or meta.counts is None or meta.tissue_share is None:
        return None
    found = shelf.find(_digest(meta, ())) if shelf is not None and not slide.unreadable else None
    before, after = found or (None, None)
    tiles, unreadable = meta.counts["tiles"], slide.unreadable_at
    return StoreFacts(meta, before, after, tiles, meta.tissue_share, unreadable)


def _drawn(slide: SlideResult, store: TileStore, shelf: Shelf | None) -> StoreFacts:
    thumbnail, tissue = store.thumbnail, store.tissue_mask
    unreadable = _unreadable(store) if slide.unreadable else slide.unreadable_at
    before = picture_with_tissue(thumbnail, tissue, _shares(store.meta, unreadable))
    after = picture(store.thumbnail_normalized)
    shown: Pair = before.inside(), after.inside()
    if shelf is not None:
        shown = shelf.put(_digest(store.meta, unreadable), before, after)
    return StoreFacts(store.meta, *shown, len(store), float(tissue.mean()), unreadable)


def _digest(meta: StoreMeta, unreadable: Iterable[tuple[int, int]]) -> str:
    """Names the pictures: equal stores have equal ones."""
    text = meta.model_dump_json() + str(list(unreadable))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _unreadable(store: TileStore) -> tuple[tuple[int, int], ...]:
    rows = (store.flags & TileFlag.UNREADABLE) > 0
    return tuple((int(x), int(y)) for x, y in sorted(store.coords[rows].tolist()))


def _shares(meta: StoreMeta, corners: Iterable[tuple[int, int]]) -> list[Shares]:
    edge = meta.tiling.tile_size_px * meta.tiling.downsample
    width, height = meta.slide.width_px, meta.slide.height_px
    return [(x / width, y / height, (x + edge) / width, (y + edge) / height) for x, y in corners]
