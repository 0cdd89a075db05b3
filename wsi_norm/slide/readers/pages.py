"""The pages of a TIFF of no vendor: which one is the slide, and which may be its levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tifffile

from wsi_norm.slide.directories import MAX_TILE_PX
from wsi_norm.slide.levels import POWERS, StoredLevel, possible_downsamples, sizes_agree
from wsi_norm.slide.readers.base import TIFFFILE_ERRORS, Declined, Refused, Stated, translated
from wsi_norm.slide.readers.resolution import Described, Statement

TOP_LEFT = 1
"""Orientation of nearly all TIFFs: the first row is the top, the first column the left."""

LARGEST_LEVEL = 0.9
"""A level has at most this share of the width of full resolution, padding included."""

NUMBERS = (
    "imagewidth",
    "imagelength",
    "tilewidth",
    "tilelength",
    "samplesperpixel",
    "planarconfig",
    "subfiletype",
)
"""What tifffile takes from tags as they are, damaged or not."""


@dataclass(frozen=True)
class SlidePages:
    """Pages of 8-bit colour in tiles.

    Attributes
    ----------
    full
        The largest page of the file.
    smaller
        What may be its levels, finest first, each size once; and whether the file marks it so.
    all
        Every page, of whatever kind, in the order of the file.
    """

    full: tifffile.TiffPage
    smaller: tuple[tuple[tifffile.TiffPage, bool], ...]
    all: tuple[tifffile.TiffPage, ...]

    @classmethod
    def of(cls, tiff: tifffile.TiffFile) -> SlidePages:
        """Sort the pages of a file.

        Raises
        ------
        Refused
            The largest page is not tiled, or not of 8-bit colour; or directories are damaged.
        """
        pages = read_pages(tiff)
        full = max((page.ifd for page in pages), key=_area)
        _check(full)
        marked = [(page.ifd, page.marks_level_of(full)) for page in pages]
        sizes: dict[tuple[int, int], tuple[tifffile.TiffPage, bool]] = {}
        for page, sure in sorted(marked, key=lambda pair: pair[1], reverse=True):
            if _is_tiled(page) and page.imagewidth <= LARGEST_LEVEL * full.imagewidth:
                sizes.setdefault(_size(page), (page, sure))  # the marked one of two of a size
        smaller = [pair for pair in sizes.values() if pair[1] or _may_be_level(full, pair[0])]
        smaller.sort(key=lambda pair: _area(pair[0]), reverse=True)
        return cls(full, tuple(smaller), tuple(page.ifd for page in pages))

    def stored(self) -> list[StoredLevel]:
        """All of them, as levels; whole slide first."""
        pages = [(self.full, True), *self.smaller]
        return [stored(number, self.full, *page) for number, page in enumerate(pages)]

    def check_ordinary(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Leave to others what libraries read wrongly that take the first page and marked ones.

        Parameters
        ----------
        sizes
            (width, height) of the levels that the library takes.
        """
        levels = self.stored()
        check_not_turned(self.full, Declined)
        if self.full is not self.all[0]:
            raise Declined("the largest page is not the first")
        if unspecified_samples(self.full):
            raise Declined("it has a fourth sample that is not said to be alpha")
        if {(level.width, level.height) for level in levels} != set(sizes):
            raise Declined("levels lie in pages that are not marked as such, or among SubIFDs")
        if not all(sizes_agree(levels[0], level) for level in levels[1:]):
            raise Declined("levels are padded")


def checked(tiff: tifffile.TiffFile, stated: Stated) -> Described:
    """What pages state beside a library's properties, if it reads them rightly.

    Raises
    ------
    Refused, Declined
        A library would read the file wrongly: all would, or this one.
    """
    if stated.plain:
        SlidePages.of(tiff).check_ordinary(stated.sizes)
    pages = [page.ifd for page in read_pages(tiff)]
    check_not_turned(pages[0], Refused)
    full = [page for page in pages if _size(page) == stated.sizes[0]]
    return Described.by(*(statement(page) for page in (*full, *pages)))


@dataclass(frozen=True)
class Page:
    """A page of a TIFF: its directory, and whose SubIFD it is."""

    ifd: tifffile.TiffPage
    parent: tifffile.TiffPage | None

    def marks_level_of(self, full: tifffile.TiffPage) -> bool:
        """Whether it is said to be a level: a reduced page, or a SubIFD of full resolution."""
        return self.ifd.is_reduced if self.parent is None else self.parent is full


