"""TIFFs that would never end, or state what no bytes stand behind; and what they leave out."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.builders import refusal
from wsi_norm.config import RunConfig
from wsi_norm.errors import ConfigError, ReadError, UnreadableSlideError
from wsi_norm.geometry import Level, Region
from wsi_norm.plan import plan_slide
from wsi_norm.slide import open_slide, read_image
from wsi_norm.slide.directories import MAX_DIRECTORIES, Directories, left_out, walk
from wsi_norm.slide.readers.base import Refused
from wsi_norm.sources import SlideSource

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(120, 250, (300, 400, 3), np.uint8)
TILES: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
WIDTH, LENGTH, TILE_WIDTH, TILE_LENGTH, COUNTS = 256, 257, 322, 323, 325


def written(path: Path, **how: Any) -> Path:
    """A pyramid of a page with a SubIFD, and two more pages."""
    with tifffile.TiffWriter(path, **how) as tiff:
        tiff.write(PICTURE, subifds=1, compression="zlib", **TILES)
        tiff.write(PICTURE[::2, ::2], subfiletype=1, compression="zlib", **TILES)
        tiff.write(PICTURE[::4, ::4], subfiletype=1, compression="zlib", **TILES)
        tiff.write(PICTURE[::8, ::8], photometric="rgb", metadata=None)
    return path


def places(path: Path) -> dict[str, Any]:
    """By tifffile: offsets of the pages, of the SubIFD, and where links to next pages stand."""
    with tifffile.TiffFile(path) as tiff:
        pages = list(tiff.pages)
        link = tiff.tiff.offsetformat
        below = pages[0].pages
        assert below is not None
        ends = [
            page.offset + tiff.tiff.tagnosize + len(page.tags) * tiff.tiff.tagsize for page in pages
        ]
        return {
            "link": link,
            "pages": [page.offset for page in pages],
            "below": below[0].offset,
            "ends": ends,
            "sub": pages[0].tags["SubIFDs"].valueoffset,
        }


def patched(path: Path, at: int, form: str, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack(form, value))


def tagged(path: Path, **tags: Any) -> Path:
    """Values of the first page's tags overwritten."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for name, value in tags.items():
            tiff.pages[0].tags[name].overwrite(value)
    return path


LOOPS: dict[str, Callable[[dict[str, Any]], tuple[int, int]]] = {
    "the last page leads to the first": lambda p: (p["ends"][-1], p["pages"][0]),
    "a page leads to itself": lambda p: (p["ends"][1], p["pages"][1]),
    "a page leads to the one before": lambda p: (p["ends"][1], p["pages"][0]),
    "a SubIFD is its own page": lambda p: (p["sub"], p["pages"][0]),
    "a SubIFD is a later page": lambda p: (p["sub"], p["pages"][2]),
    "a page is a SubIFD": lambda p: (p["ends"][-1], p["below"]),
}


@pytest.mark.parametrize("shape", LOOPS)
@pytest.mark.parametrize("how", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=str)
def test_loops_of_any_shape(tmp_path: Path, shape: str, how: dict[str, Any]) -> None:
    path = written(tmp_path / "a.tif", **how)
    walk(path)
    found = places(path)
    at, value = LOOPS[shape](found)
    patched(path, at, found["link"], value)
    said = refusal(open_slide, path, kind=UnreadableSlideError, default_mpp_um=0.5)
    assert said == f"{path}: damaged TIFF: its directories form a loop; copy it again"


@pytest.mark.parametrize("reader", ["auto", "openslide", "tiffslide", "tifffile", "image"])
def test_whoever_is_asked_for_the_look_comes_first(tmp_path: Path, reader: str) -> None:
    path = written(tmp_path / "a.tif")
    found = places(path)
    patched(path, found["ends"][-1], found["link"], found["pages"][0])
    with pytest.raises(UnreadableSlideError, match="form a loop"):
        open_slide(path, reader, default_mpp_um=0.5)


def test_masks_and_images_are_looked_at_too(tmp_path: Path, slide_path: Path) -> None:
    path = written(tmp_path / "a.tif")
    found = places(path)
    patched(path, found["ends"][-1], found["link"], found["pages"][0])
    assert "form a loop" in refusal(read_image, path, kind=UnreadableSlideError)
    with open_slide(slide_path) as slide:
        source = SlideSource(slide_path, "a", mask=path)
        said = refusal(plan_slide, slide, source, RunConfig(), kind=ConfigError)
    assert said == f"{path}: damaged TIFF: its directories form a loop; export the mask again"


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"ImageWidth": 0}, "page 0 states a size of 0 x 300 px"),
        ({"TileLength": 0}, "tiles of 64 x 0 px, which no slide has"),
        ({"TileWidth": 1, "TileLength": 1}, "tiles of 1 x 1 px, which no slide has"),
        ({"TileWidth": 1 << 15, "TileLength": 1 << 15}, "which no slide has"),
        ({"ImageWidth": 10**9, "ImageLength": 10**9}, "which would be"),
        ({"ImageWidth": 1000}, "would be 80, but lists 35"),
        ({"ImageWidth": 200}, "would be 20, but lists 35"),
    ],
)
def test_sizes_that_no_bytes_stand_behind(tmp_path: Path, tags: dict[str, int], said: str) -> None:
    path = tagged(written(tmp_path / "a.tif", bigtiff=True), **tags)
    assert said in refusal(open_slide, path, kind=UnreadableSlideError, default_mpp_um=0.5)


