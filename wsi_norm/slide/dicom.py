"""DICOM by its headers: which files are instances of which slide, and what other objects are."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_norm.location import Location
from wsi_norm.slide.readers.base import Refused, translated

if TYPE_CHECKING:  # a tenth of a second, which slides of other formats do without
    from pydicom.uid import UID

SUFFIXES = frozenset({".dcm", ".dicom"})

SERIES = 0x0020000E
"""Tag of SeriesInstanceUID, the last that is needed: what follows in a header is not read."""

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""SOP class of a slide's levels, and of its label, overview and thumbnail."""

READ_BY_OPENSLIDE = (
    "1.2.840.10008.1.2.1",  # explicit VR little endian
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
)
"""Transfer syntaxes of OpenSlide 4.0."""

FLAVOURS = frozenset({"LABEL", "OVERVIEW", "THUMBNAIL"})
"""Third value of ImageType (PS3.3 C.8.12.4.1.1) of images that are shown beside a slide."""

ERRORS = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on damaged headers, beside errors of its own."""


@dataclass(frozen=True)
class Header:
    """What an object says of itself; empty where it says nothing."""

    series: str
    sop_class: UID
    transfer_syntax: UID
    flavour: str
    resampled: bool

    @property
    def is_whole_slide(self) -> bool:
        """An image of a slide, or one beside it: label, overview or thumbnail."""
        return self.sop_class == WHOLE_SLIDE

    @property
    def is_level(self) -> bool:
        """An image of a slide's pyramid."""
        return self.is_whole_slide and self.flavour not in FLAVOURS

    @property
    def kind(self) -> str:
        """What it is, in DICOM's words."""
        if self.is_whole_slide and not self.is_level:
            return f"{self.flavour} image without a slide"
        return self.sop_class.name


@dataclass
class Contents:
    """DICOM among files of one folder.

    Attributes
    ----------
    slides
        SeriesInstanceUID to its files: sorted, levels before label, overview and thumbnail.
    others
        Objects that belong to no slide here, and what they are.
    broken
        Named as DICOM but not DICOM, or with a header that cannot be read.
    """

    slides: dict[str, list[Path]] = field(default_factory=dict)
    others: dict[Path, str] = field(default_factory=dict)
    broken: list[Path] = field(default_factory=list)


def may_be_dicom(path: Path) -> bool:
    """Whether a name can be a DICOM file's: archives export files without suffix, or as UIDs."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or not suffix or suffix[1:].isdecimal()


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does."""
    if not os.path.isfile(path):  # nor a pipe, which may never end
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: Location) -> Header:
    """The header of a DICOM file; `Refused` if it cannot be read."""
    from pydicom.errors import BytesLengthException, InvalidDicomError
    from pydicom.filereader import read_partial
    from pydicom.uid import UID

    with (
        translated(Refused, InvalidDicomError, BytesLengthException, *ERRORS),
        warnings.catch_warnings(action="ignore"),
        path.open("rb") as file,
    ):
        data = read_partial(file, stop_when=lambda tag, *_: tag > SERIES)
        kind = [str(value) for value in _values(data.get("ImageType"))]
        meta = data.file_meta
        header = Header(
            series=str(data.get("SeriesInstanceUID") or ""),
            sop_class=UID(data.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""),
            transfer_syntax=UID(meta.get("TransferSyntaxUID") or ""),
            flavour=kind[2].upper() if len(kind) > 2 else "",
            resampled="RESAMPLED" in map(str.upper, kind[3:]),
        )
    if not header.sop_class or (header.sop_class == WHOLE_SLIDE and not header.series):
        raise Refused("it ends before it says what it is")
    return header


def contents(files: Iterable[Path]) -> Contents:
    """The DICOM objects among files of one folder; files of other kinds are not mentioned."""
    found = Contents()
    headers: dict[Path, Header] = {}
    for path in sorted(files):
        if not may_be_dicom(path) or path.name.startswith("._") or not os.path.isfile(path):
            continue
        if is_dicom(path):
            try:
                headers[path] = read_header(path)
            except Refused:
                found.broken.append(path)
        elif path.suffix.lower() in SUFFIXES:
            found.broken.append(path)
    for path, header in headers.items():
        if header.is_level:
            found.slides.setdefault(header.series, []).append(path)
    for path, header in headers.items():
        if not (header.is_whole_slide and header.series in found.slides):
            found.others[path] = header.kind
        elif not header.is_level:
            found.slides[header.series].append(path)
    return found


def series_of(path: Path) -> str | None:
    """The slide that a file is an instance of, or of which a folder is; None for anything else."""
    if os.path.isdir(path):
        slides = list(contents(path.iterdir()).slides)
        return slides[0] if len(slides) == 1 else None
    if not (may_be_dicom(path) and is_dicom(path)):
        return None
    try:
        header = read_header(path)
    except Refused:
        return None
    return header.series if header.is_whole_slide else None


def lost(path: Path) -> str | None:
    """What is missing of the slide that a file is of: its finest level; None for anything else.

    A level made by resampling says so in its ImageType (PS3.3 C.8.12.4.1.1); the first one is not.
    """
    if not (may_be_dicom(path) and is_dicom(path)):
        return None
    with suppress(Refused):
        own = read_header(path)
        if own.is_level and own.resampled and not _has_unresampled(path.parent, own.series):
            return "its full resolution is missing: all of its files are RESAMPLED; copy them again"
    return None


def _has_unresampled(folder: Path, series: str) -> bool:
    for path in sorted(folder.iterdir()):
        if may_be_dicom(path) and is_dicom(path):
            with suppress(Refused):
                header = read_header(path)
                if header.series == series and header.is_level and not header.resampled:
                    return True
    return False


def why_refused(path: Location) -> str:
    """A phrase that says what a DICOM file is that no reader opens, with the remedy."""
    try:
        header = read_header(path)
    except Refused as error:
        return f"a DICOM file with a damaged header ({error}); copy it again"
    if not header.is_level:
        return f"a DICOM object that is no whole slide ({header.kind}); leave it out"
    syntax = header.transfer_syntax
    if syntax in READ_BY_OPENSLIDE:
        return "a DICOM slide that OpenSlide does not open; copy it again, or convert it"
    return (
        f"a DICOM slide with transfer syntax {syntax.name or 'unknown'}, which OpenSlide does not "
        "know; convert it to JPEG, JPEG 2000 or uncompressed (explicit VR little endian)"
    )


def _values(value: object) -> Iterable[object]:
    """Of an element that may be absent, single or multiple."""
    return value if isinstance(value, Iterable) and not isinstance(value, str) else ()