def read_pages(tiff: tifffile.TiffFile) -> list[Page]:
    """Every page, each followed by its SubIFDs.

    Raises
    ------
    Refused
        There is none, directories are damaged, or they form a loop.
    """
    with translated(Refused, *TIFFFILE_ERRORS):
        pages = list(_walk(tiff))
    if not pages:
        raise Refused("the TIFF has no page")
    return pages


def _walk(tiff: tifffile.TiffFile) -> Iterator[Page]:
    seen = set()
    for entry in tiff.pages:
        page = entry.aspage()
        if page.offset in seen:
            raise Refused("its directories form a loop")
        seen.add(page.offset)
        yield _whole(page, None)
        for below in page.pages or ():
            yield _whole(below.aspage(), page)


def _whole(page: tifffile.TiffPage, parent: tifffile.TiffPage | None) -> Page:
    """A page whose tags are numbers where numbers are expected."""
    for name in NUMBERS:
        if not isinstance(getattr(page, name), int):
            raise Refused(f"the tag of {name} in its page {page.index} is damaged")
    return Page(page, parent)


def statement(page: tifffile.TiffPage) -> Statement:
    """What a page says of its size and its resolution."""
    x, y = (_quotient(page, f"{axis}Resolution") for axis in "XY")
    text = page.description if isinstance(page.description, str) else ""
    return Statement(_size(page), text, x, y, _number(page, "ResolutionUnit"))


def icc_profile(page: tifffile.TiffPage) -> bytes | None:
    """The tag of an ICC profile; empty where it holds something else, None where there is none."""
    if "InterColorProfile" not in page.tags:
        return None
    value = page.tags["InterColorProfile"].value
    return value if isinstance(value, bytes) else b""


def _number(page: tifffile.TiffPage, tag: str) -> int | None:
    value = page.tags[tag].value if tag in page.tags else None
    return int(value) if isinstance(value, int) else None


def _quotient(page: tifffile.TiffPage, tag: str) -> float | None:
    value = page.tags[tag].value if tag in page.tags else None
    if not isinstance(value, tuple) or len(value) != 2 or not all(value):
        return None
    return float(value[0] / value[1])


def orientation(page: tifffile.TiffPage) -> int:
    """Value of the Orientation tag, 1 to 8; 1 where it holds nothing of these."""
    value = _number(page, "Orientation")
    return value if value is not None and 1 <= value <= 8 else TOP_LEFT


def check_not_turned(page: tifffile.TiffPage, otherwise: type[Refused]) -> None:
    """Refuse what OpenSlide scrambles: it turns each tile by itself."""
    if orientation(page) != TOP_LEFT:
        raise otherwise(f"the picture lies turned in the file (Orientation {orientation(page)})")


def unspecified_samples(page: tifffile.TiffPage) -> bool:
    """Whether there are samples beside red, green and blue of which nothing is said."""
    alpha = tuple(page.extrasamples)[:1] in {(1,), (2,)}
    return page.samplesperpixel > 3 and not alpha


def stored(
    number: int, full: tifffile.TiffPage, page: tifffile.TiffPage, marked: bool
) -> StoredLevel:
    """A page as a level."""
    width, height = _size(page)
    downsample = (full.imagewidth / width + full.imagelength / height) / 2
    return StoredLevel(number, width, height, downsample, (page.tilewidth, page.tilelength), marked)


def _size(page: tifffile.TiffPage) -> tuple[int, int]:
    return page.imagewidth, page.imagelength


def _area(page: tifffile.TiffPage) -> int:
    return page.imagewidth * page.imagelength


def _photometric(page: tifffile.TiffPage) -> str:
    return str(getattr(page.photometric, "name", page.photometric))


def _is_tiled(page: tifffile.TiffPage) -> bool:
    return _is_colour(page) and 0 < page.tilewidth * page.tilelength <= MAX_TILE_PX


def _is_colour(page: tifffile.TiffPage) -> bool:
    colour = page.dtype == np.uint8 and _photometric(page) in {"RGB", "YCBCR"}
    return bool(colour and page.samplesperpixel >= 3 and _area(page) > 0)


def _check(page: tifffile.TiffPage) -> None:
    if not _is_colour(page):
        raise Refused(f"{page.dtype} {_photometric(page)} pixels are not 8-bit colour in one page")
    if not _is_tiled(page):
        raise Refused("the TIFF is not tiled, or not in tiles that fit into memory")


def _may_be_level(full: tifffile.TiffPage, page: tifffile.TiffPage) -> bool:
    """Whether a page that is not marked has the proportions of the slide, or of a padded one."""
    whole, level = stored(0, full, full, True), stored(1, full, page, False)
    return sizes_agree(whole, level) or not POWERS.isdisjoint(possible_downsamples(whole, level))
