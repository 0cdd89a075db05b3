"""Open stores and slides of a dataset, few at once: each thread of each process has its own."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from wsi_norm.errors import StoreError
from wsi_norm.store import TileStore

if TYPE_CHECKING:
    from wsi_norm.loading.origin import Origin

UInt8 = npt.NDArray[np.uint8]

MOST_STORES = 512
"""Stores that a thread keeps open: no files, but their metadata and coordinates."""

MOST_SLIDES = 8
"""Slides that a thread keeps open, each with 16 MiB of decoded tiles."""


class Opened(Protocol):
    """Tiles at hand."""

    @property
    def coords(self) -> npt.NDArray[np.int64]:
        """(N, 2): of all rows."""

    def read(self, rows: list[int]) -> tuple[UInt8, UInt8]:
        """Tiles (n, T, T, 3) and flags (n,) of rows."""

    def close(self) -> None:
        """Close what is open."""


class StoredTiles:
    """Tiles that a store holds."""

    def __init__(self, store: TileStore) -> None:
        self.coords, self._flags = store.coords, store.flags
        self._store = store

    def read(self, rows: list[int]) -> tuple[UInt8, UInt8]:
        """See `Opened.read`."""
        return self._store.read(rows), self._flags[rows]

    def close(self) -> None:
        """Nothing is open between reads."""


class Handles(threading.local):
    """What this thread has open.

    A forked process has a copy of its parent's, which it lets go: a slide of another process is not
    closed by that.
    """

    def __init__(self) -> None:
        self._begin()

    def opened(self, path: Path, identity: str, origin: Origin | None) -> Opened:
        """A store's tiles, opened if need be; StoreError if it is another store by now."""
        if self._process != os.getpid():
            self._begin()
        kept, most = (self._stores, MOST_STORES) if origin is None else (self._slides, MOST_SLIDES)
        key = path, identity
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        while len(kept) >= most:
            kept.popitem(last=False)[1].close()
        kept[key] = _open(path, identity, origin)
        return kept[key]

    def _begin(self) -> None:
        self._process = os.getpid()
        self._stores: OrderedDict[Any, Opened] = OrderedDict()
        self._slides: OrderedDict[Any, Opened] = OrderedDict()


def _open(path: Path, identity: str, origin: Origin | None) -> Opened:
    store = TileStore.open(path)
    if store.identity != identity:
        raise StoreError(
            f"{path}: another store than when the dataset was made; make the dataset anew"
        )
    if origin is None:
        return StoredTiles(store)
    from wsi_norm.loading.planned import PlannedTiles

    return PlannedTiles(store, origin)
