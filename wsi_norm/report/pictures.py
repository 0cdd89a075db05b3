"""Small pictures of slides, with tissue and unreadable tiles drawn in: in a page or beside it."""

from __future__ import annotations

import base64
import io
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wsi_norm import location

UInt8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Shares = tuple[float, float, float, float]
"""x0, y0, x1, y1 as shares of a picture's width and height."""

EDGE_PX = 200
"""Longer edge of a picture."""

MAX_BYTES = 4200
"""Of one JPEG: pictures with more detail are compressed more, so that a page's size has a bound."""

QUALITIES = (82, 74, 66, 58, 50, 42, 34, 26, 18, 10)

TISSUE_COLOUR = (0, 105, 70)
UNREADABLE_COLOUR = (210, 0, 0)


@dataclass(frozen=True)
class Picture:
    """A picture as a page shows it: from where, and its size."""

    uri: str
    width_px: int
    height_px: int


Pair = tuple[Picture, Picture]
"""Of a slide before and after."""


@dataclass(frozen=True)
class Jpeg:
    """A JPEG and its size."""

    data: bytes
    width_px: int
    height_px: int

    def inside(self) -> Picture:
        """As a part of the page."""
        uri = "data:image/jpeg;base64," + base64.b64encode(self.data).decode("ascii")
        return Picture(uri, self.width_px, self.height_px)


@dataclass(frozen=True)
class Shelf:
    """A folder beside the page, for the pictures of more slides than a page can hold.

    A slide's pictures lie under a digest of what is in its store, so those of an earlier report
    are found again, and those of a store made anew are not.
    """

    folder: Path
    used: set[str] = field(default_factory=set)

    def find(self, digest: str) -> Pair | None:
        """The pictures that an earlier report has left, if both are there."""
        try:
            sizes = [_size(self.folder / name) for name in _names(digest)]
        except OSError:
            return None
        before, after = (self._picture(*at) for at in zip(_names(digest), sizes, strict=True))
        return before, after

    def put(self, digest: str, before: Jpeg, after: Jpeg) -> Pair:
        """Write a slide's pictures; OSError if that fails."""
        for name, jpeg in zip(_names(digest), (before, after), strict=True):
            location.write_whole(self.folder / name, [jpeg.data])
        first, second = _names(digest)
        return (
            self._picture(first, (before.width_px, before.height_px)),
            self._picture(second, (after.width_px, after.height_px)),
        )

    def clear(self) -> None:
        """Remove what no page shows any more; the folder, too, if nothing is left in it."""
        for picture in location.listing(self.folder, "*.jpg"):
            if picture.name not in self.used:
                location.remove(picture)
        location.remove_if_empty(self.folder)

    def _picture(self, name: str, size: tuple[int, int]) -> Picture:
        self.used.add(name)
        return Picture(f"{self.folder.name}/{name}", *size)


def _names(digest: str) -> tuple[str, str]:
    return f"{digest}-before.jpg", f"{digest}-after.jpg"


def _size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def picture(thumbnail: UInt8) -> Jpeg:
    """A picture of a thumbnail, uint8 (h, w, 3)."""
    return _encode(_shrink(thumbnail))


def picture_with_tissue(thumbnail: UInt8, tissue: Mask, unreadable: Iterable[Shares]) -> Jpeg:
    """A picture of a thumbnail with the outline of the tissue, and with unreadable tiles.

    Parameters
    ----------
    thumbnail
        uint8 (h, w, 3).
    tissue
        bool, of any size: it covers what the thumbnail covers.
    unreadable
        Where each of these tiles lies.
    """
    small = _shrink(thumbnail)
    draw = ImageDraw.Draw(small)
    draw.bitmap((0, 0), _outline(tissue, small.size), TISSUE_COLOUR)
    for tile in unreadable:
        draw.rectangle(_to_px(tile, small.size), outline=UNREADABLE_COLOUR)
    return _encode(small)


def _shrink(thumbnail: UInt8) -> Image.Image:
    image = Image.fromarray(thumbnail)
    image.thumbnail((EDGE_PX, EDGE_PX), Image.Resampling.BOX)
    return image


def _outline(tissue: Mask, size: tuple[int, int]) -> Image.Image:
    """The tissue's outermost pixels, as an image of mode "1"."""
    small = Image.fromarray(tissue.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    inside = np.asarray(small) > 127
    padded = np.pad(inside, 1)
    surrounded = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return Image.fromarray(inside & ~surrounded)


def _to_px(tile: Shares, size: tuple[int, int]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (
        min(round(share * length), length - 1) for share, length in zip(tile, size * 2, strict=True)
    )
    return x0, y0, max(x0, x1), max(y0, y1)


def _encode(image: Image.Image) -> Jpeg:
    """The best of QUALITIES that is small enough; the last one otherwise."""

    def encoded(quality: int) -> bytes:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
        return file.getvalue()

    def fits(quality: int) -> bool:
        return len(encoded(quality)) <= MAX_BYTES

    best = bisect_left(QUALITIES, True, hi=len(QUALITIES) - 1, key=fits)
    return Jpeg(encoded(QUALITIES[best]), *image.size)
