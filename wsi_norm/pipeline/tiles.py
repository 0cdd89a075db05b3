"""Pixels of tiles: read with their neighbours, brought to the target mpp, sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsi_norm.errors import ReadError
from wsi_norm.geometry import Box, Tile, TileGrid, blocks, enclosing
from wsi_norm.lstainnorm import Statistics
from wsi_norm.normalizers.base import StainNormalizer
from wsi_norm.pixels import UInt8
from wsi_norm.plan import SlidePlan
from wsi_norm.resampling import fit
from wsi_norm.slide import Slide

WHITE = 255

STATISTICS_TILES = 64
"""Tiles, spread over the slide, whose tissue gives the slide's statistics."""

STATISTICS_PIXELS = STATISTICS_TILES * 512**2
"""Of larger tiles fewer are taken: the sample is in memory at once."""


def read_tiles(
    slide: Slide, grid: TileGrid, tiles: Sequence[Tile]
) -> tuple[UInt8, list[ReadError | None]]:
    """Tiles at the target mpp; neighbours read together where the slide's reader wants it.

    Returns
    -------
    uint8 (N, T, T, 3), padded white beyond the slide, and for each tile the error that made it
    unreadable (it is white then) or None.
    """
    size = grid.tile_size
    out = np.empty((len(tiles), size, size, 3), np.uint8)
    errors: list[ReadError | None] = [None] * len(tiles)
    boxes = [grid.box(tile) for tile in tiles]
    edge = size * grid.downsample / grid.level.downsample
    # Whether a tile is decoded reduced must not depend on its neighbours.
    groups = blocks(tiles, max(1, int(slide.block_px / edge)) if grid.reduced == 1 else 1)
    for block in groups:
        whole = enclosing([boxes[index] for index in block])
        try:
            pixels = _read(slide, grid, whole)
        except ReadError as error:
            if len(block) == 1:
                out[block[0]], errors[block[0]] = WHITE, error.with_traceback(None)
            else:
                groups += [[index] for index in block]
            continue
        for index in block:
            part = pixels if len(block) == 1 else _cut(pixels, whole, boxes[index])
            out[index] = fit(part, size, size)
    return out, errors


def measure_slide(
    slide: Slide, plan: SlidePlan, normalizer: StainNormalizer
) -> tuple[Statistics | None, str | None]:
    """Statistics of a slide's tissue, over a sample of the tiles that have some.

    They are spread evenly along their order.

    Returns
    -------
    The statistics and None, or None and why there are none.
    """
    per_tile = plan.grid.tile_size**2
    sample = spread(plan.tissue_tiles, max(4, min(STATISTICS_TILES, STATISTICS_PIXELS // per_tile)))
    pixels, errors = read_tiles(slide, plan.grid, sample)
    good = [index for index, error in enumerate(errors) if error is None]
    if not good:
        return (
            None,
            "no statistics: none of the sampled tiles can be read; tiles pass through as they are",
        )
    if len(good) < len(sample):
        pixels = pixels[good]
    tissue = np.stack(
        [
            tissue_of(plan.grid, plan.tissue_mask, plan.mask_downsample, sample[index])
            for index in good
        ]
    )
    if slide.metadata.left_out:
        tissue &= ~(pixels == WHITE).all(axis=-1)
    try:
        return normalizer.measure(pixels, tissue, plan.white), None
    except ValueError as error:
        return None, f"{error}; tiles pass through as they are"


def spread(tiles: Sequence[Tile], number: int) -> list[Tile]:
    """At most `number` of `tiles`, evenly spaced along their order."""
    if len(tiles) <= number:
        return list(tiles)
    return [tiles[(2 * index + 1) * len(tiles) // (2 * number)] for index in range(number)]


def _read(slide: Slide, grid: TileGrid, box: Box) -> UInt8:
    """Pixels of a box of the grid's level: at 1/reduced, or in full where that is not to be had."""
    region = grid.region(box)
    pixels = slide.reduced(region, grid.reduced) if grid.reduced > 1 else None
    return slide.read(region) if pixels is None else pixels


def _cut(pixels: UInt8, whole: Box, box: Box) -> UInt8:
    rows = slice(box.top - whole.top, box.bottom - whole.top)
    return np.ascontiguousarray(pixels[rows, box.left - whole.left : box.right - whole.left])


def tissue_of(
    grid: TileGrid, mask: npt.NDArray[np.bool_], downsample: tuple[float, float], tile: Tile
) -> npt.NDArray[np.bool_]:
    """A tissue mask (h, w) under a tile, bool (T, T), nearest neighbour; none is beyond it."""
    x, y = (
        ((start * grid.step + np.arange(grid.tile_size) + 0.5) * grid.downsample / scale).astype(
            int
        )
        for start, scale in zip((tile.column, tile.row), downsample, strict=True)
    )
    height, width = mask.shape
    under = mask.take(y, axis=0, mode="clip").take(x, axis=1, mode="clip")
    inside: npt.NDArray[np.bool_] = (y < height)[:, None] & (x < width)[None, :] & under
    return inside
