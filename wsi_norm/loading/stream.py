"""TileStream: tiles as they come from the disk, shard by shard, each once over all workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from wsi_norm.loading.dataset import TileDataset
from wsi_norm.loading.samplers import checked_buffer, in_order, placed

BUFFER = 4
"""Shards that a worker holds at once, if nothing is said: 50 MB of tiles."""


class TileStream(IterableDataset[Any]):
    """The samples of a TileDataset as an iterable: the fastest way through all tiles.

    Every tile comes once: shards are dealt out to ranks, and those of a rank to the workers of its
    DataLoader, of which each reads its shards one after the other. So ranks may differ by a few
    shards; a distributed training that needs equally many batches takes a `ShardSampler`.

    Parameters
    ----------
    dataset
        What is read.
    shuffle
        Whole shards in random order, and tiles among those of `buffer` shards.
    buffer
        Shards that a worker holds decoded where it shuffles.
    seed
        Of the order, together with the epoch.
    rank, world_size
        None: those of torch.distributed where it is initialised, else 0 of 1.
    """

    def __init__(
        self,
        dataset: TileDataset,
        *,
        shuffle: bool = False,
        buffer: int = BUFFER,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.shuffle, self.buffer, self.seed = shuffle, checked_buffer(buffer), seed
        self.rank, self.world_size = placed(rank, world_size)
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Another order for each epoch; persistent workers hear of it, too."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Tiles of this rank."""
        return sum(map(len, self._shards()))

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        shards = self._shards()[number::workers]
        at_once = self.buffer if self.shuffle else 1
        random = np.random.default_rng([self.seed, int(self._epoch), self.rank, number])
        for start in range(0, len(shards), at_once):
            held = shards[start : start + at_once]
            samples = [sample for shard in held for sample in self.dataset.__getitems__(shard)]
            if self.shuffle:
                random.shuffle(samples)
            yield from _drained(samples)

    def _shards(self) -> list[range]:
        shards = in_order(self.dataset.shards(), self.shuffle, self.seed, int(self._epoch))
        return shards[self.rank :: self.world_size]


def _drained(samples: list[Any]) -> Iterator[Any]:
    """Each in turn, and no longer held here."""
    samples.reverse()
    while samples:
        yield samples.pop()
