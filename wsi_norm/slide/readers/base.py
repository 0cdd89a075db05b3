"""What a reader is, and what several of them need.

A reader opens a path or raises `Refused`, states its `Metadata`, reads a rectangle that lies
*inside* a level and raises `ReadError` when that cannot be decoded. Whatever differs between the
libraries (types of mpp, alpha, axes, exceptions) ends in its module. Exceptions are translated
around the call of the library alone, so that a mistake of ours never passes for a damaged file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from wsi_norm.errors import WsiNormError
from wsi_norm.geometry import Level

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

KEPT_BYTES = 1 << 24
"""Decoded tiles that a reader keeps for the reads that follow: 64 or 85 of 256 px."""

MAX_ANISOTROPY = 0.05
"""mpp that differs more between x and y is no usable statement."""


class Refused(WsiNormError):  # noqa: N818
    """A reader does not open a file; the text is its reason, without the path."""


class Declined(Refused):
    """A reader leaves a file to the others, which says nothing of the file."""


@dataclass(frozen=True)
class Metadata:
    """What a file says of itself; None where it says nothing usable."""

    levels: tuple[Level, ...]
    mpp_um: float | None = None
    objective_power: float | None = None
    vendor: str | None = None
    associated_images: tuple[str, ...] = ()
    icc_profile: bool = False


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


def on_white(image: Image.Image) -> RGB:
    """uint8 (H, W, 3) of a Pillow image, transparency composed on white."""
    if image.mode in {"P", "LA"}:
        image = image.convert("RGBA")
    if image.mode == "RGBA" and image.getextrema()[-1] != (255, 255):
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return np.asarray(image.convert("RGB"))


def check_plain_tiff(page: Any) -> None:
    """Refuse what the first page of a TIFF of no vendor can hold and is then decoded wrongly."""
    photometric = getattr(page.photometric, "name", page.photometric)
    if page.dtype != np.uint8 or photometric not in {"RGB", "YCBCR"}:
        raise Refused(f"{page.dtype} {photometric} pixels are not 8-bit colour in one page")
    if not page.is_tiled:
        raise Refused("the TIFF is not tiled")


@dataclass(frozen=True)
class Stated:
    """What an OpenSlide or a TiffSlide is asked for when it opens a file."""

    properties: Mapping[str, Any]
    sizes: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    associated_images: tuple[str, ...]

    @classmethod
    def by(cls, slide: Any) -> Stated:
        """Ask: nothing but calls of the library."""
        return cls(
            dict(slide.properties),
            slide.level_dimensions,
            slide.level_downsamples,
            tuple(slide.associated_images),
        )

    def metadata(self, prefix: str, *, icc_profile: bool) -> Metadata:
        """What that means; the two libraries' properties differ by prefix alone."""
        return Metadata(
            levels=tuple(
                Level(index, width, height, float(downsample))
                for index, ((width, height), downsample) in enumerate(
                    zip(self.sizes, self.downsamples, strict=True)
                )
            ),
            mpp_um=self._mean_mpp(prefix),
            objective_power=positive_number(self.properties.get(f"{prefix}.objective-power")),
            vendor=self.properties.get(f"{prefix}.vendor"),
            associated_images=tuple(sorted(self.associated_images)),
            icc_profile=icc_profile,
        )

    def _mean_mpp(self, prefix: str) -> float | None:
        axes = [positive_number(self.properties.get(f"{prefix}.mpp-{axis}")) for axis in "xy"]
        known = [mpp for mpp in axes if mpp is not None]
        if not known or max(known) > (1 + MAX_ANISOTROPY) * min(known):
            return None
        return sum(known) / len(known)
