"""Opening a slide: which reader takes it, what is wrong with it, what its mpp is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wsi_norm.choices import READERS, IccChoice
from wsi_norm.errors import ConfigError, ReadError, UnreadableSlideError
from wsi_norm.geometry import Level
from wsi_norm.location import Location, check_file, is_url, location
from wsi_norm.slide import dicom
from wsi_norm.slide.apart import ReaderApart, done_apart
from wsi_norm.slide.diagnose import tiff_damage, tifffile_complaints, why_unreadable
from wsi_norm.slide.directories import walk
from wsi_norm.slide.icc import Icc, examined, icc_of
from wsi_norm.slide.mpp import GivenMpp, chosen_mpp
from wsi_norm.slide.readers import image
from wsi_norm.slide.readers.base import (
    Declined,
    Reader,
    ReducingReader,
    Refused,
    closed_on_failure,
)
from wsi_norm.slide.slide import Slide

if TYPE_CHECKING:
    from upath import UPath

T = TypeVar("T")

MAX_SIDE_MM = 150
"""No slide is larger, and its overview at 8 um/px has a gigabyte then."""

LACKING = ("Unsupported TIFF compression", "Unsupported or missing image file")
"""What OpenSlide says of a file of which it knows no format: that says nothing of damage."""


def open_slide(
    path: str | Location,
    reader: str = "auto",
    *,
    table_mpp_um: float | None = None,
    override_mpp_um: float | None = None,
    default_mpp_um: float | None = None,
    icc: IccChoice = "ignore",
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
    override_mpp_um
        um/px of level 0 that rules over what the slide states, but not over the table.
    default_mpp_um
        um/px of level 0 for a slide that states none.
    icc
        "apply": every pixel is brought to sRGB by the slide's ICC profile. One that cannot be
        applied is a line of the slide's warnings.
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
        mpp is missing, absurd, differs between the axes, or contradicts the objective power.
    """
    if reader != "auto" and reader not in READERS:
        raise ConfigError(f"no reader is called {reader!r}; name one of auto, {', '.join(READERS)}")
    place = location(path)
    touch = _Touch(apart and not is_url(place))
    file, lost = touch(checked_file, place)
    opened, damage, again = _open(file, reader, touch)
    damage = "; ".join(filter(None, (lost, damage))) or None
    with closed_on_failure(opened):
        given = GivenMpp(table_mpp_um, override_mpp_um, default_mpp_um)
        mpp = chosen_mpp(file, opened.metadata, given)
        _check_extent(file, opened.metadata.levels[0], mpp.um)
        profile = icc_of(opened.metadata.icc_profile, icc, partial(touch, _examined, file))
    unusable = () if profile.problem is None else (f"{profile.problem}; its colours stay",)
    said = (*mpp.warnings, *unusable)
    reducible = opened.reducible if isinstance(opened, ReducingReader) else {}
    return Slide(file, mpp.um, mpp.source, damage, said, profile, reducible, opened, again)


@dataclass(frozen=True)
class _Touch:
    """Calls of what touches a file: where they can be ended if `apart`, else here."""

    apart: bool

    def __call__(self, do: Callable[..., T], path: Location, *arguments: Any) -> T:
        return done_apart(do, path, *arguments) if self.apart else do(path, *arguments)


def checked_file(path: Location) -> tuple[Location, str | None]:
    """The file that readers are to open, and what is missing beside it; a look that always ends.

    Raises UnreadableSlideError: nothing there, no file, or a TIFF on which libraries need not end.
    """
    if is_url(path):
        return _reachable(path), None
    if not os.path.exists(path):
        raise UnreadableSlideError(f"{path}: no such file; check the path")
    file = _dicom_file(path) if os.path.isdir(path) else path
    try:
        _check_regular(file)
        walk(file)
        return file, dicom.lost(file)
    except OSError as error:
        reason = error.strerror or error
        raise UnreadableSlideError(
            f"{path}: {reason}; check the file and its permissions"
        ) from error
    except Refused as error:
        raise UnreadableSlideError(f"{path}: damaged TIFF: {error}; copy it again") from error


