"""Tiles decoded directly against OpenSlide: the same pixels or the same error."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsi_norm.errors import ReadError, UnreadableSlideError
from wsi_norm.geometry import Level, Region
from wsi_norm.slide import open_slide
from wsi_norm.slide.readers import direct
from wsi_norm.slide.readers.base import Declined
from wsi_norm.slide.readers.direct import DirectReader
from wsi_norm.synthetic import write_synthetic_slide

WIDTH, HEIGHT = 1040, 800
COLOURS: dict[str, dict[str, Any]] = {
    "rgb": {"compressionargs": {"level": 80, "colorspace": "RGB", "outcolorspace": "RGB"}},
    "444": {"compressionargs": {"level": 80}, "subsampling": (1, 1)},
    "422": {"compressionargs": {"level": 80}, "subsampling": (2, 1)},
    "420": {"compressionargs": {"level": 80}, "subsampling": (2, 2)},
}
PLAIN: dict[str, Any] = {"photometric": "rgb", "metadata": None, "software": False}
APERIO = f"Aperio Image Library\r\n{WIDTH}x{HEIGHT}|AppMag = 20|MPP = 0.5"


@cache
def picture() -> np.ndarray:
    """Patches of 8 px and noise: every tile differs, and chroma changes inside its samples."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 240, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return patches.repeat(8, 0).repeat(8, 1) + rng.integers(0, 16, (HEIGHT, WIDTH, 3), np.uint8)


def write(path: Path, tile: int = 256, colours: str = "rgb", tables: bool = False) -> Path:
    """Levels of downsample 1, 2 and 4, generic or, by the suffix, Aperio."""
    how = {"tile": (tile, tile), "compression": "jpeg", **COLOURS[colours], **PLAIN}
    if path.suffix == ".svs":
        how["description"] = APERIO
    with tifffile.TiffWriter(path) as tiff:
        for number in range(3):
            pixels = picture()[:: 2**number, :: 2**number]
            tiff.write(pixels, subfiletype=int(number > 0), **how)
    return with_tables(path) if tables else path


def with_tables(path: Path) -> Path:
    """The same slide with each page's Huffman and quantisation tables in the TIFF's tag."""
    pages = []
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            data = path.read_bytes()
            spans = zip(page.dataoffsets, page.databytecounts, strict=True)
            tiles, tables = zip(*(split(data[at : at + count]) for at, count in spans), strict=True)
            assert len(set(tables)) == 1
            pages.append((page, tiles, tables[0]))
    with tifffile.TiffWriter(path) as out:
        for page, tiles, tables in pages:
            out.write(
                iter(tiles),
                shape=page.shape,
                dtype=page.dtype,
                tile=page.tile,
                compression="jpeg",
                compressionargs={"outcolorspace": page.photometric.name},
                jpegtables=tables,
                photometric=page.photometric.name,
                subsampling=page.subsampling,
                subfiletype=page.subfiletype,
                description=page.description or None,
                metadata=None,
                software=False,
            )
    return path


def split(jpeg: bytes) -> tuple[bytes, bytes]:
    """A JPEG as an abbreviated stream and its tables."""
    kept, tables, at = jpeg[:2], jpeg[:2], 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
        if jpeg[at + 1] in {0xDB, 0xC4}:
            tables += jpeg[at:end]
        else:
            kept += jpeg[at:end]
        at = end
    return kept + jpeg[at:], tables + b"\xff\xd9"


def at(level: Level, left: int, top: int, width: int, height: int) -> Region:
    x, y = round(left * level.downsample), round(top * level.downsample)
    return Region(x, y, level.index, width, height)


def outcome(path: Path, reader: Any, region: Region) -> np.ndarray | str:
    """Pixels, or what the error says."""
    with open_slide(path, reader, table_mpp_um=0.5) as slide:
        try:
            return slide.read(region)
        except ReadError as error:
            return str(error)


def assert_parity(path: Path, region: Region, reader: Any = "direct") -> bool:
    """Whether OpenSlide reads a region; the same comes of the direct reader either way."""
    direct, expected = (outcome(path, name, region) for name in (reader, "openslide"))
    if isinstance(expected, str):
        assert direct == expected
        return False
    np.testing.assert_array_equal(direct, expected)
    return True


# --- pixels


