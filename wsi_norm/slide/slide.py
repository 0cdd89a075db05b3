"""A whole-slide image: its levels, its mpp, its pixels on white, in sRGB if that is wanted."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt

from wsi_norm.errors import ReadError, UnreadableSlideError
from wsi_norm.geometry import Box, Level, Region
from wsi_norm.location import Location
from wsi_norm.slide.diagnose import tifffile_complaints
from wsi_norm.slide.icc import Icc
from wsi_norm.slide.mpp import MppSource
from wsi_norm.slide.overview import WHITE, Overview, painted
from wsi_norm.slide.readers.base import Metadata, Reader, Reducible, ReducingReader, Refused

T = TypeVar("T")

_inherited: list[Reader] = []
"""Readers that a fork copied: closing one would move the file's position in the parent, too."""


def fingerprint(path: Location) -> str:
    """SHA-256 of a file's first MiB: with its size, enough to notice another file."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(1 << 20)).hexdigest()


@dataclass
class Slide:
    """An open slide; use `open_slide` to get one and a `with` block to close it.

    Handles belong to the process that opened them: a Slide does not pickle. Send its path.

    Attributes
    ----------
    path
        The file that is read (for a DICOM folder, one of its instances).
    mpp_um, mpp_source
        Level-0 resolution in um/px, and who stated it: the slide (`metadata.mpp` says where), the
        table, --override-mpp or --default-mpp.
    damage
        What is wrong with a file that can still be read in part; None for a whole one.
    warnings
        What else is to be said about it, a line each.
    icc
        What its ICC profile is, and what becomes of it; every pixel goes through it.
    reducible
        Levels that `reduced` gives, and at which factors.
    """

    path: Location
    mpp_um: float
    mpp_source: MppSource
    damage: str | None
    warnings: tuple[str, ...]
    icc: Icc
    reducible: Reducible
    _reader: Reader = field(repr=False)
    _open: Callable[[str], Reader] = field(repr=False)
    _closed: bool = field(default=False, repr=False)
    _lost: bool = field(default=False, repr=False)
    _process: int = field(default_factory=os.getpid, repr=False)

    @property
    def metadata(self) -> Metadata:
        """Levels, vendor, objective power, associated images, ICC profile."""
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
        return self._reader.version

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
        level, (left, top, right, bottom) = self._place(region)
        inside = Box(
            min(max(left, 0), level.width),
            min(max(top, 0), level.height),
            max(min(right, level.width), 0),
            max(min(bottom, level.height), 0),
        )
        if inside.width == region.width and inside.height == region.height:
            return self._decode(level, inside)
        pixels = np.full((region.height, region.width, 3), WHITE, np.uint8)
        if inside.width > 0 and inside.height > 0:
            rows = slice(inside.top - top, inside.bottom - top)
            columns = slice(inside.left - left, inside.right - left)
            pixels[rows, columns] = self._decode(level, inside)
        return pixels

    def reduced(self, region: Region, factor: int) -> npt.NDArray[np.uint8] | None:
        """Pixels of a region at 1/factor, decoded so; only of levels and factors in `reducible`.

        Parameters
        ----------
        region
            As of `read`; its borders in px of the level are multiples of the factor.

        Returns
        -------
        uint8 (height / factor, width / factor, 3); None where the file does not give it so (at its
        edges, where it is damaged): `read` says what is there.

        Raises
        ------
        ReadError, UnreadableSlideError
            As `read`.
        """
        level, box = self._place(region)
        if box.right > level.width or box.bottom > level.height:
            return None
        pixels = self._asked(
            level,
            box,
            lambda reader: cast("ReducingReader", reader).reduced(
                level, box.left, box.top, box.width, box.height, factor
            ),
        )
        return None if pixels is None else self.icc.to_srgb(pixels)

    def overview(self, mpp_um: float) -> Overview:
        """The whole slide at about `mpp_um`, antialiased; unreadable parts white and marked.

        Raises
        ------
        UnreadableSlideError
            Nothing at all can be read.
        """
        overview, failure = painted(self.metadata, self.mpp_um, mpp_um, self._decode)
        if failure is not None and not overview.readable.any():
            raise UnreadableSlideError(
                f"{failure}; nothing of this slide can be read: copy it again"
            )
        return overview

    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self.path)

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

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if at_exit():  # then the modules that would close it are gone, and the file is closed
            return
        if self._process == os.getpid():
            self.close()  # a worker's thread has ended: what it kept open is closed with it
        else:
            _inherited.append(self._reader)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Slide holds an open file and does not pickle; send its path")

    def _place(self, region: Region) -> tuple[Level, Box]:
        """A region in px of its level."""
        level = self.levels[region.level]
        left, top = round(region.x / level.downsample), round(region.y / level.downsample)
        return level, Box(left, top, left + region.width, top + region.height)

    def _decode(self, level: Level, box: Box) -> npt.NDArray[np.uint8]:
        pixels = self._asked(
            level,
            box,
            lambda reader: reader.read(level, box.left, box.top, box.width, box.height),
        )
        pixels = self.icc.to_srgb(pixels)
        left_out = self.metadata.left_out.get(level.index)
        if left_out is not None:  # readers differ in what they draw there
            pixels = np.where(left_out.of(box)[..., None], np.uint8(WHITE), pixels)
        return pixels

    def _asked(self, level: Level, box: Box, ask: Callable[[Reader], T]) -> T:
        """What the reader answers; its ReadError says where."""
        if self._closed:
            raise ReadError(f"{self.path}: the slide is closed")
        if self._lost:
            self._reopen()
        try:
            return ask(self._reader)
        except ReadError as error:
            self._reopen()  # OpenSlide's errors latch: the old handle would fail everywhere
            where = (
                f"{box.width} x {box.height} px at ({box.left}, {box.top}) of level {level.index}"
            )
            raise ReadError(f"{self.path}: cannot read {where}: {error}") from error

    def _reopen(self) -> None:
        """Open the file anew; one that is gone for now is not the same as unreadable tiles."""
        if not self._lost:
            self._reader.close()
        self._lost = True
        try:
            with tifffile_complaints(), warnings.catch_warnings(action="ignore"):
                self._reader = self._open(str(self.path))
        except Refused as error:
            raise UnreadableSlideError(
                f"{self.path}: cannot be opened any more: {error}; run the same command again when "
                "it is back"
            ) from error
        self._lost = False
