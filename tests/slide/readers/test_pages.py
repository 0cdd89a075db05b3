"""Which page is the slide, which may be its levels, and what is left to other readers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wsi_norm.slide.readers.base import Declined, Refused
from wsi_norm.slide.readers.pages import SlidePages, orientation, read_pages

HOW: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "software": False}
Sizes = list[tuple[int, int]]
Sure = list[tuple[tuple[int, int], bool]]


def pixels(width: int, height: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def write(path: Path, *pages: tuple[int, int, int], **how: Any) -> Path:
    """Pages of (width, height, NewSubfileType)."""
    with tifffile.TiffWriter(path) as tiff:
        for width, height, kind in pages:
            tiff.write(pixels(width, height), subfiletype=kind, **{**HOW, **how})
    return path


def sorted_pages(path: Path) -> tuple[tuple[int, int], Sure]:
    """The size of full resolution, and of what may be its levels, with what is marked."""
    with tifffile.TiffFile(path) as tiff:
        pages = SlidePages.of(tiff)
        smaller = [((page.imagewidth, page.imagelength), sure) for page, sure in pages.smaller]
        return (pages.full.imagewidth, pages.full.imagelength), smaller


def ordinary(path: Path, *sizes: tuple[int, int]) -> None:
    with tifffile.TiffFile(path) as tiff:
        SlidePages.of(tiff).check_ordinary(sizes)


FULL, HALF, QUARTER, LABEL = (400, 300), (200, 150), (100, 75), (128, 192)


@pytest.mark.parametrize(
    ("pages", "smaller"),
    [
        ([(*FULL, 0), (*HALF, 1), (*QUARTER, 1)], [(HALF, True), (QUARTER, True)]),
        ([(*QUARTER, 1), (*HALF, 1), (*FULL, 0)], [(HALF, True), (QUARTER, True)]),
        ([(*LABEL, 0), (*FULL, 0), (*HALF, 1)], [(HALF, True)]),
        ([(*FULL, 0), (*HALF, 0), (*LABEL, 0)], [(HALF, False)]),
        ([(*FULL, 0), (*FULL, 0), (*HALF, 0), (*HALF, 1)], [(HALF, True)]),
        ([(*FULL, 0), (256, 192, 0)], [((256, 192), False)]),  # 200 x 150, padded
        ([(*FULL, 0), (*LABEL, 1)], [(LABEL, True)]),  # to be looked at: proportions differ
    ],
)
def test_the_largest_page_and_its_levels(
    tmp_path: Path, pages: list[tuple[int, int, int]], smaller: Sure
) -> None:
    assert sorted_pages(write(tmp_path / "a.tif", *pages)) == (FULL, smaller)


def test_subifds(tmp_path: Path) -> None:
    """Those of full resolution are its levels; those of a label are not said to be."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels(*LABEL), subifds=1, **HOW)
        tiff.write(pixels(*QUARTER), subfiletype=1, **HOW)
        tiff.write(pixels(*FULL), subifds=1, **HOW)
        tiff.write(pixels(*HALF), subfiletype=1, **HOW)
    assert sorted_pages(path) == (FULL, [(HALF, True), (QUARTER, False)])
    with tifffile.TiffFile(path) as tiff:
        pages = read_pages(tiff)
    owners = [None if page.parent is None else page.parent.imagewidth for page in pages]
    assert owners == [None, LABEL[0], None, FULL[0]]


@pytest.mark.parametrize(
    ("largest", "words"),
    [
        (np.zeros((300, 400), np.uint8), "uint8 MINISBLACK pixels are not 8-bit colour"),
        (np.zeros((300, 400, 3), np.uint16), "uint16 RGB pixels are not 8-bit colour"),
        (None, "not tiled"),
    ],
)
def test_a_largest_page_of_another_kind(
    tmp_path: Path, largest: np.ndarray | None, words: str
) -> None:
    """It is not passed over for a thumbnail that happens to be colour in tiles."""
    path, how = tmp_path / "a.tif", {"metadata": None, "photometric": "rgb"}
    if largest is None:
        largest = pixels(*FULL)
    else:
        how |= {"tile": (64, 64), "photometric": "rgb" if largest.ndim == 3 else "minisblack"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels(*HALF), **HOW)
        tiff.write(largest, **how)
    with pytest.raises(Refused, match=words):
        sorted_pages(path)


