"""Where tiles lie on a slide. Pure arithmetic: no file, no pixel.

Three frames are in use and every name says which one it means:

* *level-0 px*: the slide's full resolution; where `coords` of a store and GeoJSON regions live;
* *level px*: pixels of the pyramid level that is read;
* *output px*: pixels at the target mpp; tile size, overlap and step are stated in these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Cells = npt.NDArray[np.int64]
"""Row and column of tiles, (N, 2)."""

LEVEL_TOLERANCE = 0.005
"""A level at most this much coarser than the target still serves it: stated mpp is no better."""


@dataclass(frozen=True)
class Level:
    """One resolution of a slide's pyramid: size in its own px, downsample against level 0."""

    index: int
    width: int
    height: int
    downsample: float


class Region(NamedTuple):
    """What a reader is asked for: x, y in level-0 px, width and height in px of `level`."""

    x: int
    y: int
    level: int
    width: int
    height: int


class Tile(NamedTuple):
    """A cell of a TileGrid."""

    row: int
    column: int


class Box(NamedTuple):
    """A half-open rectangle [left, right) x [top, bottom) in level px."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Width in px."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Height in px."""
        return self.bottom - self.top


def best_level(levels: Sequence[Level], downsample: float) -> Level:
    """The coarsest level that is still at least as fine as `downsample` (level 0 if none is)."""
    fine_enough = [
        level for level in levels if level.downsample <= downsample * (1 + LEVEL_TOLERANCE)
    ]
    return max(fine_enough or [levels[0]], key=lambda level: level.downsample)