@pytest.mark.parametrize("suffix", ["svs", "tif"])
@pytest.mark.parametrize("tables", [False, True], ids=["whole", "tables"])
@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("tile", [240, 256, 512])
def test_every_level_is_openslides(
    tmp_path: Path,
    tile: int,
    colours: str,
    tables: bool,
    suffix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(tmp_path / f"a.{suffix}", tile, colours, tables)
    with tifffile.TiffFile(path) as tiff:
        assert (tiff.pages.first.jpegtables is not None) is tables
    with (
        open_slide(path, table_mpp_um=0.5) as direct,
        open_slide(path, "openslide", table_mpp_um=0.5) as other,
    ):
        assert (direct.reader, direct.damage) == ("direct", None)
        assert direct.metadata == other.metadata
        assert [level.downsample for level in direct.levels] == [1, 2, 4]
        regions = [
            region
            for level in direct.levels
            for region in (
                at(level, 0, 0, level.width, level.height),
                at(level, level.width - 30, level.height - 30, 60, 60),
                at(level, 55, 33, 130, 140),
            )
        ]
        expected = [other.read(region) for region in regions]
        monkeypatch.delattr(
            "wsi_norm.slide.readers.direct.OpenSlideReader.read"
        )  # none goes to OpenSlide
        for region, pixels in zip(regions, expected, strict=True):
            np.testing.assert_array_equal(direct.read(region), pixels)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("small") / "a.tif", 240, "420", tables=True)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_region(small: Path, data: st.DataObject) -> None:
    with open_slide(small, table_mpp_um=0.5) as direct:
        level = data.draw(st.sampled_from(direct.levels))
        left = data.draw(st.integers(-20, level.width))
        top = data.draw(st.integers(-20, level.height))
        width, height = (data.draw(st.integers(1, 600)) for _ in range(2))
        region = at(level, left, top, width, height)
        with open_slide(small, "openslide", table_mpp_um=0.5) as other:
            np.testing.assert_array_equal(direct.read(region), other.read(region))


def test_real_and_synthetic_slides(
    real_slides: list[Path], slide_path: Path, tmp_path: Path
) -> None:
    odd = write_synthetic_slide(tmp_path / "odd.svs", width=1100, height=900, levels=2)
    for path, reader in (
        (real_slides[0], "direct"),
        (real_slides[1], "openslide"),
        (slide_path, "direct"),
        (odd, "direct"),
    ):
        with open_slide(path, table_mpp_um=0.5) as slide:
            assert (slide.reader, slide.damage) == (reader, None)
            levels = slide.levels
        for level in levels:
            assert assert_parity(path, at(level, 0, 0, level.width, level.height), "auto")
            assert assert_parity(path, at(level, 91, 67, 333, 151), "auto")


def test_what_is_read_is_the_callers_own(small: Path) -> None:
    with open_slide(small, table_mpp_um=0.5) as slide:
        region = Region(0, 0, 0, 240, 240)
        slide.read(region)[:] = 0
        assert slide.read(region).any()


def test_between_the_pixels_of_a_level_openslide_reads(tmp_path: Path) -> None:
    """A level of 333 px under one of 1000: downsample 3.003."""
    path, how = tmp_path / "a.tif", {"tile": (256, 256), "compression": "jpeg", **PLAIN}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture()[:, :1000], **how)
        tiff.write(picture()[::3, :999:3], subfiletype=1, **how)
    with open_slide(path, table_mpp_um=0.5) as slide:
        assert slide.reader == "direct"
        level = slide.levels[1]
        assert not level.downsample.is_integer()
    assert assert_parity(path, at(level, 57, 31, 200, 100))


# --- damage


