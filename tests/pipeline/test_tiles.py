"""Tiles read in blocks against tiles read one at a time by OpenSlide and resized by Pillow."""

from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.builders import CMU, TCGA
from wsi_norm.config import run_config
from wsi_norm.errors import ReadError
from wsi_norm.geometry import Level, Tile, TileGrid, compact_order
from wsi_norm.pipeline.tiles import read_tiles, spread, tissue_of
from wsi_norm.plan import plan_grid
from wsi_norm.slide import open_slide

READERS = ("direct", "openslide", "tiffslide")


def edge(output_px: int, downsample: str) -> int:
    """An output pixel's place in px of a level, rounded half up."""
    return floor(output_px * Fraction(downsample) + Fraction(1, 2))


def tile_by_hand(
    slide: openslide.OpenSlide,
    tile: Tile,
    level: int,
    level_downsample: int,
    downsample: str,
    size: int,
    overlap: int,
) -> np.ndarray:
    """One tile: read from a level, composed on white, resized. `downsample` is px of that level."""
    step = size - overlap
    left, top = edge(tile.column * step, downsample), edge(tile.row * step, downsample)
    right = edge(tile.column * step + size, downsample)
    bottom = edge(tile.row * step + size, downsample)
    image = slide.read_region(
        (left * level_downsample, top * level_downsample), level, (right - left, bottom - top)
    )
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image)
    plain = white.convert("RGB")
    if plain.size != (size, size):
        plain = plain.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(plain)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("mpp", "size", "overlap", "level", "downsample"),
    [
        (0.5, 256, 0, 0, "1"),
        (0.5, 250, 37, 0, "1"),
        (0.7, 256, 0, 0, "1.4"),
        (0.7, 224, 32, 0, "1.4"),
        (1.0, 256, 0, 0, "2"),
        (2.0, 96, 0, 1, "1"),
        (2.6, 100, 10, 1, "1.3"),
    ],
)
def test_tiles_are_those_read_one_at_a_time(
    slide_path: Path,
    mpp: float,
    size: int,
    overlap: int,
    level: int,
    downsample: str,
    reader: str,
) -> None:
    with (
        open_slide(slide_path, reader) as slide,
        openslide.OpenSlide(slide_path) as other,
    ):
        config = run_config(mpp=mpp, tile_size=size, overlap=overlap, resample="exact")
        grid = plan_grid(slide, config)
        assert grid.level.index == level
        tiles = compact_order(list(grid.tiles()))[::2]
        pixels, errors = read_tiles(slide, grid, tiles)
        assert (pixels.dtype, pixels.shape) == (np.uint8, (len(tiles), size, size, 3))
        assert errors == [None] * len(tiles)
        expected = np.stack(
            [tile_by_hand(other, t, level, 4**level, downsample, size, overlap) for t in tiles]
        )
    if downsample == "1":
        np.testing.assert_array_equal(pixels, expected)
    else:  # the same filter in fixed-point numbers of another width
        np.testing.assert_allclose(pixels.astype(int), expected, rtol=0, atol=2)
        assert np.mean(pixels != expected) < 5e-3


def test_beyond_the_slide_is_white(data_dir: Path) -> None:
    with open_slide(data_dir / CMU) as slide:
        grid = plan_grid(slide, run_config(mpp=slide.mpp_um, tile_size=256))
        tiles = [Tile(0, grid.columns - 1), Tile(grid.rows - 1, 0), Tile(0, 0)]
        (right, bottom, inner), errors = read_tiles(slide, grid, tiles)
    assert errors == [None] * 3
    assert (right[:, 2220 - 8 * 256 :] == 255).all()
    assert (bottom[2967 - 11 * 256 :] == 255).all()
    for tile, inside in (
        (right, right[:, : 2220 - 8 * 256]),
        (bottom, bottom[: 2967 - 11 * 256]),
        (inner, inner),
    ):
        assert (inside == 255).all(axis=-1).mean() < 0.01, tile.shape


