"""What a reader is, and what several of them need.

A reader opens a path or raises `Refused`, states its `Metadata`, reads a rectangle that lies
*inside* a level and raises `ReadError` when that cannot be decoded. Whatever differs between the
libraries (types of mpp, alpha, axes, exceptions) ends in its module. Exceptions are translated
around the call of the library alone, so that a mistake of ours never passes for a damaged file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from wsi_norm.errors import WsiNormError
from wsi_norm.geometry import Box, Level
from wsi_norm.slide.levels import StoredLevel

RGB = npt.NDArray[np.uint8]

TIFFFILE_ERRORS = (
    tifffile.TiffFileError,
    OSError,
    ValueError,
    LookupError,
    TypeError,  # tags of another type or length than it expects
    ArithmeticError,
    struct.error,
)
"""What tifffile raises on damaged directories."""

PAGED = frozenset({"aperio", "generic-tiff"})
"""Formats whose levels are pages of a TIFF, each a plain grid of tiles."""

KEPT_BYTES = 1 << 24
"""Decoded tiles that a reader keeps for the reads that follow: 64 or 85 of 256 px."""

MAX_ANISOTROPY = 0.05
"""Pixels whose sides differ more are not square, and one mpp says nothing of them."""


class Refused(WsiNormError):  # noqa: N818
    """A reader does not open a file; the text is its reason, without the path."""


class Declined(Refused):
    """A reader leaves a file to the others, which says nothing of the file."""


@dataclass(frozen=True)
class StatedMpp:
    """um/px of level 0 along both axes, as a file states them, and where it does."""

    x: float
    y: float
    where: str

    @property
    def mean(self) -> float:
        """Of both axes, um/px."""
        return (self.x + self.y) / 2

    @property
    def isotropic(self) -> bool:
        """Whether pixels are square."""
        return max(self.x, self.y) <= (1 + MAX_ANISOTROPY) * min(self.x, self.y)


@dataclass(frozen=True)
class Metadata:
    """What a file says of itself; None where it says nothing."""

    levels: tuple[Level, ...]
    mpp: StatedMpp | None = None
    objective_power: float | None = None
    vendor: str | None = None
    associated_images: tuple[str, ...] = ()
    icc_profile: bytes | None = None
    """As it lies in the file, whatever that is worth; see `wsi_norm.slide.icc`."""
    bounds: Box | None = None
    """What was scanned, in level-0 px, where there is more to the slide than that."""
    left_out: Mapping[int, LeftOut] = field(default_factory=dict)
    """By level, the tiles that the file holds no bytes for; only levels that lack some."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Where a level has no pixels.

    Attributes
    ----------
    tile
        (width, height) of its tiles in px.
    tiles
        bool (rows, columns): those that are left out.
    """

    tile: tuple[int, int]
    tiles: npt.NDArray[np.bool_]

    def at(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """bool (len(y), len(x)): whether these px of the level are left out."""
        (across, column), (down, row) = (
            (number, (place // edge).astype(np.intp))
            for number, place, edge in zip(self.tiles.shape[::-1], (x, y), self.tile, strict=True)
        )
        inside = ((row >= 0) & (row < down))[:, None] & (column >= 0) & (column < across)
        found = self.tiles[np.ix_(row.clip(0, down - 1), column.clip(0, across - 1))]
        return np.asarray(found & inside)

    def of(self, box: Box) -> npt.NDArray[np.bool_]:
        """bool (height, width) of a box of level px."""
        return self.at(np.arange(box.left, box.right), np.arange(box.top, box.bottom))


class Reader(Protocol):
    """An open file."""

    metadata: Metadata

    def __init__(self, path: str) -> None: ...

    @property
    def name(self) -> str:
        """As the store has it."""
        ...

    @property
    def block_px(self) -> int:
        """Edge of what is best read at once: 1 where decoded tiles are kept: any read is cheap."""
        ...

    @property
    def version(self) -> str:
        """Of the package that decodes the pixels."""
        ...

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3): a rectangle of level px that lies inside the level."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


Reducible = Mapping[int, frozenset[int]]
"""Levels, and the factors at a fraction of which they are decoded."""


@runtime_checkable
class ReducingReader(Reader, Protocol):
    """A reader that need not decode all of a level to give a half, a quarter or an eighth of it."""

    reducible: Reducible

    def reduced(
        self, level: Level, left: int, top: int, width: int, height: int, factor: int
    ) -> RGB | None:
        """uint8 (height / factor, width / factor, 3) of a rectangle of whole such px.

        None where the file does not give them so, which holds for good: then it is to be read.
        """
        ...


@contextmanager
def translated(ours: type[WsiNormError], *foreign: type[Exception]) -> Iterator[None]:
    """Around a call of a library: what it raises on damaged files, as our error in one line."""
    try:
        yield
    except foreign as error:
        raise ours(" ".join(str(error).split()) or type(error).__name__) from error


@contextmanager
def closed_on_failure(file: Any) -> Iterator[None]:
    """Close an open file if the block does not end well."""
    with ExitStack() as stack:
        stack.callback(file.close)
        yield
        stack.pop_all()


def positive_number(value: Any) -> float | None:
    """A property as a positive finite float; None for absent, garbage, zero, inf or nan."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


