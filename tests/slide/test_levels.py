"""True downsamples of levels whose sizes lie; pictures in memory stand for files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from wsi_norm.geometry import Box
from wsi_norm.slide.levels import (
    Look,
    StoredLevel,
    possible_downsamples,
    sizes_agree,
    true_levels,
)

TILE = 64


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """uint8 (h, w, 3): blobs of some 20 px, different everywhere."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 10 + 2, width // 10 + 2, 3), np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(large)


def reduced(pixels: np.ndarray, factor: float) -> np.ndarray:
    size = round(pixels.shape[1] / factor), round(pixels.shape[0] / factor)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def padded(pixels: np.ndarray, white: int = 255) -> np.ndarray:
    """Up to whole tiles."""
    right, below = (-pixels.shape[1] % TILE, -pixels.shape[0] % TILE)
    return np.pad(pixels, ((0, below), (0, right), (0, 0)), constant_values=white)


def stored(
    pictures: Sequence[np.ndarray], marked: bool = True, tile: int | None = TILE
) -> list[StoredLevel]:
    height, width = pictures[0].shape[:2]
    return [
        StoredLevel(
            number,
            pixels.shape[1],
            pixels.shape[0],
            (width / pixels.shape[1] + height / pixels.shape[0]) / 2,
            None if tile is None else (tile, tile),
            marked,
        )
        for number, pixels in enumerate(pictures)
    ]


def look_at(pictures: Sequence[np.ndarray]) -> Look:
    def look(level: StoredLevel, box: Box) -> np.ndarray:
        pixels = pictures[level.number]
        assert 0 <= box.left < box.right <= pixels.shape[1]
        assert 0 <= box.top < box.bottom <= pixels.shape[0]
        return pixels[box.top : box.bottom, box.left : box.right]

    return look


def unseen(level: StoredLevel, box: Box) -> np.ndarray:
    raise AssertionError("sizes leave no doubt, yet pixels are read")


def found(pictures: Sequence[np.ndarray], marked: bool = True) -> list[tuple[int, float]]:
    """(number in the file, downsample) of the levels that are taken."""
    levels = true_levels(stored(pictures, marked), look_at(pictures))
    assert [level.index for _, level in levels] == list(range(len(levels)))
    return [(level.number, true.downsample) for level, true in levels]


@pytest.mark.parametrize(
    "sizes",
    [
        [(1000, 700), (500, 350), (250, 175)],
        [(4443, 3567), (2221, 1783)],  # rounded down
        [(1001, 701), (501, 351), (251, 176)],  # rounded up, twice
        [(1000, 700), (333, 233)],  # no power of two, but both axes agree
        [(1024, 512), (512, 256), (64, 32)],  # whole tiles, and true
    ],
)
def test_sizes_that_leave_no_doubt(sizes: list[tuple[int, int]]) -> None:
    """The downsample stays what the library states."""
    (width, height), *_ = sizes
    levels = [
        StoredLevel(n, w, h, (width / w + height / h) / 2, (TILE, TILE))
        for n, (w, h) in enumerate(sizes)
    ]
    kept = true_levels(levels, unseen)
    assert [(level.width, level.height) for _, level in kept] == sizes
    assert [level.downsample for _, level in kept] == [level.downsample for level in levels]


@pytest.mark.parametrize("size", [(1100, 700), (900, 900)], ids=["wide", "square"])
@pytest.mark.parametrize("white", [255, 0])
def test_levels_padded_to_whole_tiles(size: tuple[int, int], white: int) -> None:
    """Where the slide is a square, both axes tell the same lie."""
    full = picture(*size)
    pictures = [full, *(padded(reduced(full, factor), white) for factor in (2, 4, 8))]
    lying = stored(pictures)
    assert not any(sizes_agree(lying[0], level) for level in lying[1:])
    levels = [level for _, level in true_levels(lying, look_at(pictures))]
    assert [level.downsample for level in levels] == [1, 2, 4, 8]
    for level in levels:
        assert level.width == pytest.approx(size[0] / level.downsample, abs=0.5)
        assert level.height == pytest.approx(size[1] / level.downsample, abs=0.5)


def test_a_first_level_that_is_padded_too() -> None:
    full = picture(1100, 700)
    assert found([padded(reduced(full, factor)) for factor in (1, 2, 4)]) == [
        (0, 1),
        (1, 2),
        (2, 4),
    ]


def test_the_axis_that_is_not_padded_tells_the_downsample() -> None:
    """960 px are five tiles at a third; 500 px are not."""
    full = picture(960, 500)
    third = padded(reduced(full, 3))
    assert third.shape == (192, 320, 3)
    assert found([full, third]) == [(0, 1), (1, 3)]


@pytest.mark.parametrize("marked", [True, False])
def test_other_pictures_are_no_levels(marked: bool) -> None:
    full, label = picture(1100, 700), picture(450, 300, seed=1)
    half = reduced(full, 2)
    assert found([full, half, label], marked) == [(0, 1), (1, 2)]
    assert found([full, padded(reduced(full, 2)), padded(label)], marked) == [(0, 1), (1, 2)]


def test_what_is_not_marked_is_looked_at() -> None:
    """A picture of the slide's proportions may be another slide."""
    full, other = picture(1100, 700), picture(550, 350, seed=1)
    assert found([full, other], marked=True) == [(0, 1), (1, 2)]
    assert found([full, other], marked=False) == [(0, 1)]
    assert found([full, reduced(full, 2)], marked=False) == [(0, 1), (1, 2)]


def test_a_part_of_the_slide_is_no_level() -> None:
    full = picture(1100, 700)
    part = reduced(full, 2)[: 5 * TILE, : 8 * TILE]
    assert found([full, part]) == [(0, 1)]


def test_where_nothing_is_to_be_seen() -> None:
    glass = np.full((700, 1100, 3), 243, np.uint8)
    assert found([glass, padded(reduced(glass, 2))]) == [(0, 1)]


def test_noise_and_sharpness_do_not_matter() -> None:
    """Every second pixel, and other noise."""
    rng = np.random.default_rng(0)
    full = picture(1100, 700)
    noisy = (full[::2, ::2].astype(int) + rng.normal(0, 12, (350, 550, 3))).clip(0, 255)
    assert found([full, padded(noisy.astype(np.uint8))]) == [(0, 1), (1, 2)]


def test_little_levels() -> None:
    full = picture(300, 200)
    pictures = [full, *(padded(reduced(full, factor)) for factor in (2, 4))]
    assert found(pictures) == [(0, 1), (1, 2), (2, 4)]


def test_possible_downsamples() -> None:
    full = StoredLevel(0, 4100, 2300, 1.0, (256, 256))
    level = StoredLevel(1, 2304, 1280, 1.79, (256, 256))
    assert possible_downsamples(full, level) == [pytest.approx(2300 / 1280), 2.0]
    without = StoredLevel(1, 2304, 1280, 1.79)
    assert possible_downsamples(full, without) == [pytest.approx(2300 / 1280)]
