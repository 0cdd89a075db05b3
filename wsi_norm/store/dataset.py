"""TileDataset: normalised tiles for a torch DataLoader."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from wsi_norm.store.tilestore import TileStore


class TileDataset(Dataset[Any]):
    """The tiles of one or more stores, in the order of the paths; map-style.

    Parameters
    ----------
    paths
        One store or several.
    transform
        Called with each tile, a uint8 tensor (3, H, W); None returns the tensor.

    Raises
    ------
    StoreError
        A path is no complete store.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        transform: Callable[[torch.Tensor], Any] | None = None,
    ) -> None:
        self.paths = [paths] if isinstance(paths, str | Path) else list(paths)
        self.transform = transform
        self._stores = [TileStore.open(path) for path in self.paths]
        self._ends = list(accumulate(len(store) for store in self._stores))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Any:
        store, row = self.locate(index)
        tile = torch.from_numpy(self._stores[store][row].copy()).permute(2, 0, 1).contiguous()
        return tile if self.transform is None else self.transform(tile)

    def locate(self, index: int) -> tuple[int, int]:
        """Which store (position in `paths`) and which of its rows an index means."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        index %= len(self)
        store = bisect_right(self._ends, index)
        return store, index - (self._ends[store - 1] if store else 0)
