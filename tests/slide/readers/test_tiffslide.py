"""TiffSlide over a URL, and on files that it was not written for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wsi_norm.errors import ReadError, UnreadableSlideError
from wsi_norm.geometry import Region
from wsi_norm.slide import open_slide

APERIO = "Aperio Image Library\r\n256x256|AppMag = 20|MPP = 0.5"
PHILIPS = '<?xml version="1.0"?><DataObject ObjectType="DPUfsImport">{}</DataObject>'
LEICA = (
    '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">{}</scn>'
)


def test_a_url_is_read_by_tiffslide(slide_path: Path) -> None:
    """Served from fsspec's memory file system: no byte comes from a path of this machine."""
    import fsspec

    fsspec.filesystem("memory").pipe("/bucket/remote.svs", slide_path.read_bytes())
    region = Region(700, 500, 0, 300, 200)
    with open_slide("memory://bucket/remote.svs") as remote, open_slide(slide_path) as local:
        assert remote.reader == "tiffslide"
        assert remote.damage is None
        assert remote.mpp_um == pytest.approx(local.mpp_um)
        assert remote.fingerprint() == local.fingerprint()
        np.testing.assert_array_equal(remote.read(region), local.read(region))


def tiff(path: Path, pixels: Any = None, **how: Any) -> Path:
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
        how["photometric"] = "rgb"
    how = {"tile": (64, 64), "metadata": None, "software": False, **how}
    tifffile.imwrite(path, pixels, **how)
    return path


def overwritten(path: Path, tag: str, value: int) -> Path:
    """The same file with the first value of a tag of two or four bytes changed."""
    with tifffile.TiffFile(path) as opened:
        found = opened.pages.first.tags[tag]
    with path.open("r+b") as file:
        file.seek(found.valueoffset)
        file.write(value.to_bytes({3: 2, 4: 4}[found.dtype], "little"))
    return path


@pytest.mark.parametrize(
    ("description", "software", "words"),
    [
        (PHILIPS.format(""), "Philips DP v1.0", "StopIteration"),
        (PHILIPS.format("&"), "Philips DP v1.0", "not well-formed"),
        (LEICA.format("<collection/>"), False, "sizeX"),
        (LEICA.format("<collection>"), False, "mismatched tag"),
    ],
)
def test_descriptions_that_it_does_not_understand(
    tmp_path: Path, description: str, software: Any, words: str
) -> None:
    path = tiff(tmp_path / "a.tif", description=description, software=software)
    with pytest.raises(UnreadableSlideError, match=words) as caught:
        open_slide(path, "tiffslide", table_mpp_um=0.5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        ("ResolutionUnit", 77, "no attribute 'name'"),
        ("TileOffsets", 2**32 - 1, "."),
        ("ImageLength", 0, "."),
        ("SamplesPerPixel", 0, "."),
    ],
)
def test_damaged_tags(tmp_path: Path, tag: str, value: int, words: str) -> None:
    """Nothing but our errors, on opening or on reading."""
    path = overwritten(tiff(tmp_path / "a.svs", description=APERIO.replace("MPP", "M")), tag, value)
    with (
        pytest.raises((UnreadableSlideError, ReadError), match=words) as caught,
        open_slide(path, "tiffslide", table_mpp_um=0.5) as slide,
    ):
        slide.read(Region(0, 0, 0, *slide.dimensions))
    assert "\n" not in str(caught.value)


def test_a_damaged_tile(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.svs", description=APERIO, compression="deflate")
    with tifffile.TiffFile(path) as opened:
        offset = opened.pages.first.dataoffsets[5]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(100))
    with open_slide(path, "tiffslide") as slide:
        with pytest.raises(ReadError, match="DEFLATE"):
            slide.read(Region(64, 64, 0, 64, 64))
        assert slide.read(Region(0, 0, 0, 64, 64)).any()


@pytest.mark.parametrize("shape", [(256, 256), (256, 256, 3)])
def test_deep_pixels_are_never_clipped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 4000, np.uint16)
    kind = "rgb" if len(shape) == 3 else "minisblack"
    path = tiff(tmp_path / "a.svs", pixels, description=APERIO, photometric=kind)
    with open_slide(path, "tiffslide") as slide, pytest.raises(ReadError):
        slide.read(Region(0, 0, 0, 64, 64))


def test_a_damaged_colour_profile_is_still_one(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.svs", description=APERIO, iccprofile=b"no profile at all")
    with open_slide(path, "tiffslide") as slide:
        assert slide.metadata.icc_profile