def _examined(_path: Location, profile: bytes, choice: IccChoice) -> Icc:
    """Little CMS parses what strangers wrote, as readers do."""
    return examined(profile, choice)


def _check_regular(path: Path) -> None:
    """Neither a file nor what OpenSlide opens beside it may be a pipe or a device: OSError."""
    check_file(path)
    beside = None
    if path.suffix.lower() == ".mrxs":
        beside = path.with_suffix("")
    elif dicom.is_dicom(path):
        beside = path.parent
    if beside is not None and os.path.isdir(beside):
        for entry in beside.iterdir():
            if os.path.exists(entry):
                check_file(entry)


def _check_extent(path: Location, level: Level, mpp_um: float) -> None:
    """Refuse what no scanner holds: a damaged header, or a wrong mpp."""
    width, height = (edge * mpp_um / 1000 for edge in (level.width, level.height))
    if max(width, height) > MAX_SIDE_MM:
        raise UnreadableSlideError(
            f"{path}: {level.width} x {level.height} px at {mpp_um:g} um/px are {width:.0f} x "
            f"{height:.0f} mm: the file is damaged (copy it again), or the mpp is wrong "
            "(--override-mpp)"
        )


def _dicom_file(path: Path) -> Path:
    """A file of the slide that a folder is."""
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
    path: Location, reader: str, touch: _Touch
) -> tuple[Reader, str | None, Callable[[str], Reader]]:
    """The first reader that takes the file, what is damaged in it, and how to open it again."""
    auto = reader == "auto"
    refusals: list[str] = []
    open_file: Callable[[str], Reader]
    for name in _in_turn(path) if auto else [reader]:
        place = READERS.place(name) if touch.apart else None
        open_file = READERS[name] if place is None else partial(ReaderApart, place)
        try:
            with tifffile_complaints(), warnings.catch_warnings(action="ignore"):
                opened = open_file(str(path))
        except (Refused, ReadError) as error:
            # Some libraries repeat the path; what is damaged must not depend on where it lies.
            reason = str(error).replace(str(path), path.name)
            declined = isinstance(error, Declined)
            if declined and not auto:
                raise UnreadableSlideError(
                    f"{path}: the reader {name} does not take it: {reason}; "
                    f"leave out --reader {name}"
                ) from error
            if not declined and not (auto and name == "direct"):  # there OpenSlide says the same
                _add(refusals, name, reason)
            continue
        again = type(opened) if place is None else open_file
        return opened, _damage(path, opened, refusals, touch), again
    raise UnreadableSlideError(f"{path}: {touch(why_unreadable, path)} ({'; '.join(refusals)})")


def _add(refusals: list[str], name: str, reason: str) -> None:
    """Note why a reader does not open a file; together with the one before, if it says the same."""
    before, _, said = refusals[-1].partition(": ") if refusals else ("", "", "")
    if said == reason:
        refusals[-1] = f"{before}, {name}: {reason}"
    else:
        refusals.append(f"{name}: {reason}")


def _in_turn(path: Location) -> list[str]:
    """The readers that "auto" tries."""
    if is_url(path):
        return ["tiffslide", "tifffile"]
    suffix = path.suffix.lower()
    if suffix in image.SUFFIXES:
        return ["image"]
    return [name for name in READERS if name != "image" or suffix in {".tif", ".tiff"}]


def _damage(path: Location, opened: Reader, refusals: list[str], touch: _Touch) -> str | None:
    """A slide that one reader refuses is never taken for whole in silence."""
    if opened.name == "image":  # a plain image; that slide readers refuse it says nothing
        return None
    damage = touch(tiff_damage, path) if opened.name in {"tiffslide", "tifffile"} else None
    # A whole file in a codec or a layout that the other readers lack is not damaged.
    if damage is None and all(any(word in refusal for word in LACKING) for refusal in refusals):
        return None
    refused = f" although other readers refuse it ({'; '.join(refusals)})" if refusals else ""
    return f"{damage or 'perhaps damaged'}; read by {opened.name}{refused}"
