"""Where a TIFF states its mpp beside the properties that OpenSlide knows."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tifffile

from wsi_norm.geometry import Level
from wsi_norm.slide.readers.base import Metadata, Stated, StatedMpp, positive_number

UM = {
    "nm": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    r"\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "inch": 25400.0,
    "in": 25400.0,
}
"""Units of OME-XML and ImageJ, in um."""

TAG_UM = {2: 25400.0, 3: 10000.0, 4: 1000.0, 5: 1.0}
"""Values of ResolutionUnit, in um: inch, centimetre; millimetre and micrometre are an extension."""

NUMBER = r"(\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?)"
MPP = re.compile(rf"\bMPP\b\"?\s*[=:]\s*\"?{NUMBER}", re.IGNORECASE)
POWER = re.compile(rf"\bAppMag\b\s*[=:]\s*{NUMBER}", re.IGNORECASE)
PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
ATTRIBUTE = re.compile(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']")
UNIT = re.compile(r"^unit=(.+)$", re.MULTILINE)

TAGS = "resolution tags"
"""What prints are made with: often no statement of a microscope."""


@dataclass(frozen=True)
class Described:
    """What texts and tags of a TIFF state of the page of full resolution."""

    mpp: StatedMpp | None
    tagged_mpp: StatedMpp | None
    objective_power: float | None

    @classmethod
    def by(cls, pages: Iterable[Any], full: Any) -> Described:
        """Look into every page's text, that of the full resolution first."""
        texts = [page.description for page in (full, *pages) if isinstance(page.description, str)]
        found = (find(text, full) for text in texts for find in (_ome, _comment, _imagej))
        powers = (POWER.search(text) for text in texts)
        return cls(
            mpp=next((mpp for mpp in found if mpp is not None), None),
            tagged_mpp=_tagged(full, TAG_UM.get(_value(full, "ResolutionUnit")), TAGS),
            objective_power=next((_number(match[1]) for match in powers if match), None),
        )


NOTHING = Described(None, None, None)


def metadata(
    stated: Stated, levels: Iterable[Level], described: Described, *, icc_profile: bool
) -> Metadata:
    """What a library and the pages state together.

    A vendor's own statement rules; that of a plain TIFF is its resolution tags, and these come
    last: a converter that wrote the mpp into a text often left them as they were.
    """
    own = stated.mpp(TAGS if stated.plain else "its properties")
    first, second = (described.mpp, own) if stated.plain else (own, described.mpp)
    return Metadata(
        levels=tuple(levels),
        mpp=first or second or described.tagged_mpp,
        objective_power=positive_number(stated.get("objective-power")) or described.objective_power,
        vendor=stated.get("vendor"),
        associated_images=stated.associated_images,
        icc_profile=icc_profile,
    )


def _ome(text: str, full: tifffile.TiffPage) -> StatedMpp | None:
    """PhysicalSizeX and PhysicalSizeY of the image of this size, else of the first."""
    if "<OME" not in text:
        return None
    images = [dict(ATTRIBUTE.findall(element)) for element in PIXELS.findall(text)]
    size = {"SizeX": str(full.imagewidth), "SizeY": str(full.imagelength)}
    fitting = [image for image in images if size.items() <= image.items()]
    for image in fitting or images[:1]:
        return _by_axis(_physical_size(image, "X"), _physical_size(image, "Y"), "OME-XML")
    return None


def _physical_size(image: dict[str, str], axis: str) -> float | None:
    size = positive_number(image.get(f"PhysicalSize{axis}"))
    unit = UM.get(html.unescape(image.get(f"PhysicalSize{axis}Unit", "um")).lower())
    return None if size is None or unit is None else size * unit


def _comment(text: str, full: tifffile.TiffPage) -> StatedMpp | None:
    """`MPP = 0.5`, as Aperio, Motic and others write it."""
    match = MPP.search(text)
    mpp = _number(match[1]) if match else None
    return _by_axis(mpp, mpp, "ImageDescription")


def _imagej(text: str, full: tifffile.TiffPage) -> StatedMpp | None:
    """The resolution tags hold px per ImageJ's unit."""
    unit = UNIT.search(text) if text.startswith("ImageJ=") else None
    return _tagged(full, UM.get(unit[1].strip().lower()), "ImageJ's unit") if unit else None


def _tagged(page: tifffile.TiffPage, unit_um: float | None, where: str) -> StatedMpp | None:
    if unit_um is None:
        return None
    x, y = (_um_per_px(_value(page, f"{axis}Resolution"), unit_um) for axis in "XY")
    return _by_axis(x, y, where)


def _um_per_px(resolution: Any, unit_um: float) -> float | None:
    if not isinstance(resolution, tuple) or len(resolution) != 2 or not all(resolution):
        return None
    return positive_number(unit_um * resolution[1] / resolution[0])


def _by_axis(x: float | None, y: float | None, where: str) -> StatedMpp | None:
    known = [mpp for mpp in (x, y) if mpp is not None]
    return StatedMpp(known[0], known[-1], where) if known else None


def _value(page: tifffile.TiffPage, tag: str) -> Any:
    return page.tags[tag].value if tag in page.tags else None


def _number(text: str) -> float | None:
    return positive_number(text.replace(",", "."))
