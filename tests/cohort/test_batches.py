"""Which tiles share a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cohorts import images, pixels_of
from wsi_norm.cohort.batches import Batch, collate, loader, training_batches, whole_groups
from wsi_norm.cohort.splits import LabelledImage
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config import TrainConfig

Make = Callable[..., TrainConfig]


def grouped(settings: Make, sizes: Sequence[int], **recipe: Any) -> tuple[LabelledTiles, Any]:
    """Tiles that are in groups of these sizes; nothing is read."""
    names = [f"{group:03}" for group, size in enumerate(sizes) for _ in range(size)]
    path = Path("nowhere.png")
    listed = [LabelledImage(str(k), path, None, 0, None, name, "") for k, name in enumerate(names)]
    config = settings(recipe=recipe)
    return LabelledTiles(listed, config, 2, training=True), config


def positions(batches: Sequence[Sequence[tuple[int, int]]]) -> list[int]:
    return [position for batch in batches for position, _ in batch]


# --- batches to train on


def test_batches_follow_from_seed_and_epoch(settings: Make) -> None:
    tiles, config = grouped(settings, [5, 9, 8, 3], batch_size=6)
    first = training_batches(tiles, config, 3)
    np.random.default_rng().random()
    assert training_batches(tiles, config, 3) == first
    assert training_batches(tiles, config, 4) != first
    other = config.model_copy(update={"seed": 1})
    assert training_batches(tiles, other, 3) != first
    draws = [draw for batch in first for _, draw in batch]
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 7, 100])
def test_every_tile_once_in_an_epoch(settings: Make, batch_size: int) -> None:
    sizes = [5, 9, 8, 3]
    tiles, config = grouped(settings, sizes, batch_size=batch_size)
    for epoch in range(3):
        batches = training_batches(tiles, config, epoch)
        seen = positions(batches)
        assert len(set(seen)) == len(seen)
        # 25 = 4 * 6 + 1: a batch of one is left out, batch normalisation could not take it
        assert len(seen) == (24 if batch_size in {4, 6} else 25)
        assert {len(batch) for batch in batches[:-1]} <= {batch_size}


def test_a_number_of_steps(settings: Make) -> None:
    tiles, config = grouped(settings, [4, 4], batch_size=6, steps_per_epoch=5)
    batches = training_batches(tiles, config, 0)
    assert [len(batch) for batch in batches] == [6] * 5
    counts = Counter(positions(batches))
    assert set(counts.values()) == {3, 4}  # 30 draws of 8 tiles: all of them before one again
    fewer = training_batches(*grouped(settings, [40, 40], batch_size=6, steps_per_epoch=2), 0)
    assert [len(batch) for batch in fewer] == [6] * 2


def test_tiles_of_a_group_stay_together(settings: Make) -> None:
    tiles, config = grouped(settings, [12, 8, 4, 16], batch_size=8, tiles_per_group=4)
    for epoch in range(5):
        for batch in training_batches(tiles, config, epoch):
            groups = Counter(tiles.group_of[position] for position, _ in batch)
            assert {count % 4 for count in groups.values()} == {0}
    # 9 tiles in runs of at most 4: three of 3, not 4 + 4 + 1
    tiles, config = grouped(settings, [9, 9], batch_size=3, tiles_per_group=4)
    for batch in training_batches(tiles, config, 0):
        assert len({tiles.group_of[position] for position, _ in batch}) == 1


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("steps", [None, 3])
def test_shares_of_several_gpus(settings: Make, ranks: int, steps: int | None) -> None:
    tiles, config = grouped(settings, [5, 9, 8, 4], batch_size=4, steps_per_epoch=steps)
    shares = [training_batches(tiles, config, 1, rank, ranks) for rank in range(ranks)]
    assert {len(share) for share in shares} == {7 // ranks if steps is None else steps}
    keys = [key for share in shares for batch in share for key in batch]
    assert len(set(keys)) == len(keys)
    if steps is None:
        seen = [position for share in shares for position in positions(share)]
        assert len(set(seen)) == len(seen)


def test_more_gpus_than_batches(settings: Make) -> None:
    """Each gets one all the same: without one it would be waited for."""
    tiles, config = grouped(settings, [5], batch_size=4)
    shares = [training_batches(tiles, config, 0, rank, 3) for rank in range(3)]
    assert [len(share) for share in shares] == [1, 1, 1]


# --- batches to judge on


@pytest.mark.parametrize("size", [1, 4, 10, 64])
def test_whole_groups(settings: Make, size: int) -> None:
    sizes = [3, 9, 1, 4, 25, 2]
    tiles, _ = grouped(settings, sizes)
    batches = whole_groups(tiles, size)
    assert sorted(positions(batches)) == list(range(sum(sizes)))
    assert {draw for batch in batches for _, draw in batch} == {0}
    assert max(map(len, batches)) <= size
    for group, count in enumerate(sizes):
        members = set(np.flatnonzero(tiles.group_of == group).tolist())
        own = [[p for p, _ in batch if p in members] for batch in batches]
        own = [part for part in own if part]
        assert len(own) == -(-count // size)
        for part in own:  # strided: from one end of the group to the other
            assert len(set(np.diff(part))) <= 1
            assert len(own) == 1 or part[-1] - part[0] > count - 2 * len(own)


def test_batches_of_a_loader(tmp_path: Path, settings: Make) -> None:
    listed = images(tmp_path, [(8, 8)] * 4, groups=["y", "x", "y", "x"])
    tiles = LabelledTiles(listed, settings(), 2, training=False)
    (batch,) = loader(tiles, whole_groups(tiles, 64))
    assert isinstance(batch, Batch)
    assert batch.item.tolist() == [1, 3, 0, 2]
    assert batch.group.tolist() == [0, 0, 1, 1]
    assert batch.target.tolist() == [1, 1, 0, 0]
    assert (batch.image.dtype, tuple(batch.image.shape)) == (torch.uint8, (4, 3, 8, 8))
    np.testing.assert_array_equal(batch.image[2].permute(1, 2, 0), pixels_of(listed[0].path))
    assert len(loader(tiles, [])) == 0
    torch.testing.assert_close(collate([tiles[0, 0]]).image[0], batch.image[2])


def test_no_images(settings: Make) -> None:
    assert whole_groups(LabelledTiles([], settings(), 2, training=False), 64) == []
