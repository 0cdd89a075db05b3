"""What is cut from which image, and which tiles share a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.measure import block_reduce

from wsi_norm.cohort import tiles as data
from wsi_norm.cohort.splits import LabelledImage
from wsi_norm.cohort.tiles import (
    IGNORE,
    Batch,
    LabelledTiles,
    collate,
    loader,
    training_batches,
    whole_groups,
)
from wsi_norm.config import TrainConfig

Make = Callable[..., TrainConfig]


def images(
    folder: Path, sizes: Sequence[tuple[int, int]], groups: Sequence[str] = (), masks: bool = False
) -> list[LabelledImage]:
    """Noise of (height, width), and masks that are the red channel's lowest bit."""
    random = np.random.default_rng(5)
    made = []
    for number, size in enumerate(sizes):
        path, mask = folder / f"n{number}.png", folder / f"n{number}-mask.png"
        noise = random.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(noise).save(path)
        Image.fromarray(noise[..., 0] % 2).save(mask)
        group = groups[number] if groups else path.stem
        label = None if masks else number % 2
        made.append(LabelledImage(path.name, path, None, label, mask if masks else None, group, ""))
    return made


def grouped(settings: Make, sizes: Sequence[int], **recipe: Any) -> tuple[LabelledTiles, Any]:
    """Tiles that are in groups of these sizes; nothing is read."""
    names = [f"{group:03}" for group, size in enumerate(sizes) for _ in range(size)]
    path = Path("nowhere.png")
    listed = [LabelledImage(str(k), path, None, 0, None, name, "") for k, name in enumerate(names)]
    config = settings(recipe=recipe)
    return LabelledTiles(listed, config, 2, training=True), config


def positions(batches: Sequence[Sequence[tuple[int, int]]]) -> list[int]:
    return [position for batch in batches for position, _ in batch]


