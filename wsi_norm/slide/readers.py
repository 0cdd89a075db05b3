"""The file readers behind Slide: OpenSlide, TiffSlide and, for plain images, Pillow.

Each reader opens a path or raises one of OPEN_ERRORS, states its metadata as `Metadata`, reads
a rectangle that lies *inside* a level and raises one of READ_ERRORS when it cannot. Everything
that differs between the libraries (types of mpp, alpha, axes, exceptions) ends here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import openslide
import tifffile
import tiffslide
import zarr.errors
from PIL import Image, UnidentifiedImageError

from wsi_norm.errors import UnreadableSlideError
from wsi_norm.geometry import Level

RGB = npt.NDArray[np.uint8]

OPEN_ERRORS: tuple[type[Exception], ...] = (
    openslide.OpenSlideError,
    tifffile.TiffFileError,
    tiffslide.TiffFileError,
    UnidentifiedImageError,
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    TypeError,
    SyntaxError,  # Pillow's word for a broken header
    struct.error,
    Image.DecompressionBombError,
)
READ_ERRORS: tuple[type[Exception], ...] = (
    openslide.OpenSlideError,
    tifffile.TiffFileError,
    zarr.errors.BaseZarrError,
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    TypeError,
    struct.error,
)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
MAX_ANISOTROPY = 0.05
"""mpp that differs more between x and y is no usable statement."""

KEPT_BYTES = 1 << 24
"""Decoded tiles that a reader keeps for the reads that follow: 64 or 85 of 256 px."""

MAX_IMAGE_PIXELS = 100_000_000
"""A plain image is held in memory whole: 100 megapixels are 300 MB."""


@dataclass(frozen=True)
class Metadata:
    """What a file says of itself; None where it says nothing usable."""

    levels: tuple[Level, ...]
    mpp_um: float | None
    objective_power: float | None
    vendor: str | None
    bounds: tuple[int, int, int, int] | None
    associated_images: tuple[str, ...]
    icc_profile: bool


class Reader(Protocol):
    """An open file."""

    name: ClassVar[str]
    block_px: ClassVar[int]
    """Edge of what is best read at once: 1 where decoded tiles are kept, so any read is cheap."""
    metadata: Metadata

    def __init__(self, path: str) -> None: ...

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3): a rectangle of level px that lies inside the level."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class OpenSlideReader:
    """OpenSlide 4: every vendor's format, DICOM included."""

    name: ClassVar[str] = "openslide"
    block_px: ClassVar[int] = 1

    def __init__(self, path: str) -> None:
        self._slide = openslide.OpenSlide(path)
        with closed_on_failure(self._slide):
            self._slide.set_cache(openslide.OpenSlideCache(KEPT_BYTES))
            properties = self._slide.properties
            if properties.get("openslide.vendor") == "generic-tiff":
                with tifffile.TiffFile(path) as tiff:
                    _check_plain_tiff(tiff)
            self.metadata = _metadata(self._slide, "openslide", "openslide.icc-size" in properties)

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3), transparent pixels composed on white."""
        location = (round(left * level.downsample), round(top * level.downsample))
        image = self._slide.read_region(location, level.index, (width, height))
        return on_white(image)

    def close(self) -> None:
        """Close the file."""
        self._slide.close()


class TiffSlideReader:
    """TiffSlide: the TIFF family, also over URLs."""

    name: ClassVar[str] = "tiffslide"
    block_px: ClassVar[int] = 1024

    def __init__(self, path: str) -> None:
        self._slide = tiffslide.TiffSlide(path)
        with closed_on_failure(self._slide):
            if self._slide.properties.get("tiffslide.vendor") is None:
                _check_plain_tiff(self._slide.ts_tifffile)
            icc_profile = self._slide.color_profile is not None
            self.metadata = _metadata(self._slide, "tiffslide", icc_profile)

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3)."""
        location = (_ceil(left, level.downsample), _ceil(top, level.downsample))
        return on_white(self._slide.read_region(location, level.index, (width, height)))

    def close(self) -> None:
        """Close the file."""
        self._slide.close()


