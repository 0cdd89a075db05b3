"""The image that other tools take tiles from: the slide, or the pyramid of normalised pixels."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from wsi_norm.errors import ExportError
from wsi_norm.store import TileStore

Image = Literal["slide", "pyramid"]

TOLERANCE = 0.005
"""Between the downsamples of tiles and of a level that other tools take them from: 1 px in 256."""


@dataclass(frozen=True)
class ImageOptions:
    """`image`: whose level-0 px coordinates are."""

    image: Image = "slide"

    def __post_init__(self) -> None:
        if self.image not in get_args(Image):
            raise ValueError(f"image is {' or '.join(get_args(Image))}, not {self.image!r}")


@dataclass(frozen=True)
class Frame:
    """Where tiles lie on an image.

    Attributes
    ----------
    coords
        (N, 2): x, y of top-left corners in px of the image's level 0.
    tile_size
        Of the tiles, in their own px.
    downsample
        Level-0 px per px of a tile.
    width, height, mpp_um
        Of level 0.
    level, level_width, level_height, level_downsample
        The coarsest level that is at least as fine as the tiles.
    """

    coords: npt.NDArray[np.int64]
    tile_size: int
    downsample: float
    width: int
    height: int
    mpp_um: float
    level: int
    level_width: int
    level_height: int
    level_downsample: float

    @property
    def edge(self) -> int:
        """Of a tile, in level-0 px; rounded."""
        return round(self.tile_size * self.downsample)

    @property
    def has_resolution(self) -> bool:
        """Whether the level has the tiles' resolution, as near as mpp is ever stated."""
        return abs(self.level_downsample / self.downsample - 1) <= TOLERANCE


def frame(store: TileStore, image: Image) -> Frame:
    """Where a store's tiles lie.

    Raises
    ------
    ExportError
        The tiles overlap, so that no pyramid can hold them.
    """
    slide, tiling, coords = store.meta.slide, store.meta.tiling, store.coords
    if image == "slide":
        return Frame(
            coords,
            tiling.tile_size_px,
            tiling.downsample,
            slide.width_px,
            slide.height_px,
            slide.mpp_um,
            tiling.level,
            tiling.level_width_px,
            tiling.level_height_px,
            tiling.level_downsample,
        )
    if tiling.overlap_px:
        raise ExportError(
            f"{store.path}: its tiles overlap ({tiling.overlap_px} px), so they are no image; "
            "export their places on the slide (image slide)"
        )
    size, grid = tiling.tile_size_px, tiling.grid(slide)
    cells = [grid.tile_at(x, y) for x, y in coords.tolist()]
    places = np.array([(cell.column, cell.row) for cell in cells], np.int64).reshape(-1, 2) * size
    width = min(floor(grid.width + 0.5), grid.columns * size)
    height = min(floor(grid.height + 0.5), grid.rows * size)
    return Frame(places, size, 1.0, width, height, tiling.mpp_um, 0, width, height, 1.0)
