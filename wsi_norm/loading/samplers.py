"""In which order tiles are read: shards at random, and tiles among those of a few shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch.distributed
from torch.utils.data import Sampler

from wsi_norm.loading.dataset import TileDataset

BUFFER = 8
"""Shards whose tiles are mixed, if nothing is said: 512 tiles of 256 px."""


class ShardSampler(Sampler[int]):
    """Indices of a TileDataset: whole shards in random order, shuffled a few shards at a time.

    Neighbours on the slide are then read soon after each other, by all ranks of a distributed
    training each its own: a rank's indices are a run of that order, and all ranks have as many.

    Parameters
    ----------
    dataset
        What is sampled.
    shuffle
        False: the dataset's own order.
    buffer
        Shards whose tiles are mixed. At most so many slides are open for them at once.
    seed
        Of the order, together with the epoch; the same on all ranks.
    rank, world_size
        None: those of torch.distributed where it is initialised, else 0 of 1.
    drop_last
        Of tiles that cannot be dealt out evenly: True leaves out the last, False takes the first
        ones again (at most world_size - 1), as torch's DistributedSampler does.
    """

    def __init__(
        self,
        dataset: TileDataset,
        *,
        shuffle: bool = True,
        buffer: int = BUFFER,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
    ) -> None:
        self._shards, self._tiles = dataset.shards(), len(dataset)
        self.shuffle, self.buffer, self.seed = shuffle, checked_buffer(buffer), seed
        self.rank, self.world_size = placed(rank, world_size)
        self.drop_last = drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another order for each epoch; call it on all ranks before an epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        share, rest = divmod(self._tiles, self.world_size)
        return share + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[int]:
        shards = in_order(self._shards, self.shuffle, self.seed, self.epoch)
        random = np.random.default_rng([self.seed, self.epoch]) if self.shuffle else None
        order = np.concatenate([np.empty(0, np.int64), *mixed(shards, self.buffer, random)])
        start = self.rank * len(self)
        yield from order.take(range(start, start + len(self)), mode="wrap").tolist()


def in_order(shards: Sequence[range], shuffle: bool, seed: int, epoch: int) -> list[range]:
    """Shards in the order of an epoch, the same everywhere."""
    if not shuffle:
        return list(shards)
    order = np.random.default_rng([seed, epoch]).permutation(len(shards))
    return [shards[number] for number in order]


def mixed(
    shards: Sequence[range], buffer: int, random: np.random.Generator | None
) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of `buffer` shards at a time, shuffled among each other; as they are without."""
    for start in range(0, len(shards), buffer):
        indices = np.concatenate(
            [np.arange(r.start, r.stop) for r in shards[start : start + buffer]]
        )
        yield indices if random is None else random.permutation(indices)


def placed(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size: as given, else of torch.distributed, else 0 of 1."""
    distributed = torch.distributed
    if rank is None and world_size is None:
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of world_size {world_size}: give both, from rank 0 on")
    return rank, world_size


def checked_buffer(buffer: int) -> int:
    """ValueError if fewer than one."""
    if buffer < 1:
        raise ValueError(f"buffer {buffer}: give at least one shard")
    return buffer
