"""Tissue, ink and glass on real overviews, artefacts and fields; geometry against plain loops."""

import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsi_norm.errors import ConfigError
from wsi_norm.tissue import (
    Polygon,
    colour_problem,
    is_fluorescence,
    pen_mask,
    polygons_mask,
    read_geojson,
    read_mask_image,
    tissue_fraction,
    tissue_mask,
    white_level,
)

CMU = "slides/real/CMU-1-Small-Region.svs"
TCGA = "slides/real/TCGA-CR-7395-01A-01-TS1.svs"
DICOM = "slides/dicom/cmu-1-small-region-dicom/level-0-frames-0-30.dcm"
DAPI = "slides/fluorescence/test3-DAPI-2-387.ndpi"
TRITC = "slides/fluorescence/test3-TRITC-2-560.ndpi"
GLASS_ONLY = ["almost-white-1", "almost-white-ihc", "no-tissue", "no-tissue-line"]
PEN_ONLY = ["no-tissue-green-pen", "no-tissue-red-pen"]


def read_rgb(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def artefact(data_dir: Path, name: str) -> np.ndarray:
    return read_rgb(data_dir / "slides" / "artefacts" / f"{name}.png")


def overview(path: Path, downsample: float) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
        size = (int(width / downsample), int(height / downsample))
        return np.asarray(slide.get_thumbnail(size).convert("RGB"))


def as_jpeg(rgb: np.ndarray, quality: int = 40) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def glass(colour=(243, 243, 243), shape=(200, 240), noise=1.5, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.asarray(colour) + rng.normal(0, noise, (*shape, 3))
    return np.clip(values, 0, 254).round().astype(np.uint8)


def fields(data_dir: Path) -> list[Path]:
    """All samples, all MoNuSeg fields, every 29th mitosis patch."""
    tiles = data_dir / "tiles"
    mitosis = sorted((tiles / "mitosis").glob("*/*.png"))[::29]
    monuseg = sorted((tiles / "monuseg" / "images").glob("*.webp"))
    assert len(monuseg) == 24
    assert len(mitosis) > 50
    return [*sorted((tiles / "samples").iterdir()), *monuseg, *mitosis]


# --- real slides


@pytest.mark.parametrize("method", ["otsu", "hsv"])
@pytest.mark.parametrize(
    ("name", "downsample", "mpp_um", "least", "most"),
    [
        (CMU, 16, 8.0, 0.30, 0.45),
        (CMU, 32, 16.0, 0.30, 0.45),
        (TCGA, 32, 8.0, 0.58, 0.70),
        (TCGA, 64, 16.0, 0.58, 0.70),
    ],
)
def test_tissue_share_of_real_slides(data_dir, method, name, downsample, mpp_um, least, most):
    thumbnail = overview(data_dir / name, downsample)
    mask = tissue_mask(thumbnail, mpp_um, method)
    assert mask.dtype == bool
    assert mask.shape == thumbnail.shape[:2]
    assert least < mask.mean() < most
    assert colour_problem(thumbnail) is None
    assert not is_fluorescence(thumbnail)
    assert pen_mask(thumbnail).mean() < 0.01


def test_known_places_on_cmu(data_dir):
    mask = tissue_mask(overview(data_dir / CMU, 16), 8.0)
    assert mask[110:170, 62:75].mean() > 0.95  # dermis and epidermis in the middle
    assert mask[:40, :30].mean() == 0  # glass, upper left
    assert not mask[:30, 115:].any()  # glass, upper right
    assert mask[60:75, 5:50].any()  # the thin strand on the left


def test_known_places_on_tcga(data_dir):
    thumbnail = overview(data_dir / TCGA, 32)
    mask = tissue_mask(thumbnail, 8.0)
    assert not mask[:14, :85].any()  # off-white glass and pure white, upper left
    assert not mask[100:, :55].any()  # the same, lower left
    assert mask[40:70, 15:60].all()
    np.testing.assert_allclose(white_level(thumbnail) * 255, [241, 236, 239], atol=5)


def test_masks_agree_between_resolutions(data_dir):
    fine = tissue_mask(overview(data_dir / CMU, 8), 4.0)
    coarse = tissue_mask(overview(data_dir / CMU, 32), 16.0)
    rows = np.arange(fine.shape[0]) * coarse.shape[0] // fine.shape[0]
    columns = np.arange(fine.shape[1]) * coarse.shape[1] // fine.shape[1]
    enlarged = coarse[np.ix_(rows, columns)]
    dice = 2 * (fine & enlarged).sum() / (fine.sum() + enlarged.sum())
    assert dice > 0.93


def test_field_full_of_tissue_is_all_tissue(data_dir):
    crop = overview(data_dir / TCGA, 32)[40:70, 15:60]
    assert tissue_mask(crop, 8.0).mean() > 0.98
    # Corners too: a distance transform without any ink must not take one for ink.
    for mpp_um in (1.0, 8.0, 64.0):
        uniform = np.full((300, 300, 3), (211, 125, 169), np.uint8)
        assert tissue_mask(uniform, mpp_um).all()
        assert not pen_mask(uniform).any()


def test_saturated_glass_is_no_tissue(data_dir):
    thumbnail = overview(data_dir / CMU, 16)
    clipped = np.clip(thumbnail.astype(float) * 255 / 243, 0, 255).astype(np.uint8)
    difference = tissue_mask(clipped, 8.0) ^ tissue_mask(thumbnail, 8.0)
    assert difference.mean() < 0.02


@pytest.mark.parametrize("tint", [(240, 225, 205), (215, 225, 243), (205, 205, 205)])
def test_tinted_glass_changes_little(data_dir, tint):
    thumbnail = overview(data_dir / CMU, 16)
    tinted = np.clip(thumbnail * (np.asarray(tint) / 245), 0, 255).astype(np.uint8)
    assert colour_problem(tinted) is None
    difference = tissue_mask(tinted, 8.0) ^ tissue_mask(thumbnail, 8.0)
    assert difference.mean() < 0.02
    assert pen_mask(tinted).mean() < 0.01


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


# --- artefacts


@pytest.mark.parametrize("method", ["otsu", "hsv"])
@pytest.mark.parametrize("mpp_um", [2.0, 8.0, 16.0])
@pytest.mark.parametrize("name", [*GLASS_ONLY, *PEN_ONLY])
def test_glass_and_pen_alone_are_no_tissue(data_dir, name, mpp_um, method):
    assert tissue_mask(artefact(data_dir, name), mpp_um, method).mean() < 0.002


@pytest.mark.parametrize("name", ["almost-white-1", "almost-white-ihc", "no-tissue"])
def test_glass_has_no_pen(data_dir, name):
    assert not pen_mask(artefact(data_dir, name)).any()


@pytest.mark.parametrize("name", [*GLASS_ONLY, *PEN_ONLY, "wsi-blue-pen"])
def test_artefacts_have_no_colour_problem(data_dir, name):
    image = artefact(data_dir, name)
    assert colour_problem(image) is None
    assert not is_fluorescence(image)


# Boxes (rows, columns) drawn by eye around the ink, and beside it.
@pytest.mark.parametrize(
    ("name", "ink", "clear"),
    [
        ("no-tissue-green-pen", np.s_[240:300, 200:300], np.s_[:60, :100]),
        ("no-tissue-red-pen", np.s_[400:480, 40:250], np.s_[:40, 200:]),
        ("no-tissue-red-pen", np.s_[380:480, 400:500], np.s_[:40, 200:]),
        ("high-nuclei-score-red-pen-level1", np.s_[180:240, 260:310], np.s_[300:, :400]),
        ("high-nuclei-score-red-pen-level1", np.s_[40:100, 240:280], np.s_[:100, :180]),
        ("medium-nuclei-score-green-pen-level1", np.s_[150:240, 360:480], np.s_[380:, 200:]),
        ("medium-nuclei-score-green-pen-level1", np.s_[100:180, 10:50], np.s_[380:, 200:]),
        ("wsi-blue-pen", np.s_[66:75, 150:170], np.s_[:, :130]),
    ],
)
def test_ink_is_pen_and_what_lies_beside_is_not(data_dir, name, ink, clear):
    image = artefact(data_dir, name)
    pen = pen_mask(image)
    assert pen[ink].mean() > 0.9
    assert pen[clear].mean() < 0.02
    assert tissue_mask(image, 4.0)[ink].mean() < 0.02


def test_tissue_beside_pen_is_kept(data_dir):
    red = tissue_mask(artefact(data_dir, "high-nuclei-score-red-pen-level1"), 4.0)
    assert red[300:, :400].mean() > 0.9
    green = tissue_mask(artefact(data_dir, "medium-nuclei-score-green-pen-level1"), 4.0)
    assert green[430:, 300:500].mean() > 0.9
    blue = tissue_mask(artefact(data_dir, "wsi-blue-pen"), 60.0)
    assert blue[5:35, 100:112].mean() > 0.9


@pytest.mark.parametrize("colour", [(30, 60, 200), (0, 130, 80), (220, 20, 30), (25, 25, 28)])
def test_synthetic_marker_on_glass_and_tissue(data_dir, colour):
    thumbnail = overview(data_dir / CMU, 16).copy()
    thumbnail[20:30, 5:60] = colour
    thumbnail[140:150, 20:120] = colour
    marked = as_jpeg(thumbnail, 85)
    pen = pen_mask(marked)
    assert pen[21:29, 7:58].mean() > 0.95
    assert pen[141:149, 22:118].mean() > 0.95
    assert pen.mean() < 0.12
    assert not tissue_mask(marked, 8.0)[20:30, 5:60].any()
    assert colour_problem(marked) is None


# --- fields of H&E


def test_fields_have_no_colour_problem_and_hardly_any_pen(data_dir):
    for path in fields(data_dir):
        image = read_rgb(path)
        assert colour_problem(image) is None, path
        assert not is_fluorescence(image), path
        assert pen_mask(image).mean() < 0.03, path


# --- generated glass


@pytest.mark.parametrize("colour", [(243, 243, 243), (240, 225, 205), (225, 232, 245), (180,) * 3])
@pytest.mark.parametrize("shading", [0.0, 0.12])
@pytest.mark.parametrize("method", ["otsu", "hsv"])
def test_pure_glass_has_no_tissue(colour, shading, method):
    ramp = 1 - shading * np.linspace(0, 1, 240)[None, :, None]
    image = as_jpeg((glass(colour) * ramp).astype(np.uint8))
    assert not tissue_mask(image, 8.0, method).any()
    assert colour_problem(image) is None
    expected = np.asarray(colour) * (1 - shading / 2)
    np.testing.assert_allclose(white_level(image) * 255, expected, rtol=0.02 + shading / 2)


def test_small_pale_tissue_beside_white_padding_is_found():
    image = glass((241, 236, 239))
    image[:100] = 255
    image[120:160, 40:80] = (226, 180, 208)
    truth = np.zeros(image.shape[:2], bool)
    truth[120:160, 40:80] = True
    assert (tissue_mask(as_jpeg(image, 90), 8.0) ^ truth).sum() < 0.1 * truth.sum()


def test_black_padding_is_no_tissue_and_does_not_shift_the_white():
    image = glass()
    image[:, :140] = 0
    image[50:150, 160:220] = (200, 120, 170)
    mask = tissue_mask(image, 8.0)
    assert not mask[:, :140].any()
    assert mask[55:145, 165:215].all()
    np.testing.assert_allclose(white_level(image) * 255, 243, atol=1)
    assert not is_fluorescence(image)


def test_specks_and_holes_follow_micrometres():
    image = glass(noise=0.0)
    image[20:180, 100:220] = (200, 120, 170)
    image[50:58, 150:158] = 243  # 64 px
    image[90:130, 140:180] = 243  # 1600 px
    image[50:58, 30:38] = (200, 120, 170)  # 64 px
    fine, coarse = tissue_mask(image, 8.0), tissue_mask(image, 32.0)
    # 64 px are 4096 um2 at 8 um a pixel, below 10 000; 65 536 um2 at 32, above.
    assert fine[50:58, 150:158].all()
    assert not fine[50:58, 30:38].any()
    assert not coarse[50:58, 150:158].any()
    assert coarse[50:58, 30:38].all()
    assert not fine[90:130, 140:180].any()
    assert not coarse[90:130, 140:180].any()


def test_none_is_all_and_tiny_images_work():
    assert tissue_mask(glass(), 8.0, "none").all()
    for side in (1, 2, 16):
        for value in (0, 128, 243, 255):
            image = np.full((side, side, 3), value, np.uint8)
            for method in ("otsu", "hsv"):
                assert tissue_mask(image, 8.0, method).shape == (side, side)
            assert white_level(image).shape == (3,)


def test_white_level_without_glass_and_with_a_tissue_mask():
    image = np.full((60, 60, 3), (210, 120, 170), np.uint8)
    np.testing.assert_allclose(white_level(image), [210 / 255, 0.5, 170 / 255], atol=1e-9)
    image[:30] = (240, 238, 236)
    image[:10] = (252, 252, 252)
    tissue = np.zeros((60, 60), bool)
    tissue[:10] = True
    np.testing.assert_allclose(white_level(image, tissue) * 255, [240, 238, 236])
    np.testing.assert_array_equal(white_level(np.full((4, 4, 3), 255, np.uint8)), 1)


def test_dark_and_black_images_are_colour_problems():
    black = np.zeros((32, 32, 3), np.uint8)
    assert colour_problem(black) == "the image is black everywhere"
    assert "dark (RGB 60/50/55)" in str(colour_problem(black + np.uint8([60, 50, 55])))
    assert colour_problem(np.full((8, 8, 3), 255, np.uint8)) is None


# --- geometry

edges = st.floats(-4, 14, allow_nan=False, width=32)


def naive_fraction(mask: np.ndarray, box) -> float:
    x0, y0, x1, y1 = map(float, box)
    covered = 0.0
    for row, column in np.argwhere(mask):
        width = max(0.0, min(x1, column + 1) - max(x0, column))
        height = max(0.0, min(y1, row + 1) - max(y0, row))
        covered += width * height
    area = max(0.0, x1 - x0) * max(0.0, y1 - y0)
    return covered / area if area else 0.0


@settings(deadline=None, max_examples=150, database=None)
@given(
    bits=st.lists(st.booleans(), min_size=77, max_size=77),
    boxes=st.lists(st.tuples(edges, edges, edges, edges), max_size=6),
)
def test_tissue_fraction_equals_a_loop_over_pixels(bits, boxes):
    mask = np.asarray(bits).reshape(7, 11)
    # Float32 shares of slivers thinner than this mean nothing.
    boxes = [b for b in boxes if not (0 < b[2] - b[0] < 1e-4 or 0 < b[3] - b[1] < 1e-4)]
    got = tissue_fraction(mask, np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
    assert got.dtype == np.float32
    assert got.shape == (len(boxes),)
    np.testing.assert_allclose(got, [naive_fraction(mask, box) for box in boxes], atol=1e-5)


def test_tissue_fraction_by_hand():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    boxes = [[0, 0, 4, 4], [1, 1, 3, 3], [0.5, 1, 1.5, 2], [-4, 0, 4, 4], [9, 9, 10, 10], [2] * 4]
    assert tissue_fraction(mask, np.asarray(boxes, float)).tolist() == [0.25, 1, 0.5, 0.125, 0, 0]


def inside_ring(ring, x: float, y: float) -> bool:
    """Ray casting."""
    closed = [*map(tuple, ring), tuple(ring[0])]
    crossings = 0
    for (xa, ya), (xb, yb) in pairwise(closed):
        if (ya > y) != (yb > y) and x < xa + (y - ya) / (yb - ya) * (xb - xa):
            crossings += 1
    return crossings % 2 == 1


def test_polygons_with_holes_equal_ray_casting():
    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 11))
    star = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(60, 150, (11, 1))
    star += [201.3, 170.7]
    hole = np.asarray([[181.1, 150.2], [221.7, 152.9], [207.3, 188.4]])
    small = np.asarray([[188.4, 154.3], [212.2, 155.9], [201.6, 172.1]])
    polygons = [Polygon(star, (hole,)), Polygon(small)]
    got = polygons_mask(polygons, (40, 50), (8.0, 9.0))
    expected = np.zeros((40, 50), bool)
    for row, column in np.ndindex(40, 50):
        x, y = (column + 0.5) * 8.0, (row + 0.5) * 9.0
        in_star = inside_ring(star, x, y) and not inside_ring(hole, x, y)
        expected[row, column] = in_star or inside_ring(small, x, y)
    np.testing.assert_array_equal(got, expected)
    assert 0.1 < got.mean() < 0.6
    assert got.sum() > polygons_mask(polygons[:1], (40, 50), (8.0, 9.0)).sum()


def test_polygon_partly_outside_is_clipped():
    square = Polygon(np.asarray([[-50.0, -50.0], [20.0, -50.0], [20.0, 20.0], [-50.0, 20.0]]))
    mask = polygons_mask([square], (6, 6), (5.0, 10.0))
    assert mask[:2, :4].all()
    assert mask.sum() == 8


# --- files

SQUARE = [[0, 0], [100, 0], [100, 80], [0, 80], [0, 0]]
HOLE = [[10, 10], [20, 10], [20, 20], [10, 10]]
POLYGON = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}
MULTI = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [HOLE]]}
POINT = {"type": "Point", "coordinates": [1, 2]}