@dataclass(frozen=True)
class TileGrid:
    """Square tiles of one size at one mpp over one slide.

    Parameters
    ----------
    slide_width, slide_height
        The slide, in level-0 px.
    level
        The pyramid level that is read.
    downsample
        Level-0 px per output px: target mpp / slide mpp.
    tile_size, overlap
        In output px; the step from tile to tile is `tile_size - overlap`.
    reduced
        The level is decoded at 1/reduced, where it can be; see `divides`.

    Notes
    -----
    Column c covers the output px [c * step, c * step + tile_size). Each *edge* is scaled and
    rounded by itself, so positions never drift: a rounded stride would be off by 186 px after 200
    tiles from 0.2525 to 0.5 um/px. The width of a tile in level px may thus differ by one px from
    that of its neighbour.
    """

    slide_width: int
    slide_height: int
    level: Level
    downsample: float
    tile_size: int
    overlap: int = 0
    reduced: int = 1

    @classmethod
    def over(
        cls,
        levels: Sequence[Level],
        downsample: float,
        tile_size: int,
        overlap: int = 0,
    ) -> TileGrid:
        """The grid over a slide of these levels, read from the best of them."""
        if not 0 <= overlap < tile_size:
            raise ValueError(f"overlap must be in [0, tile_size), not {overlap} of {tile_size}")
        level = best_level(levels, downsample)
        return cls(levels[0].width, levels[0].height, level, downsample, tile_size, overlap)

    @property
    def step(self) -> int:
        """From one tile to the next, in output px."""
        return self.tile_size - self.overlap

    @property
    def width(self) -> float:
        """The slide's width in output px."""
        return self.slide_width / self.downsample

    @property
    def height(self) -> float:
        """The slide's height in output px."""
        return self.slide_height / self.downsample

    @property
    def columns(self) -> int:
        """Number of tiles in a row; the last one may reach beyond the slide."""
        return _tiles_along(self.width, self.tile_size, self.step)

    @property
    def rows(self) -> int:
        """Number of tiles in a column; the last one may reach beyond the slide."""
        return _tiles_along(self.height, self.tile_size, self.step)

    @property
    def levels(self) -> int:
        """Of a pyramid over the grid, by halves from all its tiles down to one."""
        return 1 + (max(self.rows, self.columns) - 1).bit_length()

    @property
    def fits(self) -> bool:
        """Whether at least one side of the slide holds a whole tile."""
        return max(self.width, self.height) >= self.tile_size * (1 - LEVEL_TOLERANCE)

    def tiles(self) -> Iterator[Tile]:
        """Every tile, row by row."""
        return (Tile(row, column) for row in range(self.rows) for column in range(self.columns))

    def origin(self, tile: Tile) -> tuple[int, int]:
        """(x, y) of the tile's top-left corner in level-0 px."""
        scale = self.step * self.downsample
        return _round(tile.column * scale), _round(tile.row * scale)

    def tile_at(self, x: int, y: int) -> Tile:
        """The tile whose `origin` is (x, y): the inverse of `origin`."""
        scale = self.step * self.downsample
        return Tile(_round(y / scale), _round(x / scale))

    def box(self, tile: Tile) -> Box:
        """The tile in level px, possibly reaching beyond the level; at least one px wide."""
        left, right = self._edges(tile.column)
        top, bottom = self._edges(tile.row)
        return Box(left, top, right, bottom)

    def region(self, box: Box) -> Region:
        """The reader's region for a box of level px."""
        scale = self.level.downsample
        return Region(
            _round(box.left * scale),
            _round(box.top * scale),
            self.level.index,
            box.width,
            box.height,
        )

    def touches_edge(self, tile: Tile) -> bool:
        """Whether the tile reaches beyond the level it is read from (and is padded white)."""
        box = self.box(tile)
        return box.right > self.level.width or box.bottom > self.level.height

    def divides(self, factor: int) -> bool:
        """Whether a level at 1/factor serves every tile: no border between px, none too coarse."""
        edges = [self._edges(index) for index in range(max(self.columns, self.rows))]
        return all(
            first % factor == last % factor == 0 and last - first >= factor * self.tile_size
            for first, last in edges
        )

    def level0_boxes(self, tiles: Sequence[Tile] | Cells) -> npt.NDArray[np.float64]:
        """(N, 4) exact x0, y0, x1, y1 of tiles in level-0 px."""
        cells = np.asarray(tiles, float).reshape(-1, 2)[:, ::-1]
        start = cells * (self.step * self.downsample)
        return np.hstack([start, start + self.tile_size * self.downsample])

    def _edges(self, index: int) -> tuple[int, int]:
        scale = self.downsample / self.level.downsample
        start = index * self.step
        first, last = _round(start * scale), _round((start + self.tile_size) * scale)
        return first, max(last, first + 1)


def compact_order(tiles: Sequence[Tile]) -> list[Tile]:
    """Tiles along a Z-order (Morton) curve: runs of 4^k of a full grid are squares."""
    rows, columns = np.asarray(tiles, np.int64).reshape(-1, 2).T
    order = np.argsort(_interleave(columns) | _interleave(rows) << 1, kind="stable")
    return [tiles[index] for index in order.tolist()]


def blocks(tiles: Sequence[Tile], side: int) -> list[list[int]]:
    """Indices of `tiles` grouped by cells of `side` x `side` tiles, to be read together."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, tile in enumerate(tiles):
        groups.setdefault((tile.row // side, tile.column // side), []).append(index)
    return list(groups.values())


def enclosing(boxes: Sequence[Box]) -> Box:
    """The smallest box around `boxes`."""
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )


def _tiles_along(length: float, tile_size: int, step: int) -> int:
    # A last strip thinner than half an output px holds no pixel: 512.2 px are two tiles of 256.
    return max(1, ceil((length - 0.5 - (tile_size - step)) / step))


def _round(value: float) -> int:
    return floor(value + 0.5)


def _interleave(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Spread the bits of values (N,), below 2**31, to even places."""
    spread = np.zeros_like(values)
    for bit in range(int(values.max(initial=0)).bit_length()):
        spread |= (values >> bit & 1) << 2 * bit
    return spread
