"""The whole slide at low resolution, painted block by block from one level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsi_norm.errors import ReadError
from wsi_norm.geometry import Box, Level, best_level
from wsi_norm.slide.readers.base import Metadata

WHITE = 255
BLOCK_PX = 1024
SMALLEST_BLOCK_PX = 256
MAX_HALVED = 1000
"""Blocks that are halved to find what can be read in them: where nothing can, that has an end."""

Decode = Callable[[Level, Box], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Overview:
    """A slide at low resolution.

    Attributes
    ----------
    image
        uint8 (h, w, 3); what could not be read is white.
    readable
        bool (h, w): False where the source could not be read.
    downsample
        (x, y): level-0 px per px of `image`.
    mpp_um
        Resolution of `image` in um/px.
    left_out
        bool (h, w): where the slide's file holds no pixels of the level that this was made from.
    """

    image: npt.NDArray[np.uint8]
    readable: npt.NDArray[np.bool_]
    downsample: tuple[float, float]
    mpp_um: float
    left_out: npt.NDArray[np.bool_]


def painted(
    metadata: Metadata, level0_mpp_um: float, mpp_um: float, decode: Decode
) -> tuple[Overview, ReadError | None]:
    """A slide at about `mpp_um`, antialiased, and the last error of what could not be decoded."""
    levels = metadata.levels
    level = best_level(levels, max(mpp_um / level0_mpp_um, 1.0))
    factor = max(mpp_um / (level0_mpp_um * level.downsample), 1.0)
    width, height = max(1, round(level.width / factor)), max(1, round(level.height / factor))
    canvas = _Canvas(
        np.full((height, width, 3), WHITE, np.uint8),
        np.zeros((height, width), np.bool_),
        level,
        (level.width / width, level.height / height),
        decode,
    )
    failure: ReadError | None = None
    for target in _blocks(Box(0, 0, width, height), max(1, int(BLOCK_PX / max(canvas.scale)))):
        failure = canvas.paint(target) or failure
    downsample = levels[0].width / width, levels[0].height / height
    left_out = np.zeros((height, width), np.bool_)
    if level.index in metadata.left_out:
        x, y = (
            (np.arange(n) + 0.5) * s for n, s in zip((width, height), canvas.scale, strict=True)
        )
        left_out = metadata.left_out[level.index].at(x, y)
    mpp_um = level0_mpp_um * downsample[0]
    return Overview(canvas.image, canvas.readable, downsample, mpp_um, left_out), failure


@dataclass(frozen=True)
class _Canvas:
    """An overview in the making; `scale` is px of the level per px of the image, (x, y)."""

    image: npt.NDArray[np.uint8]
    readable: npt.NDArray[np.bool_]
    level: Level
    scale: tuple[float, float]
    decode: Decode
    halved: list[Box] = field(default_factory=list)

    def paint(self, target: Box) -> ReadError | None:
        """Decode what lies under a box of the image and reduce it into it; halve on failure."""
        x, y = self.scale
        left, top, right, bottom = (
            target.left * x,
            target.top * y,
            target.right * x,
            target.bottom * y,
        )
        box = Box(
            int(left),
            int(top),
            min(self.level.width, int(np.ceil(right - 1e-6))),
            min(self.level.height, int(np.ceil(bottom - 1e-6))),
        )
        try:
            pixels = self.decode(self.level, box)
        except ReadError as error:
            side = max(target.width, target.height)
            large = max(box.width, box.height) > SMALLEST_BLOCK_PX and side > 1
            if large and len(self.halved) < MAX_HALVED:
                self.halved.append(target)
                for part in _blocks(target, (side + 1) // 2):
                    self.paint(part)
            return error
        start = left - box.left, top - box.top
        window = (
            *start,
            min(start[0] + right - left, box.width),
            min(start[1] + bottom - top, box.height),
        )
        small = Image.fromarray(pixels).resize(
            (target.width, target.height), Image.Resampling.BOX, box=window
        )
        at = slice(target.top, target.bottom), slice(target.left, target.right)
        self.image[at] = np.asarray(small)
        self.readable[at] = True
        return None


def _blocks(box: Box, side: int) -> Iterator[Box]:
    for top in range(box.top, box.bottom, side):
        for left in range(box.left, box.right, side):
            yield Box(left, top, min(left + side, box.right), min(top + side, box.bottom))