def feature(geometry):
    return {"type": "Feature", "properties": {"objectType": "annotation"}, "geometry": geometry}


@pytest.mark.parametrize(
    ("document", "holes"),
    [
        (POLYGON, [1]),
        (MULTI, [1, 0]),
        (feature(POLYGON), [1]),
        ([feature(POLYGON), feature(MULTI), feature(None)], [1, 1, 0]),
        ({"type": "FeatureCollection", "features": [feature(POINT), feature(POLYGON)]}, [1]),
        ({"type": "GeometryCollection", "geometries": [POINT, POLYGON]}, [1]),
    ],
)
def test_geojson_forms(tmp_path, document, holes):
    path = tmp_path / "regions.geojson"
    path.write_text(json.dumps(document), encoding="utf-8-sig")
    polygons = read_geojson(path)
    assert [len(polygon.holes) for polygon in polygons] == holes
    np.testing.assert_array_equal(polygons[0].exterior, SQUARE)
    np.testing.assert_array_equal(polygons[0].holes[0], HOLE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<html>", "not a GeoJSON file"),
        ("\x00\x01", "not a GeoJSON file"),
        ("[" * 100_000, "not a GeoJSON file"),
        (json.dumps(feature(POINT)), "no Polygon"),
        ("[]", "no Polygon"),
        ("3", "no Polygon"),
        ('{"type": "Polygon"}', "damaged"),
        ('{"type": "Polygon", "coordinates": []}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[[0], [1], [2]]]}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, NaN]]]}', "damaged"),
        ('{"type": "Polygon", "coordinates": [[1, 2, 3]]}', "damaged"),
        ('{"type": "Polygon", "coordinates": {"a": 1}}', "damaged"),
    ],
)
def test_bad_geojson_names_the_file_in_one_line(tmp_path, text, reason):
    path = tmp_path / "regions.geojson"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_geojson(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_are_config_errors(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        for read in (read_geojson, lambda name: read_mask_image(name, (4, 4))):
            with pytest.raises(ConfigError) as caught:
                read(path)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "RGBA", "P"])
