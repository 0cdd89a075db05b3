"""Which labelled tiles share a batch: those of a case or slide are measured together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import TrainConfig


class Batch(NamedTuple):
    """Tiles on their way to the network."""

    image: Tensor
    """uint8 (B, 3, H, W)"""
    target: Tensor
    """long (B,) classes, or long (B, H, W) masks"""
    group: Tensor
    """long (B,): number of the case or slide"""
    item: Tensor
    """long (B,): position of the image in the data set's list"""


def training_batches(
    tiles: LabelledTiles, config: TrainConfig, epoch: int, rank: int = 0, ranks: int = 1
) -> list[list[tuple[int, int]]]:
    """Batches of one epoch: a few groups each, several tiles of each group.

    Which tiles meet depends on the seed and the epoch alone, so a resumed training goes on as it
    would have. A group is drawn as often as it has tiles; with several GPUs each takes its share,
    all of equal length, because they wait for each other.

    Returns
    -------
    Per batch, (position, draw) for `LabelledTiles`.
    """
    recipe = config.recipe
    random = np.random.default_rng([config.seed, epoch])
    runs: list[npt.NDArray[np.int64]] = []
    for group in range(len(tiles.groups)):
        own = random.permutation(np.flatnonzero(tiles.group_of == group))
        runs += np.array_split(own, -(-len(own) // recipe.tiles_per_group)) if len(own) else []
    order: list[int] = []
    wanted = (recipe.steps_per_epoch or 0) * recipe.batch_size * ranks
    while not order or len(order) < wanted:
        for run in random.permutation(len(runs)):
            order += runs[run].tolist()
    batches = [
        order[start : start + recipe.batch_size]
        for start in range(0, wanted or len(order), recipe.batch_size)
    ]
    draws = random.integers(0, 2**31, len(order)).tolist()
    keys = iter(draws)
    keyed = [[(position, next(keys)) for position in batch] for batch in batches]
    if len(keyed) > ranks and len(keyed[-1]) < min(2, recipe.batch_size):
        keyed.pop()  # batch normalisation needs more than one tile
    while len(keyed) < ranks:
        keyed += keyed
    return keyed[rank : len(keyed) // ranks * ranks : ranks]


def whole_groups(tiles: LabelledTiles, size: int) -> list[list[tuple[int, int]]]:
    """Batches to judge on: groups stay together, so that their statistics are the group's.

    A group of more tiles than `size` is dealt out in strides: each batch spans the whole group.
    """
    batches: list[list[int]] = [[]]
    for group in range(len(tiles.groups)):
        own = np.flatnonzero(tiles.group_of == group).tolist()
        parts = -(-len(own) // size)
        for part in range(parts):
            run = own[part::parts]
            if len(batches[-1]) + len(run) > size:
                batches.append([])
            batches[-1] += run
    return [[(position, 0) for position in batch] for batch in batches if batch]


def loader(tiles: LabelledTiles, batches: Sequence[Sequence[tuple[int, int]]]) -> DataLoader[Batch]:
    """A torch DataLoader over given batches; images are in this process's memory."""
    return DataLoader(tiles, batch_sampler=_Fixed(batches), collate_fn=collate)  # type: ignore[arg-type]


def collate(tiles: Sequence[tuple[Tensor, Tensor, int, int]]) -> Batch:
    """One Batch of tiles of equal size."""
    images, targets, groups, items = zip(*tiles, strict=True)
    return Batch(
        torch.stack(images), torch.stack(targets), torch.tensor(groups), torch.tensor(items)
    )


class _Fixed:
    """Given batches, as the batch sampler that DataLoader asks for."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
