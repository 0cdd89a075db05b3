"""A whole-slide image: its levels, its mpp, its pixels on white."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from types import TracebackType
from typing import Literal, NoReturn, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsi_norm.errors import ReadError, UnreadableSlideError
from wsi_norm.geometry import Box, Level, Region, best_level
from wsi_norm.location import Location
from wsi_norm.slide.diagnose import tifffile_complaints
from wsi_norm.slide.readers import (
    OPEN_ERRORS,
    READ_ERRORS,
    Metadata,
    Reader,
)

MppSource = Literal["slide", "table", "default"]

WHITE = 255
_BLOCK_PX = 1024
_SMALLEST_BLOCK_PX = 256


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
    """

    image: npt.NDArray[np.uint8]
    readable: npt.NDArray[np.bool_]
    downsample: tuple[float, float]
    mpp_um: float


@dataclass
class Slide:
    """An open slide; use `open_slide` to get one and a `with` block to close it.

    Handles belong to the process that opened them: a Slide does not pickle. Send its path.

    Attributes
    ----------
    path
        The file that is read (for a DICOM folder, one of its instances).
    mpp_um, mpp_source
        Level-0 resolution in um/px, and whether the slide, the table or the default stated it.
    damage
        What is wrong with a file that can still be read in part; None for a whole one.
    """

    path: Location
    mpp_um: float
    mpp_source: MppSource
    damage: str | None
    _reader: Reader = field(repr=False)
    _closed: bool = field(default=False, repr=False)
    _lost: bool = field(default=False, repr=False)

    @property
    def metadata(self) -> Metadata:
        """Levels, vendor, objective power, bounds, associated images, ICC presence."""
        return self._reader.metadata

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest first."""
        return self.metadata.levels

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) in level-0 px."""
        return self.levels[0].width, self.levels[0].height

    @property
    def reader(self) -> str:
        """Name of the library that reads the file."""
        return self._reader.name

    @property
    def block_px(self) -> int:
        """Edge of the blocks, in px of a level, in which neighbouring tiles are best read."""
        return self._reader.block_px

    @property
    def reader_version(self) -> str:
        """Version of that library."""
        if self.reader == "direct":
            return f"simplejpeg {version('simplejpeg')}"
        package = {"openslide": "openslide-bin", "image": "pillow"}
        return version(package.get(self.reader, self.reader))

    def read(self, region: Region) -> npt.NDArray[np.uint8]:
        """Pixels of a region, on white; white also outside the slide.

        Parameters
        ----------
        region
            x, y in level-0 px, width and height in px of the region's level.

        Returns
        -------
        uint8 (height, width, 3)

        Raises
        ------
        ReadError
            The region cannot be decoded. The slide is reopened, so other regions still read.
        UnreadableSlideError
            The file itself is gone or no longer opens; a later read tries again.
        """
        level = self.levels[region.level]
        left, top = round(region.x / level.downsample), round(region.y / level.downsample)
        inside = Box(
            min(max(left, 0), level.width),
            min(max(top, 0), level.height),
            max(min(left + region.width, level.width), 0),
            max(min(top + region.height, level.height), 0),
        )
        if inside.width == region.width and inside.height == region.height:
            return self._decode(level, inside)
        pixels = np.full((region.height, region.width, 3), WHITE, np.uint8)
        if inside.width > 0 and inside.height > 0:
            rows = slice(inside.top - top, inside.bottom - top)
            columns = slice(inside.left - left, inside.right - left)
            pixels[rows, columns] = self._decode(level, inside)
        return pixels

    def overview(self, mpp_um: float) -> Overview:
        """The whole slide at about `mpp_um`, antialiased; unreadable parts white and marked.

        Raises
        ------
        UnreadableSlideError
            Nothing at all can be read.
        """
        width, height = self.dimensions
        level = best_level(self.levels, max(mpp_um / self.mpp_um, 1.0))
        factor = max(mpp_um / (self.mpp_um * level.downsample), 1.0)
        size = max(1, round(level.width / factor)), max(1, round(level.height / factor))
        scale = level.width / size[0], level.height / size[1]
        image = np.full((size[1], size[0], 3), WHITE, np.uint8)
        readable = np.zeros((size[1], size[0]), np.bool_)
        failure: ReadError | None = None
        for target in _blocks(size, max(1, int(_BLOCK_PX / max(scale)))):
            failure = self._paint(level, scale, target, image, readable) or failure
        if failure is not None and not readable.any():
            raise UnreadableSlideError(
                f"{failure}; nothing of this slide can be read: copy it again"
            )
        return Overview(
            image, readable, (width / size[0], height / size[1]), self.mpp_um * width / size[0]
        )

    def fingerprint(self) -> str:
        """SHA-256 of the file's first MiB: with its size, enough to notice another file."""
        with self.path.open("rb") as file:
            return hashlib.sha256(file.read(1 << 20)).hexdigest()

    def close(self) -> None:
        """Close the file; reading afterwards raises ReadError."""
        if not self._closed and not self._lost:
            self._reader.close()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # a worker's thread has ended: what it kept open is closed with it

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Slide holds an open file and does not pickle; send its path")

    def _decode(self, level: Level, box: Box) -> npt.NDArray[np.uint8]:
        if self._closed:
            raise ReadError(f"{self.path}: the slide is closed")
        if self._lost:
            self._reopen()
        try:
            return self._reader.read(level, box.left, box.top, box.width, box.height)
        except READ_ERRORS as error:
            self._reopen()  # OpenSlide's errors latch: the old handle would fail everywhere
            where = (
                f"{box.width} x {box.height} px at ({box.left}, {box.top}) of level {level.index}"
            )
            raise ReadError(f"{self.path}: cannot read {where}: {error}") from error

    def _reopen(self) -> None:
        """Open the file anew; one that is gone for now is not the same as unreadable tiles."""
        kind = type(self._reader)
        if not self._lost:
            self._reader.close()
        self._lost = True
        try:
            with tifffile_complaints(), warnings.catch_warnings(action="ignore"):
                self._reader = kind(str(self.path))
        except OPEN_ERRORS as error:
            raise UnreadableSlideError(
                f"{self.path}: cannot be opened any more: {error}; run the same command again when "
                "it is back"
            ) from error
        self._lost = False

    def _paint(
        self,
        level: Level,
        scale: tuple[float, float],
        target: Box,
        image: npt.NDArray[np.uint8],
        readable: npt.NDArray[np.bool_],
    ) -> ReadError | None:
        """Read the part of a level under `target` and reduce it into `image`; halve on failure."""
        exact = (
            target.left * scale[0],
            target.top * scale[1],
            target.right * scale[0],
            target.bottom * scale[1],
        )
        box = Box(
            int(exact[0]),
            int(exact[1]),
            min(level.width, int(np.ceil(exact[2] - 1e-6))),
            min(level.height, int(np.ceil(exact[3] - 1e-6))),
        )
        try:
            pixels = self._decode(level, box)
        except ReadError as error:
            if (
                max(box.width, box.height) <= _SMALLEST_BLOCK_PX
                or target.width * target.height == 1
            ):
                return error
            half = max(1, (max(target.width, target.height) + 1) // 2)
            for part in _blocks((target.width, target.height), half):
                moved = Box(
                    part.left + target.left,
                    part.top + target.top,
                    part.right + target.left,
                    part.bottom + target.top,
                )
                self._paint(level, scale, moved, image, readable)
            return error
        source = (exact[0] - box.left, exact[1] - box.top)
        window = (
            *source,
            min(source[0] + exact[2] - exact[0], box.width),
            min(source[1] + exact[3] - exact[1], box.height),
        )
        small = Image.fromarray(pixels).resize(
            (target.width, target.height), Image.Resampling.BOX, box=window
        )
        at = slice(target.top, target.bottom), slice(target.left, target.right)
        image[at] = np.asarray(small)
        readable[at] = True
        return None


def _blocks(size: tuple[int, int], side: int) -> Iterator[Box]:
    width, height = size
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Box(left, top, min(left + side, width), min(top + side, height))