@pytest.mark.parametrize(
    ("pages", "sizes", "words"),
    [
        ([(*LABEL, 0), (*FULL, 0)], [LABEL], "largest page is not the first"),
        ([(*FULL, 0), (*HALF, 0)], [FULL], "not marked"),
        ([(*FULL, 0), (256, 192, 1)], [FULL, (256, 192)], "padded"),
        ([(*FULL, 0), (*LABEL, 1)], [FULL, LABEL], "padded"),
    ],
)
def test_what_libraries_read_wrongly(
    tmp_path: Path, pages: list[tuple[int, int, int]], sizes: Sizes, words: str
) -> None:
    path = write(tmp_path / "a.tif", *pages)
    with pytest.raises(Declined, match=words):
        ordinary(path, *sizes)


def test_what_they_read_rightly(tmp_path: Path) -> None:
    ordinary(write(tmp_path / "a.tif", (*FULL, 0), (*HALF, 1), (*LABEL, 0)), FULL, HALF)


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation(tmp_path: Path, turn: int) -> None:
    path = write(tmp_path / "a.tif", (*FULL, 0), extratags=[(274, 3, 1, turn, True)])
    with tifffile.TiffFile(path) as tiff:
        assert orientation(tiff.pages.first) == turn
    if turn == 1:
        ordinary(path, FULL)
    else:
        with pytest.raises(Declined, match=rf"turned in the file \(Orientation {turn}\)"):
            ordinary(path, FULL)


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_an_orientation_that_there_is_not(tmp_path: Path, value: int) -> None:
    ordinary(write(tmp_path / "a.tif", (*FULL, 0), extratags=[(274, 3, 1, value, True)]), FULL)


def test_a_fourth_sample(tmp_path: Path) -> None:
    for sample in ("unspecified", "unassalpha", "assocalpha"):
        path = tmp_path / f"{sample}.tif"
        four = np.zeros((300, 400, 4), np.uint8)
        tifffile.imwrite(path, four, extrasamples=[sample], **HOW)
        if sample == "unspecified":
            with pytest.raises(Declined, match="fourth sample"):
                ordinary(path, FULL)
        else:
            ordinary(path, FULL)


# --- damage


def patched(path: Path, offset: int, form: str, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(form, value))


def test_directories_in_a_loop(tmp_path: Path) -> None:
    """The link at the end of the last directory leads to the first."""
    path = write(tmp_path / "a.tif", (*FULL, 0), (*HALF, 1))
    with tifffile.TiffFile(path) as tiff:
        first, last = (page.offset for page in tiff.pages)
        entries = struct.unpack_from("<H", path.read_bytes(), last)[0]
    patched(path, last + 2 + 12 * entries, "<I", first)
    with tifffile.TiffFile(path) as tiff, pytest.raises(Refused, match="form a loop"):
        read_pages(tiff)


def test_a_tag_that_is_no_number(tmp_path: Path) -> None:
    """Two values where there is one width."""
    path = write(tmp_path / "a.tif", (*FULL, 0))
    with tifffile.TiffFile(path) as tiff:
        patched(path, tiff.pages.first.tags["TileWidth"].offset + 4, "<I", 2)
    with (
        tifffile.TiffFile(path) as tiff,
        pytest.raises(Refused, match="tag of tilewidth in its page 0"),
    ):
        read_pages(tiff)


def test_no_page(tmp_path: Path) -> None:
    (path := tmp_path / "a.tif").write_bytes(struct.pack("<2sHI", b"II", 42, 0))
    with tifffile.TiffFile(path) as tiff, pytest.raises(Refused):
        read_pages(tiff)