def test_mask_image_modes(tmp_path, mode, suffix):
    truth = np.zeros((6, 8), bool)
    truth[2:4, 1:7] = True
    if mode == "I;16":
        image = Image.fromarray(truth.astype(np.uint16) * 256)
    else:
        image = Image.fromarray(truth.astype(np.uint8) * 255).convert(mode)
    image.save(tmp_path / f"mask.{suffix}")
    np.testing.assert_array_equal(read_mask_image(tmp_path / f"mask.{suffix}", (6, 8)), truth)


@pytest.mark.parametrize("shape", [(12, 24), (3, 4), (17, 5), (1, 1)])
def test_mask_image_is_resized_like_pillow_nearest(tmp_path, shape):
    truth = np.random.default_rng(1).random((6, 8)) > 0.5
    image = Image.fromarray(truth.astype(np.uint8))
    image.save(tmp_path / "mask.png")
    expected = np.asarray(image.resize(shape[::-1], Image.Resampling.NEAREST)) > 0
    np.testing.assert_array_equal(read_mask_image(tmp_path / "mask.png", shape), expected)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_unreadable_mask_image_names_the_file(tmp_path, content):
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mask\.png: cannot read the mask image"):
        read_mask_image(path, (4, 4))


def test_rgb_taken_for_ycbcr_and_one_channel_taken_for_three_are_problems() -> None:
    """Glass of 255/124/255, and a field of tissue in grey."""
    rng = np.random.default_rng(0)
    magenta = rng.normal((255, 124, 255), 2, (60, 80, 3)).clip(0, 255).astype(np.uint8)
    assert "not neutral" in (colour_problem(magenta) or "")
    grey = rng.normal(200, 40, (60, 80, 1)).clip(20, 245).astype(np.uint8).repeat(3, axis=2)
    assert "grey everywhere" in (colour_problem(grey) or "")
