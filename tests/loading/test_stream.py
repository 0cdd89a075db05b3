"""A TileStream gives each tile once, over all ranks and workers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.builders import written_store
from tests.loading.test_samplers import Shards, sizes
from wsi_norm import TileDataset, TileStream
from wsi_norm.loading import stream


class Numbers(Shards):
    """A dataset whose samples are its indices."""

    def __getitems__(self, indices: range) -> list[int]:
        return list(indices)


def of_worker(mine: TileStream, number: int, workers: int) -> list[int]:
    """What a worker of a DataLoader gets."""
    with pytest.MonkeyPatch.context() as patch:
        info = SimpleNamespace(id=number, num_workers=workers)
        patch.setattr(stream, "get_worker_info", lambda: info)
        return list(mine)


@settings(deadline=None)
@given(
    sizes,
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 9),
)
def test_each_tile_once(
    sizes: list[int], world_size: int, workers: int, buffer: int, shuffle: bool, epoch: int
) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        mine = TileStream(
            Numbers(sizes),  # type: ignore[arg-type]
            shuffle=shuffle,
            buffer=buffer,
            rank=rank,
            world_size=world_size,
        )
        mine.set_epoch(epoch)
        found = [n for number in range(workers) for n in of_worker(mine, number, workers)]
        assert len(found) == len(mine)
        seen += found
    assert Counter(seen) == Counter(range(sum(sizes)))


def test_without_shuffling_it_is_the_datasets_order() -> None:
    mine = TileStream(Numbers([3, 1, 4]))  # type: ignore[arg-type]
    assert list(mine) == list(range(8)) == list(mine)


def test_shuffled_it_is_another_order_each_epoch() -> None:
    mine = TileStream(Numbers([4] * 9), shuffle=True, seed=2)  # type: ignore[arg-type]
    first = list(mine)
    assert first == list(mine) != list(range(36))
    mine.set_epoch(1)
    assert first != list(mine)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_that_stay_hear_of_the_epoch(tmp_path: Path, method: str) -> None:
    tiles = [written_store(tmp_path / f"{name}.zarr", n) for name, n in (("a", 21), ("b", 6))]
    expected = Counter(tile.tobytes() for part in tiles for tile in part)
    mine = TileStream(TileDataset(sorted(tmp_path.glob("*.zarr"))), shuffle=True)
    options: dict[str, Any] = {"multiprocessing_context": method, "timeout": 100}
    loader = DataLoader(mine, 4, num_workers=2, persistent_workers=True, **options)
    orders = []
    for epoch in (0, 1):
        mine.set_epoch(epoch)
        batches = torch.cat(list(loader)).permute(0, 2, 3, 1).numpy()
        orders.append([tile.tobytes() for tile in batches])
        assert Counter(orders[-1]) == expected
    assert orders[0] != orders[1]
