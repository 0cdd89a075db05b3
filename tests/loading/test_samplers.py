"""The order of a ShardSampler: each tile once, together what lies together, all ranks alike."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.builders import written_store
from wsi_norm import ShardSampler, TileDataset

sizes = st.lists(st.integers(1, 9), max_size=20)


class Shards:
    """What a sampler asks of a dataset with shards of these sizes."""

    def __init__(self, sizes: list[int]) -> None:
        self.ends = list(accumulate(sizes))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def shards(self) -> list[range]:
        return [range(a, b) for a, b in zip([0, *self.ends], self.ends, strict=False)]


def sampler(sizes: list[int], **options: Any) -> ShardSampler:
    return ShardSampler(Shards(sizes), **options)  # type: ignore[arg-type]


@settings(deadline=None)
@given(sizes, st.integers(1, 5), st.integers(1, 6), st.booleans(), st.booleans(), st.integers(0, 9))
def test_each_tile_once_and_all_ranks_alike(
    sizes: list[int], world_size: int, buffer: int, shuffle: bool, drop_last: bool, epoch: int
) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        mine = sampler(
            sizes,
            shuffle=shuffle,
            buffer=buffer,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        mine.set_epoch(epoch)
        found = list(mine)
        assert len(found) == len(mine)
        seen += found
    total, counts = sum(sizes), Counter(seen)
    assert len(seen) % world_size == 0
    if drop_last:
        assert set(counts.values()) <= {1}
        assert total - len(seen) < world_size
    else:
        assert set(counts) == set(range(total))
        assert len(seen) - total < world_size


@settings(deadline=None)
@given(sizes, st.integers(1, 6))
def test_tiles_of_a_few_shards_come_together(sizes: list[int], buffer: int) -> None:
    order, shards = list(sampler(sizes, buffer=buffer)), Shards(sizes).shards()
    of = {tile: number for number, shard in enumerate(shards) for tile in shard}
    while order:
        held = list(dict.fromkeys(of[tile] for tile in order))
        number = sum(len(shards[shard]) for shard in held[:buffer])
        if len(held) > buffer:  # the first ones seen may not be all of a window
            number = next(n for n in range(1, len(order) + 1) if whole(order[:n], of, shards))
        window, order = order[:number], order[number:]
        assert whole(window, of, shards)
        assert len({of[tile] for tile in window}) <= buffer


def whole(tiles: list[int], of: dict[int, int], shards: list[range]) -> bool:
    """Whether tiles are all those of some shards."""
    return set(tiles) == {tile for shard in {of[tile] for tile in tiles} for tile in shards[shard]}


def test_epochs_and_seeds_are_other_orders() -> None:
    one = sampler([4] * 30, seed=3)
    first = list(one)
    assert first == list(one) == list(sampler([4] * 30, seed=3))
    assert first != list(range(120)) != list(sampler([4] * 30, seed=4))
    one.set_epoch(1)
    assert first != list(one)
    assert list(sampler([4] * 30, shuffle=False)) == list(range(120))


@pytest.mark.parametrize(
    "options", [{"buffer": 0}, {"rank": 1}, {"rank": 2, "world_size": 2}, {"world_size": 2}]
)
def test_what_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give"):
        sampler([1], **options)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_with_workers_that_stay(tmp_path: Path) -> None:
    tiles = written_store(tmp_path / "a.zarr", 21)
    dataset = TileDataset(tmp_path / "a.zarr")
    mine = ShardSampler(dataset, buffer=2)
    loader = DataLoader(
        dataset, 4, sampler=mine, num_workers=2, persistent_workers=True, timeout=100
    )
    orders = []
    for epoch in (0, 1):
        mine.set_epoch(epoch)
        batches = torch.cat(list(loader)).permute(0, 2, 3, 1).numpy()
        orders.append([tile.tobytes() for tile in batches])
        assert sorted(orders[-1]) == sorted(tile.tobytes() for tile in tiles)
    assert orders[0] != orders[1]
