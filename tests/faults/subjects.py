"""Small files of the formats that are mutated; each is read whole before it is harmed."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import tifffile
from PIL import Image

from tests.dicoms import picture
from tests.dicoms import write_slide as write_dicom

EDGE, TILE = 768, 256
APERIO = (
    f"Aperio Image Library v12\n{EDGE}x{EDGE} ({TILE}x{TILE}) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"
)
RESOLUTION: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
JPEG: dict[str, Any] = {"compression": "jpeg", "photometric": "rgb", "subsampling": (1, 1)}

Span = tuple[int, int]
"""Offset and length of some bytes of a file."""


@dataclass(frozen=True)
class Subject:
    """A kind of file.

    Attributes
    ----------
    write
        Writes one in a folder; the file that is mutated comes back, others stay beside it.
    tiles
        Where the pixels of level 0 lie in it.
    fields
        Where numbers lie that steer a reader.
    checked
        Its tiles carry checksums.
    """

    name: str
    write: Callable[[Path], Path]
    tiles: Callable[[Path], list[Span]]
    fields: Callable[[Path], list[Span]]
    checked: bool = False


def write_svs(folder: Path) -> Path:
    """As Aperio writes: two levels of JPEG tiles, and a thumbnail in strips between them."""
    path, pixels = folder / "slide.svs", Image.fromarray(picture(EDGE, 1))
    with tifffile.TiffWriter(path) as tiff:
        plain: dict[str, Any] = {"metadata": None, "software": False}
        tiff.write(np.asarray(pixels), tile=(TILE, TILE), description=APERIO, **JPEG, **plain)
        thumbnail = np.asarray(pixels.reduce(4))
        tiff.write(thumbnail, rowsperstrip=16, description="Aperio thumbnail", **JPEG, **plain)
        half = np.asarray(pixels.reduce(2))
        tiff.write(half, tile=(TILE, TILE), description=APERIO, **JPEG, **plain)
    return path


def write_tiff(folder: Path) -> Path:
    """A plain pyramid in BigTIFF."""
    path, pixels = folder / "slide.tif", Image.fromarray(picture(EDGE, 2))
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(2):
            data = np.asarray(pixels.reduce(2**level))
            kind = {"subfiletype": int(level > 0), "metadata": None}
            tiff.write(data, tile=(TILE, TILE), **JPEG, **RESOLUTION, **kind)
    return path


def write_deflate(folder: Path) -> Path:
    """One level of deflate tiles: each ends in a checksum (Adler-32) of its pixels."""
    path = folder / "slide.tif"
    pixels = picture(EDGE, 3)
    options: dict[str, Any] = {"compression": "zlib", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, pixels, tile=(TILE, TILE), **options, **RESOLUTION)
    return path


def write_ndpi(folder: Path) -> Path:
    """As Hamamatsu writes: each level one JPEG with restart markers, offsets of 64 bits."""
    path, pixels = folder / "slide.ndpi", Image.fromarray(picture(EDGE, 4))
    data = bytearray(b"II*\0" + bytes(8))
    link = 4
    for level in range(2):
        image = pixels.reduce(2**level)
        buffer = io.BytesIO()
        image.save(
            buffer, "JPEG", quality=90, subsampling=0, restart_marker_blocks=image.width // 8 // 3
        )
        strip = _appended(data, buffer.getvalue())
        per_cm = _appended(data, struct.pack("<II", 20_000 >> level, 1))
        maker, model = (_appended(data, text) for text in (b"Hamamatsu\0", b"C9600-12\0"))
        bits = _appended(data, struct.pack("<HHH", 8, 8, 8))
        magnification = struct.unpack("<I", struct.pack("<f", 20 / 2**level))[0]
        tags = [
            *((256, 4, 1, image.width), (257, 4, 1, image.height), (258, 3, 3, bits)),
            *((259, 3, 1, 7), (262, 3, 1, 6), (271, 2, 10, maker), (272, 2, 9, model)),
            *((273, 4, 1, strip), (277, 3, 1, 3), (278, 4, 1, image.height)),
            *((279, 4, 1, buffer.tell()), (282, 5, 1, per_cm), (283, 5, 1, per_cm), (296, 3, 1, 3)),
            *((65420, 4, 1, 1), (65421, 11, 1, magnification), (65424, 9, 1, 0)),
        ]
        entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
        high_words = bytes(4 * len(tags))
        here = _appended(data, struct.pack("<H", len(tags)) + entries + bytes(8) + high_words)
        struct.pack_into("<Q", data, link, here)
        link = here + 2 + len(entries)
    path.write_bytes(data)
    return path


def _appended(data: bytearray, piece: bytes) -> int:
    """Where a piece stands, at an even place."""
    data += bytes(len(data) % 2)
    data += piece
    return len(data) - len(piece)


def write_dicom_slide(folder: Path) -> Path:
    write_dicom(folder, levels=2, seed=5)
    return folder / "level0.dcm"


def tiff_tiles(path: Path) -> list[Span]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        return list(zip(page.dataoffsets, page.databytecounts, strict=True))


def tiff_fields(path: Path) -> list[Span]:
    """Entries of all directories, what they point to, and the links between directories."""
    found: list[Span] = [(0, 16)]
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            for tag in page.tags.values():
                found.append((tag.offset, tiff.tiff.tagsize))
                found.append((tag.valueoffset, min(64, max(1, tag.valuebytecount))))
            last = max(tag.offset for tag in page.tags.values())
            found.append((last + tiff.tiff.tagsize, tiff.tiff.offsetsize))
    return found


def dicom_tiles(path: Path) -> list[Span]:
    """The frames: all behind the tag of the pixels."""
    data = path.read_bytes()
    start = data.index(b"\xe0\x7f\x10\x00OB\0\0") + 12
    return [(start, len(data) - start)]


def dicom_fields(path: Path) -> list[Span]:
    """Each element before the pixels, in pieces of its head and its value."""
    pydicom.dcmread(path)  # it is one
    start = dicom_tiles(path)[0][0]
    return [(place, 8) for place in range(128, start, 8)]


SUBJECTS = (
    Subject("TIFF", write_tiff, tiff_tiles, tiff_fields),
    Subject("TIFF, deflate", write_deflate, tiff_tiles, tiff_fields, checked=True),
    Subject("SVS", write_svs, tiff_tiles, tiff_fields),
    Subject("NDPI", write_ndpi, tiff_tiles, tiff_fields),
    Subject("DICOM", write_dicom_slide, dicom_tiles, dicom_fields),
)

ODD = (0, 1, 2, 3, 7, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 10**9)
"""Numbers that readers trip over."""


def header_mutant(
    data: bytes, subject: Subject, fields: list[Span], tiles: list[Span], rng: np.random.Generator
) -> bytes:
    """One to three numbers of the header are others, or the file is cut within it."""
    harmed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        start, length = fields[rng.integers(len(fields))]
        place = start + int(rng.integers(max(1, length)))
        match rng.integers(4):
            case 0:
                _put(harmed, place, rng.bytes(1))
            case 1:
                _put(harmed, start + length // 2 // 4 * 4, rng.bytes(4))
            case 2:
                number = int(rng.choice(ODD))
                _put(harmed, start + int(rng.choice((0, 2, 4, 8, 12))), struct.pack("<I", number))
            case _:
                other, size = fields[rng.integers(len(fields))]
                _put(harmed, start, data[other : other + min(size, length)])
    return bytes(harmed)


def tile_mutant(
    data: bytes, subject: Subject, fields: list[Span], tiles: list[Span], rng: np.random.Generator
) -> bytes:
    """Some bytes of pixels are others, zeros, another tile's, or cut off."""
    harmed = bytearray(data)
    start, length = tiles[rng.integers(len(tiles))]
    place = start + int(rng.integers(length))
    match rng.integers(4):
        case 0:
            for _ in range(rng.integers(1, 9)):
                at = start + int(rng.integers(length))
                harmed[at] ^= 1 << int(rng.integers(8))
        case 1:
            run = int(rng.integers(1, length))
            _put(harmed, place, bytes(min(run, start + length - place)))
        case 2:
            other, size = tiles[rng.integers(len(tiles))]
            _put(harmed, place, data[other : other + min(size, start + length - place)])
        case _:
            _put(harmed, place, rng.bytes(start + length - place))
    return bytes(harmed)


def _put(data: bytearray, place: int, piece: bytes) -> None:
    piece = piece[: max(0, len(data) - place)]
    data[place : place + len(piece)] = piece


def zero_lengths(path: Path) -> Iterator[bytes]:
    """The file with the byte count of one tile of level 0 at zero, as half-written TIFFs have."""
    if path.suffix == ".dcm":
        return
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags.get("TileByteCounts")
        if tag is None:
            return
        size = tag.valuebytecount // tag.count
        for index in range(tag.count):
            harmed = bytearray(data)
            _put(harmed, tag.valueoffset + index * size, bytes(size))
            yield bytes(harmed)