def read(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


# --- tiles


def test_a_whole_image(tmp_path: Path, settings: Make) -> None:
    listed = images(tmp_path, [(20, 30)] * 2)
    tiles = LabelledTiles(listed, settings(), 2, training=True)
    pixels, label, group, item = tiles[1, 77]
    np.testing.assert_array_equal(pixels.permute(1, 2, 0), read(listed[1].path))
    assert (int(label), group, item, len(tiles)) == (1, 1, 1, 2)
    assert pixels.dtype == torch.uint8
    np.testing.assert_array_equal(tiles.labels(), [0, 1])


def test_a_grid_covers_an_image_exactly_once(tmp_path: Path, settings: Make) -> None:
    (image,) = images(tmp_path, [(37, 49)], masks=True)
    config = settings("segmentation", data={"tile_size": 16})
    tiles = LabelledTiles([image], config, 2, training=False)
    assert image.mask is not None
    truth, mask = read(image.path), read(image.mask)
    seen = np.zeros(mask.shape, int)
    for position, cut in enumerate(tiles.cuts):
        assert cut.y is not None
        assert cut.x is not None
        pixels, target, _, _ = tiles[position, 0]
        assert pixels.shape == (3, 16, 16)
        assert target.shape == (16, 16)
        for y in range(16):
            for x in range(16):
                row, column = cut.y + y, cut.x + x
                if row < 37 and column < 49:
                    seen[row, column] += 1
                    assert target[y, x] == mask[row, column]
                    assert (pixels[:, y, x].numpy() == truth[row, column]).all()
                else:
                    assert target[y, x] == IGNORE
    assert (seen == 1).all()


def test_outside_pixels_are_reflected(tmp_path: Path, settings: Make) -> None:
    (image,) = images(tmp_path, [(24, 17)], masks=True)
    config = settings("segmentation", data={"tile_size": 16})
    tiles = LabelledTiles([image], config, 2, training=False)
    truth = read(image.path)
    below = tiles[2, 0][0].permute(1, 2, 0).numpy()  # rows 16 to 31, of which there are 8
    np.testing.assert_array_equal(below[:8], truth[16:, :16])
    np.testing.assert_array_equal(below[8:15], truth[22:15:-1, :16])  # the edge is not repeated
    beside = tiles[1, 0][0].permute(1, 2, 0).numpy()  # a single column is left of it
    np.testing.assert_array_equal(beside, np.repeat(truth[:16, 16:], 16, axis=1))


def test_training_tiles_lie_anywhere_inside(tmp_path: Path, settings: Make) -> None:
    (image,) = images(tmp_path, [(20, 18)], masks=True)
    config = settings("segmentation", data={"tile_size": 16, "crops_per_image": 3})
    tiles = LabelledTiles([image], config, 2, training=True)
    assert len(tiles) == 3
    truth = read(image.path)
    places = Counter()
    for draw in range(150):
        pixels, target, _, _ = tiles[draw % 3, draw]
        found = [
            (y, x)
            for y in range(5)
            for x in range(3)
            if (truth[y : y + 16, x : x + 16] == pixels.permute(1, 2, 0).numpy()).all()
        ]
        places.update(found)
        assert len(found) == 1
        np.testing.assert_array_equal(target, pixels[0].numpy() % 2)
    assert len(places) == 15
    torch.testing.assert_close(tiles[0, 8][0], tiles[2, 8][0])  # by the draw alone


def test_the_centre_is_judged(tmp_path: Path, settings: Make) -> None:
    (image,) = images(tmp_path, [(21, 30)])
    tiles = LabelledTiles([image], settings(data={"tile_size": 16}), 2, training=False)
    assert len(tiles) == 1
    expected = read(image.path)[2:18, 7:23]
    np.testing.assert_array_equal(tiles[0, 3][0].permute(1, 2, 0), expected)


def test_views(tmp_path: Path, settings: Make) -> None:
    listed = images(tmp_path, [(20, 22)] * 5)
    views = {"figure": "center", "other": "corner"}
    config = settings(data={"columns": {"label": None}, "views": views, "tile_size": 8})
    tiles = LabelledTiles(listed, config, 2, training=True)
    np.testing.assert_array_equal(tiles.labels(), [0, 1] * 5)
    corners = [(0, 0), (0, 14), (12, 0), (12, 14), (0, 0)]
    for number, (y, x) in enumerate(corners):
        truth = read(listed[number].path)
        centre, corner = (tiles[2 * number + view, 9][0].permute(1, 2, 0) for view in (0, 1))
        np.testing.assert_array_equal(centre, truth[6:14, 7:15])
        np.testing.assert_array_equal(corner, truth[y : y + 8, x : x + 8])


@pytest.mark.parametrize("step", [2, 3])
def test_downsampling_averages_blocks(tmp_path: Path, settings: Make, step: int) -> None:
    listed = images(tmp_path, [(23, 31)])
    tiles = LabelledTiles(listed, settings(data={"downsample": step}), 2, training=True)
    height, width = 23 // step, 31 // step
    inside = read(listed[0].path)[: height * step, : width * step]
    mean = block_reduce(inside, (step, step, 1), np.mean)
    pixels = tiles.pixels(0)
    assert pixels.shape == (height, width, 3)
    assert np.abs(pixels - mean).max() <= 0.5


@pytest.mark.parametrize("step", [2, 3, 4])
def test_downsampled_masks_stay_with_their_images(
    tmp_path: Path, settings: Make, step: int
) -> None:
    """Blocks of one class each: the mask of a block is its class."""
    blocks = np.random.default_rng(0).integers(0, 3, (7, 5)).astype(np.uint8)
    full = np.kron(blocks, np.ones((step, step), np.uint8))
    full = np.pad(full, ((0, step - 1), (0, 1)), constant_values=2)  # fills no block
    Image.fromarray(np.repeat(full[..., None] * 100, 3, axis=2)).save(tmp_path / "image.png")
    Image.fromarray(full).save(tmp_path / "mask.png")
    image = LabelledImage("i", tmp_path / "image.png", None, None, tmp_path / "mask.png", "g", "")
    config = settings("segmentation", data={"downsample": step, "classes": ["a", "b", "c"]})
    pixels, mask, _, _ = LabelledTiles([image], config, 3, training=False)[0, 0]
    np.testing.assert_array_equal(mask, blocks)
    np.testing.assert_array_equal(pixels[0], blocks * 100)


def test_images_are_decoded_once(
    tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Counter[Path] = Counter()
    original = data.read_image

    def counted(path: Path) -> Any:
        seen[path] += 1
        return original(path)

    monkeypatch.setattr(data, "read_image", counted)
    listed = images(tmp_path, [(20, 20)] * 3, masks=True)
    config = settings("segmentation", data={"tile_size": 16, "crops_per_image": 4})
    tiles = LabelledTiles(listed, config, 2, training=False)
    cuts = tiles.for_training()
    assert (len(tiles), len(cuts)) == (12, 12)
    assert {cut.y for cut in cuts.cuts} == {None}
    assert {cut.y for cut in tiles.cuts} == {0, 16}
    for position in range(12):
        tiles[position, 0], cuts[position, position]
    assert set(seen.values()) == {1}


def test_rows_of_stores(settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def open_store(path: Path) -> Any:
        opened.append(path)
        return [np.full((8, 8, 3), row, np.uint8) for row in range(4)]

    monkeypatch.setattr(data.TileStore, "open", open_store)
    listed = [
        LabelledImage(f"{name}:{row}", Path(name), row, row % 2, None, name, "")
        for name in ("s", "t")
        for row in (3, 1)
    ]
    tiles = LabelledTiles(listed, settings(), 2, training=True)
    assert [int(tiles[position, 0][0][0, 0, 0]) for position in range(4)] == [3, 1, 3, 1]
    assert opened == [Path("s"), Path("t")]


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
    np.testing.assert_array_equal(batch.image[2].permute(1, 2, 0), read(listed[0].path))
    assert len(loader(tiles, [])) == 0
    torch.testing.assert_close(collate([tiles[0, 0]]).image[0], batch.image[2])


def test_no_images(settings: Make) -> None:
    tiles = LabelledTiles([], settings(), 2, training=False)
    assert len(tiles) == 0
    assert whole_groups(tiles, 64) == []
