"""What can be stained tissue on clear glass: real slides, artefacts, fields, wrong decodings."""

import numpy as np
import pytest
from PIL import Image

from tests.overviews import (
    CMU,
    GLASS_ONLY,
    GLASSES,
    PEN_ONLY,
    REAL,
    TINTS,
    artefact,
    as_jpeg,
    fields,
    glass,
    overview,
    read_rgb,
    shaded_glass,
    tinted,
)
from wsi_norm.tissue import colour_problem, is_fluorescence

DICOM = "slides/dicom/cmu-1-small-region-dicom/level-0-frames-0-30.dcm"
DAPI = "slides/fluorescence/test3-DAPI-2-387.ndpi"
TRITC = "slides/fluorescence/test3-TRITC-2-560.ndpi"


@pytest.mark.parametrize(("name", "downsample"), REAL)
def test_real_slides_have_no_colour_problem(data_dir, name, downsample):
    thumbnail = overview(data_dir / name, downsample)
    assert colour_problem(thumbnail) is None
    assert not is_fluorescence(thumbnail)


@pytest.mark.parametrize("tint", TINTS)
def test_tinted_slides_have_no_colour_problem(data_dir, tint):
    assert colour_problem(tinted(overview(data_dir / CMU, 16), tint)) is None


@pytest.mark.parametrize("colour", GLASSES)
@pytest.mark.parametrize("shading", [0.0, 0.12])
def test_glass_has_no_colour_problem(colour, shading):
    assert colour_problem(shaded_glass(colour, shading)) is None


def test_black_padding_is_no_fluorescence():
    image = glass()
    image[:, :140] = 0
    image[50:150, 160:220] = (200, 120, 170)
    assert not is_fluorescence(image)


@pytest.mark.parametrize("fill", [0, 20, 255])
@pytest.mark.parametrize("kind", ["biopsy", "field", "glass"])
def test_padding_around_a_small_scan_is_no_fluorescence(data_dir, kind, fill):
    """A scan of 0.1 % of the area; the field is the darkest of those at hand, without glass."""
    scan = {
        "biopsy": lambda: overview(data_dir / CMU, 32)[:60, :60],
        "field": lambda: read_rgb(
            data_dir / "tiles" / "monuseg" / "images" / "TCGA-49-4488-01Z-00-DX1.webp"
        )[:60, :60],
        "glass": lambda: glass(shape=(60, 60)),
    }[kind]()
    image = np.full((1900, 1900, 3), fill, np.uint8)
    image[300:360, 900:960] = scan
    assert not is_fluorescence(as_jpeg(image, 80))


def test_padding_does_not_hide_fluorescence(data_dir):
    image = np.zeros((900, 900, 3), np.uint8)
    thumbnail = overview(data_dir / DAPI, 32)
    image[: thumbnail.shape[0], : thumbnail.shape[1]] = thumbnail
    assert is_fluorescence(image)


@pytest.mark.parametrize("name", [DAPI, TRITC])
def test_fluorescence_is_recognised(data_dir, name):
    thumbnail = overview(data_dir / name, 32)
    assert is_fluorescence(thumbnail)
    assert colour_problem(thumbnail) is not None


@pytest.mark.parametrize("downsample", [8, 16, 64])
def test_ycbcr_dicom_is_flagged(data_dir, downsample):
    problem = colour_problem(overview(data_dir / DICOM, downsample))
    assert problem is not None
    assert problem.startswith("the glass is not neutral (RGB 2")


def test_most_fields_taken_for_ycbcr_are_flagged(data_dir):
    paths = [path for path in fields(data_dir) if path.suffix != ".webp"]
    wrong = [
        colour_problem(np.asarray(Image.fromarray(read_rgb(path)).convert("YCbCr")))
        for path in paths
    ]
    assert np.mean([problem is not None for problem in wrong]) > 0.8


@pytest.mark.parametrize("name", [*GLASS_ONLY, *PEN_ONLY, "wsi-blue-pen"])
def test_artefacts_have_no_colour_problem(data_dir, name):
    image = artefact(data_dir, name)
    assert colour_problem(image) is None
    assert not is_fluorescence(image)


def test_fields_have_no_colour_problem(data_dir):
    for path in fields(data_dir):
        image = read_rgb(path)
        assert colour_problem(image) is None, path
        assert not is_fluorescence(image), path


def test_dark_and_black_images_are_colour_problems():
    black = np.zeros((32, 32, 3), np.uint8)
    assert colour_problem(black) == "the image is black everywhere"
    assert "dark (RGB 60/50/55)" in str(colour_problem(black + np.uint8([60, 50, 55])))
    assert colour_problem(np.full((8, 8, 3), 255, np.uint8)) is None


def test_rgb_taken_for_ycbcr_and_one_channel_taken_for_three_are_problems() -> None:
    """Glass of 255/124/255, and a field of tissue in grey."""
    rng = np.random.default_rng(0)
    magenta = rng.normal((255, 124, 255), 2, (60, 80, 3)).clip(0, 255).astype(np.uint8)
    assert "not neutral" in (colour_problem(magenta) or "")
    grey = rng.normal(200, 40, (60, 80, 1)).clip(20, 245).astype(np.uint8).repeat(3, axis=2)
    assert "grey everywhere" in (colour_problem(grey) or "")
