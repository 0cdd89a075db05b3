"""Which reader takes a file, and what mpp it is given."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from tests.builders import CMU, TCGA
from tests.dicoms import EDGE, MPP_UM, TILE, picture, write_image, write_report, write_slide
from tests.slide.oracle import OF_JPEG, READERS
from wsi_norm.choices import READERS as CHOICES
from wsi_norm.errors import ConfigError, ResolutionError, UnreadableSlideError
from wsi_norm.geometry import Region
from wsi_norm.slide import open_slide
from wsi_norm.slide.readers.base import Declined, Refused
from wsi_norm.slide.readers.openslide import OpenSlideReader

DICOM = "slides/dicom/cmu-1-small-region-dicom"
BOXES = "slides/synthetic/openslide_boxes.tiff"


def test_auto_takes_openslide_before_tiffslide(
    data_dir: Path, slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(data_dir / TCGA, default_mpp_um=0.25) as slide:
        assert (slide.reader, slide.damage) == ("openslide", None)

    def refusing(path: str) -> None:
        raise openslide.OpenSlideError("not today")

    monkeypatch.setattr(openslide, "OpenSlide", refusing)
    with open_slide(slide_path) as slide:
        assert slide.reader == "tiffslide"
        assert slide.damage is not None
        assert "openslide: not today" in slide.damage
    with pytest.raises(UnreadableSlideError, match="not today"):
        open_slide(slide_path, "openslide")


def test_a_dicom_folder(data_dir: Path) -> None:
    folder = data_dir / DICOM
    with open_slide(folder) as slide:
        assert slide.reader == "openslide"
        assert slide.dimensions == (2220, 2967)
        assert slide.mpp_um == pytest.approx(0.499, abs=1e-3)
        assert slide.path.parent == folder
        assert len(slide.levels) > 1
        corner = slide.read(Region(0, 0, 0, 20, 20))
    with open_slide(sorted(folder.glob("*.dcm"))[-1]) as slide:
        np.testing.assert_array_equal(slide.read(Region(0, 0, 0, 20, 20)), corner)
    with pytest.raises(UnreadableSlideError, match=r"\.dcm"):
        open_slide(folder, "tiffslide")


def test_dicom_folders_with_other_objects_and_with_two_slides(tmp_path: Path) -> None:
    write_report(tmp_path / "annotations.dcm")
    write_slide(tmp_path, "slide", "")
    with open_slide(tmp_path) as slide:
        assert slide.dimensions == (EDGE, EDGE)
        assert len(slide.levels) == 2
        # JPEG of 4:2:2; another slide's pixels differ by 30 and more
        assert np.abs(slide.read(Region(0, 0, 0, EDGE, EDGE)) - picture().astype(int)).mean() < 3
    write_slide(tmp_path, "other", seed=1)
    with pytest.raises(UnreadableSlideError, match=r"2 DICOM slides; .*: other0\.dcm, slide0$"):
        open_slide(tmp_path)
    with open_slide(tmp_path / "slide1") as slide:
        assert slide.dimensions == (EDGE, EDGE)
    with pytest.raises(UnreadableSlideError, match=r"no whole slide \(Comprehensive SR"):
        open_slide(tmp_path / "annotations.dcm")


def test_dicom_twice_and_uncompressed(tmp_path: Path) -> None:
    """Uncompressed pixels are the written ones; an instance that is there twice does no harm."""
    write_image(
        tmp_path / "a.dcm", picture(), MPP_UM, generate_uid(), syntax=ExplicitVRLittleEndian
    )
    (tmp_path / "b.dcm").write_bytes((tmp_path / "a.dcm").read_bytes())
    with open_slide(tmp_path) as slide:
        assert slide.mpp_um == pytest.approx(MPP_UM)
        np.testing.assert_array_equal(slide.read(Region(0, 0, 0, EDGE, EDGE)), picture())


def test_a_dicom_concatenation(tmp_path: Path) -> None:
    """One level in two files."""
    data = write_image(
        tmp_path / "0.dcm", picture(), MPP_UM, generate_uid(), syntax=ExplicitVRLittleEndian
    )
    pixels, frame = data.PixelData, 3 * TILE * TILE
    data.ConcatenationUID = generate_uid()
    for number, (first, end) in enumerate([(0, 4), (4, 9)]):
        data.InConcatenationNumber, data.ConcatenationFrameOffsetNumber = number + 1, first
        data.NumberOfFrames, data.PixelData = end - first, pixels[first * frame : end * frame]
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    with open_slide(tmp_path) as slide:
        np.testing.assert_array_equal(slide.read(Region(0, 0, 0, EDGE, EDGE)), picture())


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (RLELossless, "RLE Lossless"),
        (ImplicitVRLittleEndian, "Implicit VR Little Endian"),
        (DeflatedExplicitVRLittleEndian, "Deflated Explicit VR Little Endian"),
    ],
)
def test_transfer_syntaxes_that_nothing_reads_are_named(
    tmp_path: Path, syntax: UID, name: str
) -> None:
    data = write_image(
        tmp_path / "a.dcm", picture(), MPP_UM, generate_uid(), syntax=ExplicitVRLittleEndian
    )
    if syntax == RLELossless:
        data.compress(RLELossless)
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(UnreadableSlideError, match=f"transfer syntax {name}, .*; convert it to"):
        open_slide(tmp_path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "gone.svs", "no such file"),
        (tmp_path, "without a DICOM slide"),
        (tmp_path / f"{'x' * 300}.svs", "."),
    ):
        with pytest.raises(UnreadableSlideError, match=words) as caught:
            open_slide(path)
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://bucket/none.svs", "nothing there"),
        ("nosuchprotocol://bucket/a.svs", "check the part before"),
    ],
)
def test_urls_that_lead_nowhere(url: str, words: str) -> None:
    with pytest.raises((UnreadableSlideError, ConfigError), match=words) as caught:
        open_slide(url)
    assert url in str(caught.value)


@pytest.mark.parametrize("name", ["opensilde", "Auto", ""])
def test_a_reader_that_there_is_not(slide_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_slide(slide_path, name)
    assert str(caught.value) == (
        f"no reader is called {name!r}; "
        "name one of auto, direct, openslide, tifffile, tiffslide, image"
    )


# --- encodings


PICTURE = np.random.default_rng(0).integers(0, 256, (300, 460, 3), np.uint8)
SMOOTH = np.asarray(Image.fromarray(PICTURE[:30, :46]).resize((460, 300), Image.Resampling.BICUBIC))
TILES: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
PREDICTED: dict[str, Any] = {"predictor": True}
LOSSLESS: dict[str, dict[str, Any]] = {
    "none": {},
    "big": {"big": True},
    "240 px": {"tile": (240, 240), "compression": "deflate"},
    "LZW": {"compression": "lzw"},
    "LZW, predictor": {"compression": "lzw", **PREDICTED},
    "deflate": {"compression": "deflate"},
    "deflate, predictor": {"compression": "adobe_deflate", **PREDICTED},
    "zstd": {"compression": "zstd"},
    "PackBits": {"compression": "packbits"},
    "WebP": {"compression": "webp", "compressionargs": {"level": 100, "lossless": True}},
    "JPEG 2000": {"compression": "jpeg2000", "compressionargs": {"level": 0}},
    "JPEG XL": {"compression": "jpegxl", "compressionargs": {"lossless": True}},
}


def encoded(path: Path, pixels: np.ndarray, big: bool = False, **how: Any) -> Path:
    with tifffile.TiffWriter(path, bigtiff=big) as tiff:
        tiff.write(pixels, **{**TILES, **how})
    return path


def pixels_of(path: Path) -> np.ndarray:
    with open_slide(path, table_mpp_um=0.5) as slide:
        assert (slide.damage, slide.warnings) == (None, ())
        return slide.read(Region(0, 0, 0, *slide.dimensions))


@pytest.mark.parametrize(
    ("encoding", "planes"),
    [
        (name, planes)
        for name in LOSSLESS
        for planes in ("contig", "separate")
        if (name, planes) != ("WebP", "separate")  # it has no planes of one colour
    ],
)
def test_lossless_encodings(tmp_path: Path, encoding: str, planes: str) -> None:
    how = LOSSLESS[encoding]
    pixels = PICTURE if planes == "contig" else np.moveaxis(PICTURE, -1, 0)
    path = encoded(tmp_path / "a.tif", pixels, planarconfig=planes, **how)
    np.testing.assert_array_equal(pixels_of(path), PICTURE)


@pytest.mark.parametrize("colours", ["RGB", "YCbCr 4:4:4", "YCbCr 4:2:0"])
def test_jpeg(tmp_path: Path, colours: str) -> None:
    how: dict[str, Any] = {
        "RGB": {"compressionargs": {"level": 95, "outcolorspace": "RGB"}},
        "YCbCr 4:4:4": {"compressionargs": {"level": 95}, "subsampling": (1, 1)},
        "YCbCr 4:2:0": {"compressionargs": {"level": 95}, "subsampling": (2, 2)},
    }[colours]
    path = encoded(tmp_path / "a.tif", SMOOTH, compression="jpeg", **how)
    assert np.abs(pixels_of(path).astype(int) - SMOOTH).mean() < 3  # JPEG at 95


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_alpha(tmp_path: Path, kind: str) -> None:
    alpha = np.clip(SMOOTH[..., :1], 16, 255)
    share = alpha / 255
    colours = PICTURE if kind == "unassalpha" else np.rint(PICTURE * share).astype(np.uint8)
    path = encoded(tmp_path / "a.tif", np.dstack([colours, alpha]), extrasamples=[kind])
    expected = PICTURE * share + 255 * (1 - share)
    assert np.abs(pixels_of(path) - expected).max() <= 2  # rounded when multiplied, and back


def test_a_sparse_file(tmp_path: Path) -> None:
    """Tiles that are left out are white."""
    path = encoded(tmp_path / "a.tif", PICTURE)
    with tifffile.TiffFile(path) as tiff:
        places = [tiff.pages.first.tags[tag] for tag in ("TileOffsets", "TileByteCounts")]
    with path.open("r+b") as file:
        for tag in places:
            file.seek(tag.valueoffset)
            file.write(bytes({3: 2, 4: 4}[tag.dtype]))
    expected = PICTURE.copy()
    expected[:128, :128] = 255
    np.testing.assert_array_equal(pixels_of(path), expected)


@pytest.mark.parametrize("mode", ["P", "CMYK"])
def test_palette_and_cmyk(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(SMOOTH)
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.tif"), np.asarray(image.convert("RGB")))


def test_a_crop_of_an_aperio_slide_in_strips_is_whole(tmp_path: Path) -> None:
    """Only TiffSlide opens such; that OpenSlide does not is no damage."""
    text = "Aperio Image Library v8\n81713x37331 [70791,733 460x300]|AppMag = 20|MPP = 0.5"
    path = encoded(tmp_path / "a.tif", PICTURE, description=text, tile=None, rowsperstrip=1)
    np.testing.assert_array_equal(pixels_of(path), PICTURE)
    with open_slide(path) as slide:
        assert (slide.reader, slide.mpp_um, slide.mpp_source) == ("tiffslide", 0.5, "slide")


# --- a reader of one's own


class Own(OpenSlideReader):
    """OpenSlide under another name; what it says of a file is for the test to choose."""

    name = "own"
    verdict: Exception | None = None

    def __init__(self, path: str) -> None:
        if self.verdict is not None:
            raise self.verdict
        super().__init__(path)

    @property
    def version(self) -> str:
        return "1.2.3"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Own]]:
    """The documented way: a module, and a line in choices.py."""
    monkeypatch.setattr(Own, "verdict", None)
    CHOICES.add("own", Own)
    yield Own
    CHOICES.remove("own")


def test_a_reader_of_ones_own_reads(own: type[Own], slide_path: Path) -> None:
    with open_slide(slide_path, "own") as slide, open_slide(slide_path, "openslide") as other:
        assert (slide.reader, slide.reader_version, slide.damage) == ("own", "1.2.3", None)
        region = Region(700, 500, 0, 30, 20)
        np.testing.assert_array_equal(slide.read(region), other.read(region))


def test_auto_tries_it_in_its_turn(own: type[Own], tmp_path: Path, faulty: Path) -> None:
    """It comes after those that are there; here they refuse the file."""
    with pytest.raises(UnreadableSlideError, match=r"tiffslide: .*; own: Unsupported"):
        open_slide(faulty / "bad_magic.svs")


def test_what_a_reader_says_of_a_file(
    own: type[Own], faulty: Path, slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "verdict", Refused("not today"))
    with pytest.raises(UnreadableSlideError, match=r"own: not today\)"):
        open_slide(faulty / "bad_magic.svs")
    with pytest.raises(UnreadableSlideError, match=r"own: not today\)"):
        open_slide(slide_path, "own")
    monkeypatch.setattr(own, "verdict", Declined("left to others"))
    with pytest.raises(UnreadableSlideError) as caught:
        open_slide(faulty / "bad_magic.svs")
    assert "own" not in str(caught.value)
    with pytest.raises(UnreadableSlideError) as caught:
        open_slide(slide_path, "own")
    assert str(caught.value) == (
        f"{slide_path}: the reader own does not take it: left to others; leave out --reader own"
    )


@pytest.mark.parametrize("mistake", [TypeError("a"), IndexError("b"), ValueError("c"), OSError()])
def test_a_mistake_of_ours_is_no_refusal(
    own: type[Own], slide_path: Path, mistake: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "verdict", mistake)
    with pytest.raises(type(mistake)) as caught:
        open_slide(slide_path, "own")
    assert caught.value is mistake


# --- mpp


@pytest.mark.parametrize("reader", READERS)
def test_mpp_stated_given_and_missing(data_dir: Path, reader: str) -> None:
    stated, silent = data_dir / CMU, data_dir / TCGA
    for path, table, default, expected in (
        (stated, None, None, (0.499, "slide")),
        (stated, None, 0.25, (0.499, "slide")),
        (stated, 0.3, 0.25, (0.3, "table")),
        (silent, None, 0.25, (0.25, "default")),
        (silent, 0.3, None, (0.3, "table")),
    ):
        with open_slide(path, reader, table_mpp_um=table, default_mpp_um=default) as slide:
            assert (slide.mpp_um, slide.mpp_source) == expected
    with pytest.raises(ResolutionError, match=r"--default-mpp.*--slides-csv") as caught:
        open_slide(silent, reader)
    assert str(caught.value).startswith(f"{silent}: ")


@pytest.mark.parametrize("reader", READERS)
def test_one_mpp_for_all_slides(data_dir: Path, reader: str) -> None:
    for name in (CMU, TCGA):
        with open_slide(data_dir / name, reader, override_mpp_um=0.3, default_mpp_um=0.25) as slide:
            assert (slide.mpp_um, slide.mpp_source) == (0.3, "override")
        with open_slide(data_dir / name, reader, table_mpp_um=0.4, override_mpp_um=0.3) as slide:
            assert (slide.mpp_um, slide.mpp_source) == (0.4, "table")


@pytest.mark.parametrize("suffix", ["ome.tif", "svs", "tif"])
def test_mpp_where_openslide_does_not_look(tmp_path: Path, suffix: str) -> None:
    how: dict[str, Any] = {
        "ome.tif": {
            "metadata": {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"},
            "resolution": (28, 28),
            "resolutionunit": "CENTIMETER",
        },
        "svs": {"description": "Motic V1.0.0|AppMag = 20|MPP = 0.500000"},
        "tif": {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"},
    }[suffix]
    path = encoded(tmp_path / f"a.{suffix}", PICTURE, **how)
    for reader in ("auto", "openslide", "tifffile", "tiffslide"):
        with open_slide(path, reader, default_mpp_um=0.25) as slide:
            assert (slide.mpp_um, slide.mpp_source) == (0.5, "slide")


def test_the_default_is_not_taken_in_silence(tmp_path: Path) -> None:
    """1 px/mm, as libvips writes it."""
    how: dict[str, Any] = {"resolution": (10, 10), "resolutionunit": "CENTIMETER"}
    path = encoded(tmp_path / "a.tif", PICTURE, **how)
    with open_slide(path, default_mpp_um=0.5) as slide:
        assert (slide.mpp_um, slide.mpp_source) == (0.5, "default")
        assert any("1000 um/px" in warning for warning in slide.warnings)


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    how: dict[str, Any] = {"resolution": (20000, 10000), "resolutionunit": "CENTIMETER"}
    path = encoded(tmp_path / "a.tif", PICTURE, **how)
    with pytest.raises(ResolutionError, match=r"mpp 0\.5 in x but 1 in y \(resolution tags\)"):
        open_slide(path, default_mpp_um=0.5)


@pytest.mark.parametrize("mpp_um", [0.0, -0.5, 0.01, 17.0, float("nan"), float("inf")])
def test_absurd_mpp_is_refused(slide_path: Path, data_dir: Path, mpp_um: float) -> None:
    with pytest.raises(ResolutionError, match=r"outside 0\.05-16"):
        open_slide(slide_path, table_mpp_um=mpp_um)
    with pytest.raises(ResolutionError, match=r"outside 0\.05-16"):
        open_slide(data_dir / TCGA, default_mpp_um=mpp_um)


def test_a_print_resolution_is_no_mpp(data_dir: Path) -> None:
    with pytest.raises(ResolutionError, match=r"352\.\d+ \(slide\).*--slides-csv"):
        open_slide(data_dir / BOXES)
    with open_slide(data_dir / BOXES, table_mpp_um=0.5) as slide:
        assert slide.dimensions == (300, 250)


@pytest.mark.parametrize("reader", OF_JPEG)
@pytest.mark.parametrize("fault", ["mpp_removed", "mpp_garbage", "mpp_10x"])
def test_faulty_mpp(faulty: Path, fault: str, reader: str) -> None:
    path = faulty / f"{fault}.svs"
    with pytest.raises(ResolutionError) as caught:
        open_slide(path, reader)
    assert "--slides-csv" in str(caught.value)
    if fault == "mpp_10x":
        assert "4.99" in str(caught.value)
        assert "objective power 20" in str(caught.value)
        with pytest.raises(ResolutionError):
            open_slide(path, reader, default_mpp_um=0.5)
    else:
        with open_slide(path, reader, default_mpp_um=0.5) as slide:
            assert (slide.mpp_um, slide.mpp_source) == (0.5, "default")
    with open_slide(path, reader, table_mpp_um=0.499) as slide:
        assert (slide.mpp_um, slide.mpp_source) == (0.499, "table")
