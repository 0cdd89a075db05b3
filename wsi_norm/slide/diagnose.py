"""Why a file does not open, and what is damaged in one that does: a look at the bytes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import tifffile

from wsi_norm.location import Location
from wsi_norm.slide import dicom
from wsi_norm.slide.readers.base import TIFFFILE_ERRORS, Refused, translated
from wsi_norm.slide.readers.pages import read_pages

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_MAGIC = b"\xff\xd8"


def why_unreadable(path: Location) -> str:
    """A phrase that says what the bytes of a refused file look like, with the remedy."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"{error.strerror or error}; check the file and its permissions"
    text, suffix = head.lstrip().lower(), path.suffix.lower()
    if size == 0:
        return "the file is empty; copy it again"
    if text.startswith((b"<!doctype html", b"<html")):
        return "the file is an HTML page, not a slide; download it again"
    if suffix == ".mrxs" and head.startswith(JPEG_MAGIC) and not path.with_suffix("").is_dir():
        return f"its folder {path.with_suffix('')} is missing; copy it to the file"
    if head.startswith(TIFF_MAGIC):
        damage = tiff_damage(path)
        if damage is None:
            return "a TIFF that no reader understands; convert it to a tiled TIFF of 8-bit RGB"
        return f"{damage}; copy it again"
    if head[128:132] == b"DICM":
        return dicom.why_refused(path)
    if suffix in {".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif"}:
        return f"not a TIFF (starts with {head[:4]!r}), so damaged or no slide; copy it again"
    return "not a slide format that OpenSlide, TiffSlide or Pillow knows"


def tiff_damage(path: Location) -> str | None:
    """What is missing from a TIFF that was cut off; None if its directories and data are whole."""
    size = path.stat().st_size
    with tifffile_complaints() as complaints:
        try:
            spans = _spans(path)
        except Refused as error:
            return f"truncated or damaged TIFF ({error})"
    if spans is None:
        return f"truncated TIFF: its image directory lies beyond its {size} bytes"
    if complaints:
        return f"truncated or damaged TIFF ({complaints[0]}; the file ends at byte {size})"
    beyond = sum(offset + count > size for offset, count in spans)
    if beyond:
        return f"truncated TIFF: {beyond} of its tiles lie beyond the file's {size} bytes"
    return None


def _spans(path: Location) -> list[tuple[int, int]] | None:
    """(offset, bytes) of all tiles and strips of a TIFF; None without a directory."""
    with path.open("rb") as file:
        with translated(Refused, *TIFFFILE_ERRORS):
            tiff = tifffile.TiffFile(file)
            if not tiff.pages:
                return None
        pages = [page.ifd for page in read_pages(tiff)]
    spans = [zip(page.dataoffsets, page.databytecounts, strict=True) for page in pages]
    with translated(Refused, *TIFFFILE_ERRORS):
        return [span for page in spans for span in page]


class _Listener(logging.Filter):
    """Keeps tifffile's records from the terminal where this thread collects them."""

    def __init__(self) -> None:
        super().__init__()
        self.collecting = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record goes on to the handlers."""
        lists: list[list[str]] = getattr(self.collecting, "lists", [])
        if record.levelno >= logging.ERROR:
            for complaints in lists:
                complaints.append(record.getMessage().split("> ", 1)[-1])
        return not lists


_listener = _Listener()
logging.getLogger("tifffile").addFilter(_listener)


@contextmanager
def tifffile_complaints() -> Iterator[list[str]]:
    """Collect tifffile's log records of errors, its only word on a broken page chain.

    Nothing of them reaches the terminal: what they say goes into our own messages. Other threads
    are not heard, and may open slides at the same time.
    """
    complaints: list[str] = []
    outer = getattr(_listener.collecting, "lists", [])
    _listener.collecting.lists = [*outer, complaints]
    try:
        yield complaints
    finally:
        _listener.collecting.lists = outer