class ImageReader:
    """Pillow: a plain PNG, JPEG or TIFF that fits into memory, as a slide of one level."""

    name: ClassVar[str] = "image"
    block_px: ClassVar[int] = 1

    def __init__(self, path: str) -> None:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_IMAGE_PIXELS:
                raise ValueError(
                    f"{width} x {height} px is too large for a plain image; "
                    "convert it to a tiled pyramidal TIFF"
                )
            if image.mode not in {"L", "LA", "P", "RGB", "RGBA", "CMYK"}:
                raise ValueError(f"pixel mode {image.mode} is not 8-bit colour")
            self._pixels = on_white(image)
            icc = bool(image.info.get("icc_profile"))
        self.metadata = Metadata(
            levels=(Level(0, width, height, 1.0),),
            mpp_um=None,
            objective_power=None,
            vendor=None,
            bounds=None,
            associated_images=(),
            icc_profile=icc,
        )

    def read(self, level: Level, left: int, top: int, width: int, height: int) -> RGB:
        """uint8 (height, width, 3)."""
        return self._pixels[top : top + height, left : left + width]

    def close(self) -> None:
        """Release the pixels."""
        self._pixels = np.empty((0, 0, 3), np.uint8)


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


@contextmanager
def closed_on_failure(slide: Any) -> Iterator[None]:
    """Close an open file whose metadata cannot be read."""
    try:
        yield
    except OPEN_ERRORS:
        slide.close()
        raise


def _check_plain_tiff(tiff: tifffile.TiffFile) -> None:
    """Refuse what a TIFF of no slide vendor can hold and the readers decode wrongly."""
    page = tiff.pages.first
    photometric = getattr(page.photometric, "name", page.photometric)
    if page.dtype != np.uint8 or photometric not in {"RGB", "YCBCR"}:
        raise ValueError(f"{page.dtype} {photometric} pixels are not 8-bit colour in one page")
    if not page.is_tiled:
        raise ValueError("the TIFF is not tiled")


def _ceil(index: int, downsample: float) -> int:
    """The level-0 px that TiffSlide, which truncates, takes for this px of a level."""
    first = math.ceil(index * downsample)
    return first if int(first / downsample) >= index else first + 1


def _metadata(slide: Any, prefix: str, icc_profile: bool) -> Metadata:
    """What an OpenSlide or a TiffSlide states; their properties differ by prefix alone."""
    properties = slide.properties
    return Metadata(
        levels=_levels(slide.level_dimensions, slide.level_downsamples),
        mpp_um=_mean_mpp(properties, prefix),
        objective_power=positive_number(properties.get(f"{prefix}.objective-power")),
        vendor=properties.get(f"{prefix}.vendor"),
        bounds=_bounds(properties, prefix),
        associated_images=tuple(sorted(slide.associated_images)),
        icc_profile=icc_profile,
    )


def _levels(sizes: Any, downsamples: Any) -> tuple[Level, ...]:
    return tuple(
        Level(index, int(width), int(height), float(downsample))
        for index, ((width, height), downsample) in enumerate(zip(sizes, downsamples, strict=True))
    )


def _mean_mpp(properties: Mapping[str, Any], prefix: str) -> float | None:
    axes = [positive_number(properties.get(f"{prefix}.mpp-{axis}")) for axis in "xy"]
    known = [mpp for mpp in axes if mpp is not None]
    if not known or max(known) > (1 + MAX_ANISOTROPY) * min(known):
        return None
    return sum(known) / len(known)


def _bounds(properties: Mapping[str, Any], prefix: str) -> tuple[int, int, int, int] | None:
    keys = [f"{prefix}.bounds-{key}" for key in ("x", "y", "width", "height")]
    values = [properties.get(key) for key in keys]
    if None in values:
        return None
    x, y, width, height = (int(str(value)) for value in values)
    return x, y, width, height


def read_image(path: str | Path) -> RGB:
    """uint8 (H, W, 3) of a plain image file, transparency composed on white.

    Raises
    ------
    UnreadableSlideError
        Missing, or not an image that Pillow decodes.
    """
    try:
        reader = ImageReader(str(path))
    except OPEN_ERRORS as error:
        raise UnreadableSlideError(f"{path}: cannot read the image: {error}") from error
    (level,) = reader.metadata.levels
    return reader.read(level, 0, 0, level.width, level.height)
