"""Plain TIFFs that OpenSlide reads wrongly: pages, turns and samples against numpy."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_norm.errors import ReadError, UnreadableSlideError
from wsi_norm.geometry import Region
from wsi_norm.slide import Slide, open_slide
from wsi_norm.slide.readers.base import Declined, Refused
from wsi_norm.slide.readers.tifffile import TifffileReader

WIDTH, HEIGHT = 700, 450
HOW: dict[str, Any] = {"tile": (64, 80), "photometric": "rgb", "metadata": None, "software": False}
TURNED = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""TIFF 6.0, page 36: 6 has the first row at the right, 8 at the left."""


@cache
def picture(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> np.ndarray:
    """uint8 (h, w, 3): different everywhere, and smooth enough for a level to resemble it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 240, (height // 10 + 2, width // 10 + 2, 3), np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.minimum(np.asarray(large), 239) + rng.integers(0, 16, (height, width, 3), np.uint8)


@cache
def reduced(factor: int) -> np.ndarray:
    size = WIDTH // factor, HEIGHT // factor
    return np.asarray(Image.fromarray(picture()).resize(size, Image.Resampling.BOX))


def padded(pixels: np.ndarray) -> np.ndarray:
    height, width = (
        -(-side // edge) * edge for side, edge in zip(pixels.shape[:2], (64, 80), strict=True)
    )
    room = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.pad(pixels, room, constant_values=255)


def write(path: Path, *pages: tuple[np.ndarray, dict[str, Any]], **how: Any) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for pixels, own in pages:
            tiff.write(pixels, **{**HOW, **how, **own})
    return path


def opened(path: Path, reader: str = "auto") -> Slide:
    return open_slide(path, reader, table_mpp_um=0.5)


def whole(slide: Slide, level: int = 0) -> np.ndarray:
    found = slide.levels[level]
    return slide.read(Region(0, 0, level, found.width, found.height))


def assert_pyramid(path: Path) -> None:
    """Levels of downsample 1, 2 and 4, to the pixel."""
    with opened(path) as slide:
        assert (slide.reader, slide.damage, slide.warnings) == ("tifffile", None, ())
        assert slide.reader_version == tifffile.__version__
        assert [level.downsample for level in slide.levels] == pytest.approx([1, 2, 4], rel=0.01)
        for level in slide.levels:
            found, expected = whole(slide, level.index), reduced(2**level.index)
            assert found.shape == expected.shape
            np.testing.assert_array_equal(found, expected)


# --- pages


REDUCED: dict[str, Any] = {"subfiletype": 1}


def test_a_label_first(tmp_path: Path) -> None:
    label = picture(200, 150, 1)
    for kind in ({}, REDUCED):  # a label that is said to be a level of the slide is none either
        pages = [(label, kind), (reduced(1), {}), (reduced(2), REDUCED), (reduced(4), REDUCED)]
        assert_pyramid(write(tmp_path / "a.tif", *pages))


def test_from_small_to_large(tmp_path: Path) -> None:
    pages = [(reduced(4), REDUCED), (reduced(2), REDUCED), (reduced(1), {})]
    assert_pyramid(write(tmp_path / "a.tif", *pages))


def test_pages_that_are_not_marked(tmp_path: Path) -> None:
    other = picture(350, 225, 2)[:112, :175]  # of the slide's proportions, and another picture
    pages = [reduced(1), reduced(2), reduced(4), np.ascontiguousarray(other[:56, :87])]
    assert_pyramid(write(tmp_path / "a.tif", *((pixels, {}) for pixels in pages)))


def test_subifds(tmp_path: Path) -> None:
    """As in OME-TIFF."""
    pages = [(reduced(1), {"subifds": 2}), (reduced(2), REDUCED), (reduced(4), REDUCED)]
    assert_pyramid(write(tmp_path / "a.tif", *pages))


def test_levels_padded_to_whole_tiles(tmp_path: Path) -> None:
    pages = [(reduced(1), {}), (padded(reduced(2)), REDUCED), (padded(reduced(4)), REDUCED)]
    assert pages[1][0].shape != reduced(2).shape
    assert_pyramid(write(tmp_path / "a.tif", *pages))


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
def test_other_readers_leave_it(tmp_path: Path, reader: str) -> None:
    path = write(tmp_path / "a.tif", (reduced(2), {}), (reduced(1), {}))
    with pytest.raises(UnreadableSlideError, match=f"largest page.*leave out --reader {reader}"):
        opened(path, reader)


def test_it_leaves_vendors_formats(slide_path: Path) -> None:
    with pytest.raises(Declined, match="svs"):
        TifffileReader(str(slide_path))


def test_a_url(tmp_path: Path) -> None:
    import fsspec

    path = write(tmp_path / "a.tif", (reduced(2), REDUCED), (reduced(1), {}))
    fsspec.filesystem("memory").pipe("/bucket/plain.tif", path.read_bytes())
    with opened("memory://bucket/plain.tif") as slide:  # type: ignore[arg-type]
        assert slide.reader == "tifffile"
        np.testing.assert_array_equal(whole(slide), picture())


# --- turns


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("turn", [turn for turn in TURNED if turn > 1])
def test_the_picture_is_turned_as_one(tmp_path: Path, turn: int, planes: str) -> None:
    tag = {"extratags": [(274, 3, 1, turn, True)], "planarconfig": planes}
    stored = [reduced(1), reduced(2)]
    if planes == "separate":
        stored = [np.moveaxis(pixels, -1, 0) for pixels in stored]
    path = write(tmp_path / "a.tif", (stored[0], tag), (stored[1], {**tag, **REDUCED}))
    rng = np.random.default_rng(turn)
    with opened(path) as slide:
        assert slide.reader == "tifffile"
        for level in slide.levels:
            expected = TURNED[turn](reduced(2**level.index))
            np.testing.assert_array_equal(whole(slide, level.index), expected)
            for _ in range(6):
                left, top = int(rng.integers(level.width)), int(rng.integers(level.height))
                region = Region(2**level.index * left, 2**level.index * top, level.index, 50, 40)
                part = expected[top : top + 40, left : left + 50]
                read = slide.read(region)
                np.testing.assert_array_equal(read[: part.shape[0], : part.shape[1]], part)
        assert slide.overview(4.0).readable.all()


def test_pillow_turns_the_same_way(tmp_path: Path) -> None:
    """An independent word on what the numbers mean."""
    for turn, expected in TURNED.items():
        path = tmp_path / "a.tif"
        tag = [(274, 3, 1, turn, True)]
        tifffile.imwrite(path, picture(), photometric="rgb", extratags=tag, metadata=None)
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), expected(picture()))


# --- samples


def test_a_fourth_sample_of_which_nothing_is_said(tmp_path: Path) -> None:
    """Not taken for alpha: pixels stay what they are."""
    four = np.dstack([picture(), picture()[..., :1]])
    path = write(tmp_path / "a.tif", (four, {"extrasamples": ["unspecified"]}))
    with opened(path) as slide:
        np.testing.assert_array_equal(whole(slide), picture())


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_alpha_of_a_turned_picture(tmp_path: Path, kind: str) -> None:
    alpha = picture(seed=3)[..., :1]
    share = alpha / 255
    colours = picture() if kind == "unassalpha" else (picture() * share).astype(np.uint8)
    expected = colours * (share if kind == "unassalpha" else 1) + 255 * (1 - share)
    how = {"extrasamples": [kind], "extratags": [(274, 3, 1, 3, True)]}
    path = write(tmp_path / "a.tif", (np.dstack([colours, alpha]), how))
    with opened(path) as slide:
        found = whole(slide)[::-1, ::-1]
    assert np.abs(found - expected).max() <= 1


# --- tiles


def tiles(path: Path) -> list[tuple[int, int]]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        return list(zip(page.dataoffsets, page.databytecounts, strict=True))


TURN: dict[str, Any] = {"extratags": [(274, 3, 1, 3, True)]}


def test_a_tile_that_the_file_leaves_out_is_white(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", (picture(), TURN))
    with tifffile.TiffFile(path) as tiff:
        counts = tiff.pages.first.tags["TileByteCounts"]
    assert counts.dtype in {3, 4}
    with path.open("r+b") as file:
        file.seek(counts.valueoffset)
        file.write(bytes({3: 2, 4: 4}[counts.dtype]))
    with opened(path) as slide:
        found = whole(slide)[::-1, ::-1]
    expected = picture().copy()
    expected[:64, :80] = 255
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw", "zstd", "webp"])
def test_a_damaged_tile_costs_no_other(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "a.tif", (picture(), TURN), compression=compression)
    offset, count = tiles(path)[10]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    row, column = divmod(10, -(-WIDTH // 80))
    left, top = WIDTH - 80 * column - 80, HEIGHT - 64 * row - 64
    with opened(path) as slide:
        with pytest.raises(ReadError, match=r"a\.tif: cannot read 80 x 64 px"):
            slide.read(Region(left, top, 0, 80, 64))
        assert slide.read(Region(left - 80, top, 0, 80, 64)).any()
        assert not slide.overview(2.0).readable.all()


def test_ycbcr_without_jpeg_is_refused(tmp_path: Path) -> None:
    """Nobody here would turn it into RGB."""
    path = write(tmp_path / "a.tif", (picture(), TURN), photometric="ycbcr", subsampling=(1, 1))
    with pytest.raises(Refused, match="YCbCr"):
        TifffileReader(str(path))


def test_jpeg_as_ycbcr(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", (picture(), TURN), compression="jpeg", subsampling=(2, 2))
    with opened(path) as slide:
        assert slide.reader == "tifffile"
        assert np.abs(whole(slide)[::-1, ::-1].astype(int) - picture()).mean() < 8


def test_numbers_of_tiles_that_differ(tmp_path: Path) -> None:
    """One row of tiles more than the file has offsets for."""
    path = write(tmp_path / "a.tif", (picture(), TURN))
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages.first.tags["ImageLength"].valueoffset
    with path.open("r+b") as file:
        file.seek(at)
        file.write((HEIGHT + 64).to_bytes(2, "little"))
    with pytest.raises(Refused, match=r"tiles|offsets"):
        TifffileReader(str(path))