def tiles_of(path: Path, level: int = 0) -> tuple[list[tuple[int, int]], Any]:
    """(offset, bytes) of a page's tiles, and the tag that holds the bytes."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[level]
        spans = zip(page.dataoffsets, page.databytecounts, strict=True)
        return list(spans), page.tags["TileByteCounts"]


def overwritten(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("colours", ["rgb", "420"])
def test_flipped_bits(tmp_path: Path, colours: str) -> None:
    """Tile 5 is neither the fullest nor the last, so the slide is still read directly."""
    path, rng, read = write(tmp_path / "a.tif", 256, colours), np.random.default_rng(1), 0
    offset, count = tiles_of(path)[0][5]
    whole = path.read_bytes()[offset : offset + count]
    places = [*range(26), *rng.integers(0, count, 60).tolist()]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        overwritten(path, offset, damaged)
        with open_slide(path, table_mpp_um=0.5) as slide:
            assert slide.reader == "direct"
        read += assert_parity(path, Region(0, 256, 0, 256, 256))
    assert 0 < read < len(places)


@pytest.mark.parametrize("suffix", ["svs", "tif"])
@pytest.mark.parametrize("left", [0, 2, 10, 500])
def test_a_tile_cut_off(tmp_path: Path, left: int, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}")
    _, tag = tiles_of(path)
    kind = {3: "<H", 4: "<I"}[tag.dtype]
    overwritten(path, tag.valueoffset + 5 * struct.calcsize(kind), struct.pack(kind, left))
    with open_slide(path, table_mpp_um=0.5) as slide:
        assert slide.reader == ("direct" if left else "openslide")  # no data: the tile is missing
    for region in (Region(0, 256, 0, 256, 256), Region(300, 300, 0, 90, 90)):
        assert_parity(path, region, "auto")
    assert_parity(path, Region(0, 0, 1, 300, 300), "auto")


def test_zeros_in_the_middle(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svs")
    offset, _ = tiles_of(path)[0][5]
    overwritten(path, offset + 2000, bytes(500))
    assert not assert_parity(path, Region(0, 256, 0, 256, 256))
    assert assert_parity(path, Region(256, 256, 0, 256, 256))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9, 0.99])
def test_a_cut_file(tmp_path: Path, share: float) -> None:
    """Directories first, so that it opens: tiles at its end are gone."""
    path = write(tmp_path / "a.tif")
    data = path.read_bytes()
    first = tiles_of(path)[0][0][0]
    path.write_bytes(data[: first + int(share * (len(data) - first))])
    found = []
    for reader in ("auto", "openslide"):
        try:
            found.append(outcome(path, reader, Region(0, 0, 0, WIDTH, HEIGHT)))
        except UnreadableSlideError:
            found.append("refused")
    if isinstance(found[1], str):
        assert isinstance(found[0], str) or found[1] == "refused"  # then TiffSlide reads a part
    else:
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", ["zeroed_tiles.svs", "truncated_95.svs"])
def test_faulty_slides(faulty: Path, name: str) -> None:
    with open_slide(faulty / name) as slide:
        assert slide.reader == ("direct" if "zeroed" in name else "tiffslide")
        if "zeroed" in name:
            for left in range(0, 2220, 240):
                assert_parity(faulty / name, Region(left, 1400, 0, 240, 240))


# --- which slides


def test_a_difference_is_noticed(slide_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = direct.decode_jpeg

    def forged(data: bytes) -> np.ndarray:
        pixels = decode(data)
        pixels[100, 100, 1] ^= 1
        return pixels

    monkeypatch.setattr(direct, "decode_jpeg", forged)
    with open_slide(slide_path) as slide:
        assert (slide.reader, slide.damage) == ("openslide", None)
    with pytest.raises(UnreadableSlideError, match=r"level 0 are not OpenSlide's; leave out"):
        open_slide(slide_path, "direct")


def test_a_mistake_of_ours_is_not_passed_to_openslide(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(small, table_mpp_um=0.5) as slide:
        assert slide.reader == "direct"

        def mistaken(data: bytes) -> np.ndarray:
            raise TypeError("ours")

        monkeypatch.setattr(direct, "decode_jpeg", mistaken)
        with pytest.raises(TypeError, match="ours"):
            slide.read(Region(240, 240, 0, 9, 9))


@pytest.mark.parametrize("value", [0, 1, 0xFF])
@pytest.mark.parametrize("name", ["TileLength", "TileOffsets", "TileByteCounts"])
def test_damaged_tags_are_openslides_to_judge(tmp_path: Path, name: str, value: int) -> None:
    """`value` in each byte of a tag's first number: OpenSlide's pixels, or one of our errors."""
    path = write(tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages.first.tags[name]
    overwritten(path, tag.valueoffset, bytes([value] * {3: 2, 4: 4, 16: 8}[tag.dtype]))
    found = []
    for reader in ("auto", "openslide"):
        try:
            found.append(outcome(path, reader, Region(0, 0, 0, WIDTH, HEIGHT)))
        except UnreadableSlideError:
            found.append("refused")
    if isinstance(found[1], str):
        assert isinstance(found[0], str)
    else:
        np.testing.assert_array_equal(*found)


def test_refused_in_one_line(data_dir: Path, real_slides: list[Path]) -> None:
    slides = data_dir / "slides"
    for path, words in (
        (real_slides[1], "compressed by APERIO_JP2000_RGB, not JPEG"),
        (slides / "synthetic" / "openslide_boxes.tiff", "compressed by ADOBE_DEFLATE, not JPEG"),
        (slides / "dicom" / "cmu-1-small-region-dicom", "dicom is not aperio or generic-tiff"),
        (slides / "fluorescence" / "test3-DAPI-2-387.ndpi", "hamamatsu is not aperio"),
    ):
        with pytest.raises(UnreadableSlideError) as caught:
            open_slide(path, "direct", table_mpp_um=0.5)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert "the reader direct does not take it: " in message
        assert words in message
        assert message.endswith("; leave out --reader direct")
        assert "\n" not in message


def test_no_handle_is_left_open(small: Path, real_slides: list[Path]) -> None:
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("no /proc")
    before = len(list(open_files.iterdir()))
    for _ in range(3):
        with pytest.raises(Declined, match="not JPEG"):
            DirectReader(str(real_slides[1]))
        open_slide(small, table_mpp_um=0.5).close()
    assert len(list(open_files.iterdir())) == before
