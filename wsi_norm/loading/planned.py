"""Tiles of a plan, computed from its slide as they are asked for: by the route of a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from wsi_norm.errors import SlideError
from wsi_norm.loading.origin import Origin, loaded
from wsi_norm.pipeline.origin import check_pixels
from wsi_norm.pipeline.shards import flags_of, normalized
from wsi_norm.pipeline.tiles import read_tiles
from wsi_norm.slide import open_slide
from wsi_norm.store import TileStore

UInt8 = npt.NDArray[np.uint8]


class PlannedTiles:
    """The slide of a plan, open; see `handles.Opened`.

    Raises
    ------
    SlideError
        The slide is gone, or it is another by now.
    """

    def __init__(self, store: TileStore, origin: Origin) -> None:
        self.coords = store.coords
        self._meta, self._origin, self._store = store.meta, origin, store.path
        self._grid = self._meta.tiling.grid(self._meta.slide)
        self._check()
        said = self._meta.slide
        self._slide = open_slide(
            origin.slide, said.reader, table_mpp_um=said.mpp_um, icc=self._meta.icc.choice
        )
        check_pixels(self._slide, self._meta, store.path)

    def read(self, rows: list[int]) -> tuple[UInt8, UInt8]:
        """See `Opened.read`; an unreadable tile is white, as in a store, and a warning says so."""
        tiles = [self._grid.tile_at(x, y) for x, y in self.coords[rows].tolist()]
        with _one_thread():
            pixels, errors = read_tiles(self._slide, self._grid, tiles)
            self._check()
            readable = np.array([error is None for error in errors])
            done, usable = normalized(loaded(self._origin.model), self._meta, pixels, readable)
        for error in filter(None, errors):
            warnings.warn(f"{error}; the tile is white", RuntimeWarning, stacklevel=4)
        left_out = self._slide.metadata.left_out.get(self._grid.level.index)
        return done, flags_of(self._grid, tiles, errors, usable, pixels, left_out)

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()

    def _check(self) -> None:
        if (changed := self._origin.files.changed()) is not None:
            raise SlideError(
                f"{changed}: changed since the dataset was made; it is no longer the slide that "
                f"{self._store} is a plan of"
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a run's tasks: sums keep their order, and workers beside each other their cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
