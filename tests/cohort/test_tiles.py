"""What is cut from which image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import dicoms
from tests.cohorts import images, pixels_of
from tests.profiles import by_imagecms, matrix_profile
from wsi_norm.cohort import tiles as data
from wsi_norm.cohort.splits import LabelledImage
from wsi_norm.cohort.tiles import IGNORE, LabelledTiles
from wsi_norm.config import TrainConfig
from wsi_norm.config.train import NormalizerConfig
from wsi_norm.training.front import target_tile

Make = Callable[..., TrainConfig]


def test_a_whole_image(tmp_path: Path, settings: Make) -> None:
    listed = images(tmp_path, [(20, 30)] * 2)
    tiles = LabelledTiles(listed, settings(), 2, training=True)
    pixels, label, group, item = tiles[1, 77]
    np.testing.assert_array_equal(pixels.permute(1, 2, 0), pixels_of(listed[1].path))
    assert (int(label), group, item, len(tiles)) == (1, 1, 1, 2)
    assert pixels.dtype == torch.uint8
    np.testing.assert_array_equal(tiles.labels(), [0, 1])


def test_a_grid_covers_an_image_exactly_once(tmp_path: Path, settings: Make) -> None:
    (image,) = images(tmp_path, [(37, 49)], masks=True)
    config = settings("segmentation", data={"tile_size": 16})
    tiles = LabelledTiles([image], config, 2, training=False)
    assert image.mask is not None
    truth, mask = pixels_of(image.path), pixels_of(image.mask)
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
    truth = pixels_of(image.path)
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
    truth = pixels_of(image.path)
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


def test_fixed_crops_stay_where_the_seed_puts_them(tmp_path: Path, settings: Make) -> None:
    listed = images(tmp_path, [(20, 18), (40, 40)], masks=True)
    data = {"tile_size": 16, "crops_per_image": 3, "fixed_crops": True}
    tiles, again, other = (
        LabelledTiles(listed, settings("segmentation", data=data, seed=seed), 2, training=True)
        for seed in (0, 0, 1)
    )
    assert tiles.cuts == again.cuts != other.cuts
    assert len({(cut.y, cut.x) for cut in tiles.cuts[3:]}) > 1
    for position, cut in enumerate(tiles.cuts):
        assert cut.y is not None
        assert cut.x is not None
        truth = pixels_of(listed[cut.image].path)[cut.y : cut.y + 16, cut.x : cut.x + 16]
        for draw in (0, 5):
            np.testing.assert_array_equal(tiles[position, draw][0].permute(1, 2, 0), truth)


def test_the_centre_is_judged(tmp_path: Path, settings: Make) -> None:
    (image,) = images(tmp_path, [(21, 30)])
    tiles = LabelledTiles([image], settings(data={"tile_size": 16}), 2, training=False)
    assert len(tiles) == 1
    expected = pixels_of(image.path)[2:18, 7:23]
    np.testing.assert_array_equal(tiles[0, 3][0].permute(1, 2, 0), expected)


def test_views(tmp_path: Path, settings: Make) -> None:
    listed = images(tmp_path, [(20, 22)] * 5)
    views = {"figure": "center", "other": "corner"}
    config = settings(data={"columns": {"label": None}, "views": views, "tile_size": 8})
    tiles = LabelledTiles(listed, config, 2, training=True)
    np.testing.assert_array_equal(tiles.labels(), [0, 1] * 5)
    corners = [(0, 0), (0, 14), (12, 0), (12, 14), (0, 0)]
    for number, (y, x) in enumerate(corners):
        truth = pixels_of(listed[number].path)
        centre, corner = (tiles[2 * number + view, 9][0].permute(1, 2, 0) for view in (0, 1))
        np.testing.assert_array_equal(centre, truth[6:14, 7:15])
        np.testing.assert_array_equal(corner, truth[y : y + 8, x : x + 8])


@pytest.mark.parametrize("step", [2, 3])
def test_images_are_scaled_down_as_in_a_run(tmp_path: Path, settings: Make, step: int) -> None:
    """Bicubic, antialiased: Pillow's filter, up to roundings; whole px only."""
    listed = images(tmp_path, [(23, 31)])
    tiles = LabelledTiles(listed, settings(data={"downsample": step}), 2, training=True)
    height, width = 23 // step, 31 // step
    inside = pixels_of(listed[0].path)[: height * step, : width * step]
    size, bicubic = (width, height), Image.Resampling.BICUBIC
    expected = np.asarray(Image.fromarray(inside).resize(size, bicubic)).astype(int)
    pixels = tiles.pixels(0)
    assert pixels.shape == (height, width, 3)
    assert np.abs(pixels - expected).max() <= 2


@pytest.mark.parametrize("step", [2, 3, 4])
def test_downsampled_masks_stay_with_their_images(
    tmp_path: Path, settings: Make, step: int
) -> None:
    """Fields of one class: the mask is exact; amid a field the filter sees it alone."""
    fields = np.random.default_rng(0).integers(0, 3, (5, 4)).astype(np.uint8)
    blocks = np.kron(fields, np.ones((5, 5), np.uint8))
    full = np.kron(blocks, np.ones((step, step), np.uint8))
    full = np.pad(full, ((0, step - 1), (0, 1)), constant_values=2)  # fills no block
    Image.fromarray(np.repeat(full[..., None] * 100, 3, axis=2)).save(tmp_path / "image.png")
    Image.fromarray(full).save(tmp_path / "mask.png")
    image = LabelledImage("i", tmp_path / "image.png", None, None, tmp_path / "mask.png", "g", "")
    config = settings("segmentation", data={"downsample": step, "classes": ["a", "b", "c"]})
    pixels, mask, _, _ = LabelledTiles([image], config, 3, training=False)[0, 0]
    np.testing.assert_array_equal(mask, blocks)
    np.testing.assert_array_equal(pixels[0, 2::5, 2::5], fields * 100)


@pytest.mark.parametrize("choice", ["apply", "ignore"])
def test_profiles_of_images(tmp_path: Path, settings: Make, choice: str) -> None:
    profile, pixels = matrix_profile(), dicoms.picture(32)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path, icc_profile=profile)
    image = LabelledImage("i", path, None, 0, None, "g", "")
    tiles = LabelledTiles([image], settings(data={"icc": choice}), 2, training=False)
    expected = by_imagecms(pixels, profile) if choice == "apply" else pixels
    np.testing.assert_array_equal(tiles[0, 0][0].permute(1, 2, 0), expected)
    aimed_at = NormalizerConfig(kind="reinhard", target=path)
    found = target_tile(aimed_at, tiles, 0)
    assert found is not None
    np.testing.assert_array_equal(found, expected)


def test_images_are_decoded_once(
    tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Counter[Path] = Counter()
    original = data.read_image

    def counted(path: Path, *icc: Any) -> Any:
        seen[path] += 1
        return original(path, *icc)

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


def test_no_images(settings: Make) -> None:
    assert len(LabelledTiles([], settings(), 2, training=False)) == 0
