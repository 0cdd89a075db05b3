"""Opening a slide: which reader takes it, what is wrong with it, what its mpp is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial

from upath import UPath

from wsi_norm.choices import READERS
from wsi_norm.errors import ConfigError, ResolutionError, UnreadableSlideError
from wsi_norm.location import Location, location
from wsi_norm.slide import dicom
from wsi_norm.slide.apart import ReaderApart
from wsi_norm.slide.diagnose import tiff_damage, tifffile_complaints, why_unreadable
from wsi_norm.slide.readers import image
from wsi_norm.slide.readers.base import (
    Declined,
    Metadata,
    Reader,
    Refused,
    closed_on_failure,
    positive_number,
)
from wsi_norm.slide.slide import MppSource, Slide

MPP_RANGE_UM = (0.05, 16.0)
"""Stated mpp outside this range is no microscope's: 200x would be 0.05, 0.625x is 16."""
MPP_POWER_RANGE_UM = (4.0, 25.0)
"""mpp x objective power is about 10 um (0.5 at 20x, 0.25 at 40x); far off means one is wrong."""


def open_slide(
    path: str | Location,
    reader: str = "auto",
    *,
    table_mpp_um: float | None = None,
    default_mpp_um: float | None = None,
    apart: bool = False,
) -> Slide:
    """Open a slide file, a DICOM folder, a plain image or the URL of a TIFF.

    Parameters
    ----------
    path
        A file, a folder of DICOM instances, or a URL that fsspec knows (read by TiffSlide).
    reader
        A name of `choices.READERS`, or "auto": "direct" where its pixels are proven to be
        OpenSlide's, else OpenSlide, and the next reader where OpenSlide does not open the file.
    table_mpp_um
        um/px of level 0 that rules over what the slide states.
    default_mpp_um
        um/px of level 0 for a slide that states none.
    apart
        Let the reader of a file of this machine work in a process of its own, so that a crash of
        its native code is an UnreadableSlideError. A reader that was added as an object stays here.

    Raises
    ------
    UnreadableSlideError
        No reader opens it; the message holds what the bytes look like and each reader's reason.
    ConfigError
        No reader has this name.
    ResolutionError
        mpp is missing, absurd, or contradicts the objective power.
    """
    if reader != "auto" and reader not in READERS:
        raise ConfigError(f"no reader is called {reader!r}; name one of auto, {', '.join(READERS)}")
    file = _slide_file(location(path))
    opened, damage, again = _open(file, reader, apart and not isinstance(file, UPath))
    with closed_on_failure(opened):
        mpp_um, source = _checked_mpp(file, opened.metadata, table_mpp_um, default_mpp_um)
    return Slide(file, mpp_um, source, damage, opened, again)


def _slide_file(path: Location) -> Location:
    if isinstance(path, UPath):
        return _reachable(path)
    if not os.path.exists(path):
        raise UnreadableSlideError(f"{path}: no such file; check the path")
    if not os.path.isdir(path):
        if not os.path.isfile(path):
            raise UnreadableSlideError(f"{path}: neither a file nor a folder; check the path")
        return path
    found = dicom.contents(path.iterdir())
    slides = list(found.slides.values())
    if not slides:
        broken = f" ({found.broken[0].name}: no DICOM, or damaged)" if found.broken else ""
        raise UnreadableSlideError(
            f"{path}: a folder without a DICOM slide{broken}; name the slides in it, "
            "or use --recursive"
        )
    if len(slides) > 1:
        firsts = ", ".join(instances[0].name for instances in slides)
        raise UnreadableSlideError(
            f"{path}: a folder with {len(slides)} DICOM slides; name one file of each: {firsts}"
        )
    return slides[0][0]


def _reachable(url: UPath) -> UPath:
    try:
        found = url.exists()
    except (ImportError, OSError, ValueError) as error:
        raise UnreadableSlideError(f"{url}: cannot be reached: {error}") from error
    if not found:
        raise UnreadableSlideError(f"{url}: nothing there; check the URL")
    return url


def _open(
    path: Location, reader: str, apart: bool
) -> tuple[Reader, str | None, Callable[[str], Reader]]:
    """The first reader that takes the file, what is damaged in it, and how to open it again."""
    auto = reader == "auto"
    refusals: list[str] = []
    open_file: Callable[[str], Reader]
    for name in _in_turn(path) if auto else [reader]:
        place = READERS.place(name) if apart else None
        open_file = READERS[name] if place is None else partial(ReaderApart, place)
        try:
            with tifffile_complaints(), warnings.catch_warnings(action="ignore"):
                opened = open_file(str(path))
        except Refused as error:
            # Some libraries repeat the path; what is damaged must not depend on where it lies.
            reason = str(error).replace(str(path), path.name)
            declined = isinstance(error, Declined)
            if declined and not auto:
                raise UnreadableSlideError(
                    f"{path}: the reader {name} does not take it: {reason}; "
                    f"leave out --reader {name}"
                ) from error
            if not declined and not (auto and name == "direct"):  # there OpenSlide says the same
                refusals.append(f"{name}: {reason}")
            continue
        again = type(opened) if place is None else open_file
        return opened, _damage(path, opened, refusals), again
    raise UnreadableSlideError(f"{path}: {why_unreadable(path)} ({'; '.join(refusals)})")


def _in_turn(path: Location) -> list[str]:
    """The readers that "auto" tries."""
    if isinstance(path, UPath):
        return ["tiffslide"]
    suffix = path.suffix.lower()
    if suffix in image.SUFFIXES:
        return ["image"]
    return [name for name in READERS if name != "image" or suffix in {".tif", ".tiff"}]


def _damage(path: Location, opened: Reader, refusals: list[str]) -> str | None:
    """A slide that one reader refuses is never taken for whole in silence."""
    if opened.name == "image":  # a plain image; that slide readers refuse it says nothing
        return None
    damage = tiff_damage(path) if opened.name == "tiffslide" else None
    # A whole file in a codec that the other readers lack is not damaged.
    foreign = all("Unsupported TIFF compression" in refusal for refusal in refusals)
    if damage is None and foreign:
        return None
    refused = f" although other readers refuse it ({'; '.join(refusals)})" if refusals else ""
    return f"{damage or 'perhaps damaged'}; read by {opened.name}{refused}"


def _checked_mpp(
    path: Location, metadata: Metadata, table: float | None, default: float | None
) -> tuple[float, MppSource]:
    remedy = "give the right one in the column mpp of --slides-csv"
    source: MppSource
    if table is not None:
        mpp_um, source = table, "table"
    elif metadata.mpp_um is not None:
        mpp_um, source = metadata.mpp_um, "slide"
    elif default is not None:
        mpp_um, source = default, "default"
    else:
        raise ResolutionError(
            f"{path}: the slide states no usable mpp; give it with --default-mpp, "
            "or in the column mpp of --slides-csv"
        )
    low, high = MPP_RANGE_UM
    if positive_number(mpp_um) is None or not low <= mpp_um <= high:
        raise ResolutionError(
            f"{path}: mpp {mpp_um:g} ({source}) is outside {low:g}-{high:g} um/px; {remedy}"
        )
    power = metadata.objective_power
    if source == "slide" and power is not None:
        low, high = MPP_POWER_RANGE_UM
        if not low <= mpp_um * power <= high:
            raise ResolutionError(
                f"{path}: the slide states mpp {mpp_um:g} but objective power {power:g}, which "
                f"means about {10 / power:g} um/px; {remedy}"
            )
    return mpp_um, source
