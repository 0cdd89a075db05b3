"""Where a TIFF states its mpp beside the properties that OpenSlide knows."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wsi_norm.geometry import Level
from wsi_norm.slide.readers.base import LeftOut, Metadata, Stated, StatedMpp, positive_number

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
class Statement:
    """What a page of a TIFF says: (width, height) in px, its text, px per unit, and the unit."""

    size: tuple[int, int]
    text: str
    x_resolution: float | None
    y_resolution: float | None
    unit: int | None

    def mpp(self, unit_um: float | None, where: str) -> StatedMpp | None:
        """By its resolution, in units of so many um."""
        if unit_um is None:
            return None
        x, y = (
            positive_number(unit_um / px) if px else None
            for px in (self.x_resolution, self.y_resolution)
        )
        return _by_axis(x, y, where)


@dataclass(frozen=True)
class Described:
    """What the pages of a TIFF state in texts and tags."""

    mpp: StatedMpp | None
    tagged_mpp: StatedMpp | None
    objective_power: float | None

    @classmethod
    def by(cls, full: Statement, *others: Statement) -> Described:
        """Look at the page of full resolution; OME-XML stands with the first, whichever that is.

        Other texts speak of the page that they stand with.
        """
        found = (
            *(_ome(page.text, full) for page in (full, *others)),
            _comment(full),
            _imagej(full),
        )
        power = POWER.search(full.text)
        return cls(
            mpp=next((mpp for mpp in found if mpp is not None), None),
            tagged_mpp=full.mpp(TAG_UM.get(full.unit or 0), TAGS),
            objective_power=_number(power[1]) if power else None,
        )


NOTHING = Described(None, None, None)


def metadata(
    stated: Stated,
    levels: Iterable[Level],
    described: Described,
    *,
    icc_profile: bytes | None,
    left_out: Mapping[int, LeftOut],
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
        bounds=stated.bounds,
        left_out=left_out,
    )


def _ome(text: str, full: Statement) -> StatedMpp | None:
    """PhysicalSizeX and PhysicalSizeY of the image of this size, else of the first."""
    if "<OME" not in text:
        return None
    images = [dict(ATTRIBUTE.findall(element)) for element in PIXELS.findall(text)]
    size = dict(zip(("SizeX", "SizeY"), map(str, full.size), strict=True))
    fitting = [image for image in images if size.items() <= image.items()]
    for image in fitting or images[:1]:
        return _by_axis(_physical_size(image, "X"), _physical_size(image, "Y"), "OME-XML")
    return None


def _physical_size(image: dict[str, str], axis: str) -> float | None:
    size = positive_number(image.get(f"PhysicalSize{axis}"))
    unit = UM.get(html.unescape(image.get(f"PhysicalSize{axis}Unit", "um")).lower())
    return None if size is None or unit is None else size * unit


def _comment(full: Statement) -> StatedMpp | None:
    """`MPP = 0.5`, as Aperio, Motic and others write it."""
    match = MPP.search(full.text)
    mpp = _number(match[1]) if match else None
    return _by_axis(mpp, mpp, "ImageDescription")


def _imagej(full: Statement) -> StatedMpp | None:
    """The resolution tags hold px per ImageJ's unit."""
    unit = UNIT.search(full.text) if full.text.startswith("ImageJ=") else None
    return full.mpp(UM.get(unit[1].strip().lower()), "ImageJ's unit") if unit else None


def _by_axis(x: float | None, y: float | None, where: str) -> StatedMpp | None:
    known = [mpp for mpp in (x, y) if mpp is not None]
    return StatedMpp(known[0], known[-1], where) if known else None


def _number(text: str) -> float | None:
    return positive_number(text.replace(",", "."))