def test_a_page_in_strips_is_no_larger_than_its_file_can_hold(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[2].tags["ImageLength"].overwrite(1 << 31)
    with pytest.raises(Refused, match=r"its page 3 states 50 x 2147483648 px, which .* bytes"):
        walk(path)


def test_counts_of_tags_and_of_directories_have_bounds(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif")
    found = places(path)
    patched(path, found["pages"][0], "<H", 60_000)
    with pytest.raises(Refused, match="has 60000 tags"):
        walk(path)
    path = written(tmp_path / "b.tif")
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags["TileOffsets"].offset
    patched(path, at + 4, "<I", 0xFFFFFFFF)
    with pytest.raises(Refused, match="claims 4294967295 values"):
        walk(path)
    chain = bytearray(b"II*\0" + struct.pack("<I", 8))
    for number in range(MAX_DIRECTORIES + 1):  # each without a tag, and a link to the next
        chain += struct.pack("<HI", 0, 8 + 6 * (number + 1))
    (tmp_path / "c.tif").write_bytes(chain)
    with pytest.raises(Refused, match=f"more than {MAX_DIRECTORIES} directories"):
        walk(tmp_path / "c.tif")


def test_what_was_cut_off_is_for_others_to_say(tmp_path: Path) -> None:
    data = written(tmp_path / "a.tif").read_bytes()
    for length in range(0, len(data), len(data) // 40):
        (tmp_path / "cut.tif").write_bytes(data[:length])
        walk(tmp_path / "cut.tif")
    for other in (b"", b"II", b"II+\0", b"hello" * 100):
        (tmp_path / "other").write_bytes(other)
        walk(tmp_path / "other")


def test_a_slide_wider_than_glass_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((16, 12_000, 3), np.uint8), compression="zlib", **TILES)
    open_slide(path, default_mpp_um=12.0).close()
    said = refusal(open_slide, path, kind=UnreadableSlideError, default_mpp_um=16.0)
    assert "12000 x 16 px at 16 um/px are 192 x 0 mm" in said


def emptied(path: Path, *tiles: int) -> Path:
    """The first page says that it holds no bytes for these tiles."""
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags["TileByteCounts"]
        size = tag.dataformat[-1:]
    for tile in tiles:
        patched(path, tag.valueoffset + tile * struct.calcsize(size), f"<{size}", 0)
    return path


@pytest.mark.parametrize("reader", ["auto", "openslide", "tiffslide", "tifffile"])
def test_tiles_without_bytes_are_known_and_white(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PICTURE, compression="zlib", **TILES)
    emptied(path, 8, 9)  # row 1, columns 1 and 2 of 7
    with open_slide(path, reader, default_mpp_um=0.5) as slide:
        (index,) = slide.metadata.left_out
        found = slide.metadata.left_out[index]
        pixels = slide.read(Region(0, 0, 0, 400, 300))
    assert (index, found.tile, found.tiles.shape) == (0, (64, 64), (5, 7))
    assert np.argwhere(found.tiles).tolist() == [[1, 1], [1, 2]]
    expected = PICTURE.copy()
    expected[64:128, 64:192] = 255
    np.testing.assert_array_equal(pixels, expected)


def test_of_levels_that_cannot_be_told_apart_nothing_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(PICTURE, **TILES)
        tiff.write(PICTURE, **TILES)
    emptied(path, 3)
    assert left_out(str(path), [Level(0, 400, 300, 1.0)]) == {}
    assert left_out(str(path), [Level(0, 999, 300, 1.0)]) == {}
    with path.open("rb") as file:
        assert Directories(file).stored_tiles(Level(0, 400, 300, 1.0)) is None


@pytest.mark.parametrize(
    ("reader", "planes"),
    [(reader, "contig") for reader in ("openslide", "tiffslide", "tifffile")]
    + [("openslide", "separate")],
)
def test_a_deflate_tile_that_contradicts_its_checksum(
    tmp_path: Path, reader: str, planes: str
) -> None:
    """The last bytes of a stream are its checksum; a flipped bit there changes no pixel."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        stored = PICTURE if planes == "contig" else np.moveaxis(PICTURE, -1, 0)
        tiff.write(stored, compression="zlib", planarconfig=planes, **TILES)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        tile = 8 if planes == "contig" else 35 + 8
        at = page.dataoffsets[tile] + page.databytecounts[tile] - 1
    data = path.read_bytes()
    patched(path, at, "B", data[at] ^ 1)
    with open_slide(path, reader, default_mpp_um=0.5) as slide:
        for _ in range(2):
            with pytest.raises(ReadError, match=r"data check|BAD_DATA"):
                slide.read(Region(100, 100, 0, 20, 20))
        np.testing.assert_array_equal(slide.read(Region(0, 0, 0, 64, 64)), PICTURE[:64, :64])