class TileGrid(Protocol):
    """How the tiles of a level lie: their size, and how many are in a row."""

    @property
    def width(self) -> int:
        """In px."""
        ...

    @property
    def height(self) -> int:
        """In px."""
        ...

    @property
    def across(self) -> int:
        """Tiles in a row."""
        ...


Tiles = TypeVar("Tiles", bound=TileGrid)


def pasted(tiles: Tiles, box: Box, tile_of: Callable[[Tiles, int], RGB]) -> RGB:
    """The pixels of a box, from the tiles that it touches; `tile_of` gives one by its number."""
    pixels = np.empty((box.height, box.width, 3), np.uint8)
    for row in range(box.top // tiles.height, (box.bottom - 1) // tiles.height + 1):
        for column in range(box.left // tiles.width, (box.right - 1) // tiles.width + 1):
            tile = tile_of(tiles, row * tiles.across + column)
            y, x = row * tiles.height - box.top, column * tiles.width - box.left
            part = tile[max(-y, 0) : box.height - y, max(-x, 0) : box.width - x]
            y, x = max(y, 0), max(x, 0)
            pixels[y : y + part.shape[0], x : x + part.shape[1]] = part
    return pixels


def on_white(image: Image.Image) -> RGB:
    """uint8 (H, W, 3) of a Pillow image, transparency composed on white."""
    if image.mode in {"P", "LA"}:
        image = image.convert("RGBA")
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class Stated:
    """What an OpenSlide or a TiffSlide is asked for when it opens a file."""

    prefix: str
    properties: Mapping[str, Any]
    sizes: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    associated_images: tuple[str, ...]

    @classmethod
    def by(cls, slide: Any, prefix: str) -> Stated:
        """Ask: nothing but calls of the library; its properties start with `prefix`."""
        return cls(
            prefix,
            dict(slide.properties),
            slide.level_dimensions,
            slide.level_downsamples,
            tuple(sorted(slide.associated_images)),
        )

    def levels(self) -> list[StoredLevel]:
        """Its levels, as they are stored."""
        return [
            StoredLevel(index, width, height, float(downsample), self._tile(index))
            for index, ((width, height), downsample) in enumerate(
                zip(self.sizes, self.downsamples, strict=True)
            )
        ]

    def mpp(self, where: str) -> StatedMpp | None:
        """Its mpp; of one axis, if it states no more."""
        axes = [positive_number(self.get(f"mpp-{axis}")) for axis in "xy"]
        known = [mpp for mpp in axes if mpp is not None]
        return StatedMpp(known[0], known[-1], where) if known else None

    @property
    def bounds(self) -> Box | None:
        """What was scanned, where that is less than the slide."""
        stated = [self.get(f"bounds-{key}") for key in ("x", "y", "width", "height")]
        try:
            left, top, width, height = map(int, stated)
        except (TypeError, ValueError):
            return None
        return Box(left, top, left + width, top + height) if width > 0 and height > 0 else None

    @property
    def plain(self) -> bool:
        """Whether it is a TIFF of no vendor."""
        return self.get("vendor") in {None, "generic-tiff"}

    def get(self, name: str) -> Any:
        """A property; those of the two libraries differ by prefix alone."""
        return self.properties.get(f"{self.prefix}.{name}")

    def _tile(self, index: int) -> tuple[int, int] | None:
        edges = [
            positive_number(self.get(f"level[{index}].tile-{side}")) for side in ("width", "height")
        ]
        width, height = edges
        return (int(width), int(height)) if width and height else None