def test_no_tiles(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        grid = plan_grid(slide, run_config())
        pixels, errors = read_tiles(slide, grid, [])
    assert pixels.shape == (0, 256, 256, 3)
    assert errors == []


@pytest.mark.parametrize("name", [CMU, TCGA])
@pytest.mark.parametrize("mpp", [0.5, 0.7])
def test_a_tile_does_not_depend_on_its_neighbours(data_dir: Path, name: str, mpp: float) -> None:
    """With TiffSlide, which reads a level on its pixel grid at any downsample."""
    with open_slide(data_dir / name, "tiffslide", table_mpp_um=0.25) as slide:
        grid = plan_grid(slide, run_config(mpp=mpp, tile_size=128))
        tiles = [Tile(row, column) for row in (2, 3) for column in (6, 7, 8)]
        together, _ = read_tiles(slide, grid, tiles)
        for tile, found in zip(tiles, together, strict=True):
            (alone,), _ = read_tiles(slide, grid, [tile])
            np.testing.assert_array_equal(found, alone, str(tile))


# --- damage


def damaged_tiles(grid: TileGrid, downsample: float) -> set[Tile]:
    """Tiles that the zeroed rectangle x 960-1439, y 1440-1679 lies under."""
    found = set()
    for tile in grid.tiles():
        left, top = (index * grid.step for index in (tile.column, tile.row))
        edges = [
            floor(v * downsample + 0.5)
            for v in (left, left + grid.tile_size, top, top + grid.tile_size)
        ]
        if edges[0] < 1440 and edges[1] > 960 and edges[2] < 1680 and edges[3] > 1440:
            found.add(tile)
    return found


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("factor", "size", "number"), [(1.0, 240, 2), (1.0, 256, 6), (1.5, 160, 2)]
)
def test_unreadable_tiles_are_white_and_the_others_whole(
    faulty: Path,
    data_dir: Path,
    factor: float,
    size: int,
    number: int,
    reader: str,
) -> None:
    path = faulty / "zeroed_tiles.svs"
    with open_slide(path, reader) as slide, open_slide(data_dir / CMU, reader) as whole:
        grid = plan_grid(slide, run_config(mpp=slide.mpp_um * factor, tile_size=size))
        tiles = [Tile(row, column) for row in range(4, 9) for column in range(2, 8)]
        expected = damaged_tiles(grid, factor) & set(tiles)
        assert len(expected) == number
        pixels, errors = read_tiles(slide, grid, tiles)
        intact, no_errors = read_tiles(whole, grid, tiles)
    assert no_errors == [None] * len(tiles)
    assert {t for t, error in zip(tiles, errors, strict=True) if error is not None} == expected
    for tile, error, found, good in zip(tiles, errors, pixels, intact, strict=True):
        if tile in expected:
            assert isinstance(error, ReadError)
            assert str(path) in str(error)
            assert (found == 255).all()
        else:
            np.testing.assert_array_equal(found, good, str(tile))


# --- spread


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 500), st.integers(1, 100))
def test_spread(number: int, wanted: int) -> None:
    tiles = [Tile(0, index) for index in range(number)]
    sample = spread(tiles, wanted)
    places = [tile.column for tile in sample]
    assert len(sample) == min(number, wanted)
    assert places == sorted(set(places))
    if number <= wanted:
        assert sample == tiles
        return
    gaps = np.diff(places)
    assert all(gap in {number // wanted, -(-number // wanted)} for gap in gaps)
    first, last = places[0], number - 1 - places[-1]
    assert abs(first - last) <= 1


def test_spread_takes_the_middles() -> None:
    tiles = [Tile(0, index) for index in range(12)]
    assert [tile.column for tile in spread(tiles, 3)] == [2, 6, 10]
    assert [tile.column for tile in spread(tiles, 1)] == [6]


@settings(max_examples=50, deadline=None)
@given(st.floats(1, 5), st.floats(3, 40), st.integers(0, 2**32 - 1))
def test_tissue_of_a_tile_is_the_mask_under_it(downsample: float, scale: float, seed: int) -> None:
    grid = TileGrid.over([Level(0, 300, 200, 1.0)], downsample, 16, 3)
    rng = np.random.default_rng(seed)
    mask = rng.random((max(1, round(200 / scale)), max(1, round(300 / scale)))) < 0.5
    tile = Tile(*(int(rng.integers(number)) for number in (grid.rows, grid.columns)))
    for y, row in enumerate(tissue_of(grid, mask, (scale, scale), tile)):
        for x, found in enumerate(row):
            i, j = (
                int((start * 13 + offset + 0.5) * downsample / scale)
                for start, offset in ((tile.row, y), (tile.column, x))
            )
            assert found == (i < mask.shape[0] and j < mask.shape[1] and mask[i, j])
