"""Labelled tiles for training and judging: what is cut from which image, and where."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsi_norm.cohort.masks import read_mask
from wsi_norm.cohort.splits import LabelledImage
from wsi_norm.config import TrainConfig
from wsi_norm.pixels import UInt8
from wsi_norm.resampling import fit
from wsi_norm.slide import read_image
from wsi_norm.store import TileStore

IGNORE = 255
"""Mask value of pixels that lie outside the image: no loss, no score."""

CORNERS = 4


class Cut(NamedTuple):
    """One tile of one image: which image, its class, and where (None: anywhere, by the draw)."""

    image: int
    label: int
    y: int | None
    x: int | None


class LabelledTiles(Dataset[tuple[Tensor, Tensor, int, int]]):
    """Tiles cut from labelled images; decoded images stay in memory.

    Parameters
    ----------
    images
        Of one split.
    config
        Its `data` and `task` say what is cut.
    classes
        How many.
    training
        Tiles at random places (with `fixed_crops` those that the seed draws once),
        `crops_per_image` of each image; else the centre (classification)
        or a grid that covers the image (segmentation).
    """

    def __init__(
        self, images: Sequence[LabelledImage], config: TrainConfig, classes: int, *, training: bool
    ) -> None:
        self.images = tuple(images)
        self.data, self.task, self.classes = config.data, config.task, classes
        self.seed = config.seed
        groups = sorted({image.group for image in images})
        self.groups = {name: number for number, name in enumerate(groups)}
        self._pixels: dict[int, UInt8] = {}
        self._masks: dict[int, UInt8] = {}
        self._stores: dict[Path, TileStore] = {}
        self._cut_all(training)

    def for_training(self) -> LabelledTiles:
        """The same images, in memory once, cut for training."""
        other = copy(self)
        other._cut_all(training=True)
        return other

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, int, int]:
        """The tile at a position, and the draw that places it if it may lie anywhere."""
        position, draw = key
        cut = self.cuts[position]
        image, mask = self.pixels(cut.image), self._mask(cut.image)
        size = self.data.tile_size
        if size is not None:
            y, x = self._place(cut, image.shape[:2], draw)
            image = _window(image, y, x, size, mode="reflect")
            mask = None if mask is None else _window(mask, y, x, size, mode="constant")
        target = torch.tensor(cut.label if mask is None else mask, dtype=torch.long)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return pixels, target, int(self.group_of[position]), cut.image

    def pixels(self, index: int) -> UInt8:
        """uint8 (H, W, 3) of an image, at the size that is trained on."""
        if index not in self._pixels:
            image = self.images[index]
            whole = self._read(image)
            self._pixels[index] = _scaled_down(whole, self.data.downsample)
        return self._pixels[index]

    def labels(self) -> npt.NDArray[np.int64]:
        """Class of every tile (classification)."""
        return np.array([cut.label for cut in self.cuts])

    def _read(self, image: LabelledImage) -> UInt8:
        if image.row is not None:
            return self._stored(image)
        return read_image(image.path, self.data.icc)

    def _stored(self, image: LabelledImage) -> UInt8:
        if image.path not in self._stores:
            self._stores[image.path] = TileStore.open(image.path)
        assert image.row is not None
        return np.asarray(self._stores[image.path][image.row])

    def _mask(self, index: int) -> UInt8 | None:
        path = self.images[index].mask
        if path is None:
            return None
        if index not in self._masks:
            step = self.data.downsample
            mask = read_mask(path, self.classes)
            height, width = (edge // step * step for edge in mask.shape)
            self._masks[index] = mask[step // 2 : height : step, step // 2 : width : step]
        return self._masks[index]

    def _cut_all(self, training: bool) -> None:
        self.cuts = [cut for i in range(len(self.images)) for cut in self._cuts(i, training)]
        groups = [self.groups[self.images[cut.image].group] for cut in self.cuts]
        self.group_of = np.array(groups, np.int64)

    def _cuts(self, index: int, training: bool) -> list[Cut]:
        image, size = self.images[index], self.data.tile_size
        if self.data.views:
            return [
                Cut(index, label, *self._view(index, where))
                for label, where in enumerate(self.data.views.values())
            ]
        label = -1 if image.label is None else image.label
        if size is None:
            return [Cut(index, label, 0, 0)]
        if training:
            numbers = range(self.data.crops_per_image)
            return [Cut(index, label, *self._random_place(index, number)) for number in numbers]
        height, width = self.pixels(index).shape[:2]
        if self.task == "classification":
            return [Cut(index, label, (height - size) // 2, (width - size) // 2)]
        return [
            Cut(index, label, y, x) for y in range(0, height, size) for x in range(0, width, size)
        ]

    def _random_place(self, index: int, number: int) -> tuple[int | None, int | None]:
        """Top left of a crop: left to the draw, or drawn here for all epochs."""
        if not self.data.fixed_crops:
            return None, None
        size = self.data.tile_size
        assert size is not None
        random = np.random.default_rng([self.seed, index, number])
        y, x = (int(random.integers(0, edge - size + 1)) for edge in self.pixels(index).shape[:2])
        return y, x

    def _view(self, index: int, where: str) -> tuple[int, int]:
        """Top left of the centre; or of a corner, each image's own, so that no corner is a clue."""
        assert self.data.tile_size is not None
        height, width = (edge - self.data.tile_size for edge in self.pixels(index).shape[:2])
        if where == "center":
            return height // 2, width // 2
        row, column = divmod(index % CORNERS, 2)
        return row * height, column * width

    def _place(self, cut: Cut, shape: Sequence[int], draw: int) -> tuple[int, int]:
        if cut.y is not None and cut.x is not None:
            return cut.y, cut.x
        assert self.data.tile_size is not None
        random = np.random.default_rng(draw)
        y, x = (int(random.integers(0, edge - self.data.tile_size + 1)) for edge in shape)
        return y, x


def _scaled_down(image: UInt8, step: int) -> UInt8:
    """Smaller by an integer, as a run resizes; what does not fill a px at the far edges is cut."""
    height, width = (edge // step for edge in image.shape[:2])
    return fit(image[: height * step, : width * step], height, width)


def _window(array: UInt8, y: int, x: int, size: int, mode: Any) -> UInt8:
    """array[y : y + size, x : x + size]; what lies outside is reflected (pixels) or IGNORE."""
    part = array[y : y + size, x : x + size]
    missing = [(0, size - edge) for edge in part.shape[:2]]
    if not any(after for _, after in missing):
        return part
    extra = {} if mode == "reflect" else {"constant_values": IGNORE}
    return np.pad(part, [*missing, *[(0, 0)] * (part.ndim - 2)], mode=mode, **extra)
