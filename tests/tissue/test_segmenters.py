"""Tissue on real overviews, artefacts and drawn glass, and a segmenter of one's own."""

import numpy as np
import pytest
from skimage.filters import threshold_otsu

from tests.overviews import (
    CMU,
    GLASS_ONLY,
    GLASSES,
    PEN_ONLY,
    TCGA,
    TINTS,
    artefact,
    as_jpeg,
    glass,
    overview,
    shaded_glass,
    tinted,
)
from wsi_norm.choices import SEGMENTERS
from wsi_norm.tissue import as_found, tissue_mask
from wsi_norm.tissue.segmenters import _otsu


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


def test_known_places_on_cmu(data_dir):
    mask = tissue_mask(overview(data_dir / CMU, 16), 8.0)
    assert mask[110:170, 62:75].mean() > 0.95  # dermis and epidermis in the middle
    assert mask[:40, :30].mean() == 0  # glass, upper left
    assert not mask[:30, 115:].any()  # glass, upper right
    assert mask[60:75, 5:50].any()  # the thin strand on the left


def test_known_places_on_tcga(data_dir):
    mask = tissue_mask(overview(data_dir / TCGA, 32), 8.0)
    assert not mask[:14, :85].any()  # off-white glass and pure white, upper left
    assert not mask[100:, :55].any()  # the same, lower left
    assert mask[40:70, 15:60].all()


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


def test_saturated_glass_is_no_tissue(data_dir):
    thumbnail = overview(data_dir / CMU, 16)
    clipped = np.clip(thumbnail.astype(float) * 255 / 243, 0, 255).astype(np.uint8)
    difference = tissue_mask(clipped, 8.0) ^ tissue_mask(thumbnail, 8.0)
    assert difference.mean() < 0.02


@pytest.mark.parametrize("tint", TINTS)
def test_tinted_glass_changes_little(data_dir, tint):
    thumbnail = overview(data_dir / CMU, 16)
    difference = tissue_mask(tinted(thumbnail, tint), 8.0) ^ tissue_mask(thumbnail, 8.0)
    assert difference.mean() < 0.02


@pytest.mark.parametrize("method", ["otsu", "hsv"])
@pytest.mark.parametrize("mpp_um", [2.0, 8.0, 16.0])
@pytest.mark.parametrize("name", [*GLASS_ONLY, *PEN_ONLY])
def test_glass_and_pen_alone_are_no_tissue(data_dir, name, mpp_um, method):
    assert tissue_mask(artefact(data_dir, name), mpp_um, method).mean() < 0.002


def test_tissue_beside_pen_is_kept(data_dir):
    red = tissue_mask(artefact(data_dir, "high-nuclei-score-red-pen-level1"), 4.0)
    assert red[300:, :400].mean() > 0.9
    green = tissue_mask(artefact(data_dir, "medium-nuclei-score-green-pen-level1"), 4.0)
    assert green[430:, 300:500].mean() > 0.9
    blue = tissue_mask(artefact(data_dir, "wsi-blue-pen"), 60.0)
    assert blue[5:35, 100:112].mean() > 0.9


@pytest.mark.parametrize("colour", GLASSES)
@pytest.mark.parametrize("shading", [0.0, 0.12])
@pytest.mark.parametrize("method", ["otsu", "hsv"])
def test_pure_glass_has_no_tissue(colour, shading, method):
    assert not tissue_mask(shaded_glass(colour, shading), 8.0, method).any()


def test_small_pale_tissue_beside_white_padding_is_found():
    image = glass((241, 236, 239))
    image[:100] = 255
    image[120:160, 40:80] = (226, 180, 208)
    truth = np.zeros(image.shape[:2], bool)
    truth[120:160, 40:80] = True
    assert (tissue_mask(as_jpeg(image, 90), 8.0) ^ truth).sum() < 0.1 * truth.sum()


def test_black_padding_is_no_tissue():
    image = glass()
    image[:, :140] = 0
    image[50:150, 160:220] = (200, 120, 170)
    mask = tissue_mask(image, 8.0)
    assert not mask[:, :140].any()
    assert mask[55:145, 165:215].all()


# --- drawn at 1 um/px, seen at 8


SHADED = 1 - 0.18 * np.linspace(-1, 1, 1600)[None, :, None] ** 2
"""Light that falls off to the left and to the right."""


def densities(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Of a section whose eosin and nuclei vary from place to place; about 0.45 at its densest."""
    rng = np.random.default_rng(seed)
    height, width = shape

    def patches(edge: int) -> np.ndarray:
        coarse = rng.random((height // edge + 1, width // edge + 1))
        return np.kron(coarse, np.ones((edge, edge)))[:height, :width, None]

    eosin = (0.15 + 0.3 * patches(32)) * np.array([0.07, 0.99, 0.11])
    return eosin + (patches(7) > 0.8) * np.array([0.40, 0.43, 0.18])


def seen(density: np.ndarray, light: float | np.ndarray = 1.0, seed: int = 1) -> np.ndarray:
    """What an overview of 8 um/px shows of optical densities at 1 um/px."""
    noise = np.random.default_rng(seed).normal(0, 1.5, density.shape)
    pixels = np.array([243, 241, 243]) * light * 10.0**-density + noise
    height, width, _ = density.shape
    averaged = pixels.reshape(height // 8, 8, width // 8, 8, 3).mean(axis=(1, 3))
    return as_jpeg(np.clip(averaged, 0, 254).round().astype(np.uint8), 85)


def strong_section() -> np.ndarray:
    """Densities of 800 x 1600 um of glass with a section in its left half."""
    density = np.zeros((800, 1600, 3))
    density[160:640, 160:640] = densities((480, 480))
    return density


RIGHT = np.s_[20:80, 120:180]
"""Where the tests below put something else, in px of the overview."""
RIGHT_UM = np.s_[160:640, 960:1440]


def test_the_strong_section_by_itself():
    mask = tissue_mask(seen(strong_section()), 8.0)
    assert mask[20:80, 20:80].all()
    assert mask.sum() < 1.1 * 60 * 60


@pytest.mark.parametrize("amount", [0.15, 0.25, 0.5])
def test_a_pale_section_beside_a_strong_one_is_not_lost(amount):
    density = strong_section()
    density[RIGHT_UM] = amount * densities((480, 480), 5)
    mask = tissue_mask(seen(density), 8.0)
    assert mask[RIGHT].mean() > 0.95
    assert mask.sum() < 1.1 * 2 * 60 * 60


@pytest.mark.parametrize("strong", [True, False])
@pytest.mark.parametrize(("cell_um", "density"), [(58, 0.2), (84, 0.25), (84, 0.5)])
def test_fat_between_thin_membranes_is_tissue(cell_um, density, strong):
    """Membranes of 3 um, so that an overview sees a tenth of their stain."""
    drawn = strong_section() * strong
    lines = np.arange(480) % cell_um < 3
    drawn[RIGHT_UM][lines[:, None] | lines] = density * np.array([0.07, 0.99, 0.11])
    assert tissue_mask(seen(drawn), 8.0)[RIGHT].mean() > 0.75


@pytest.mark.parametrize("dark", [0.2, 0.45, 0.7])
@pytest.mark.parametrize("light", [1.0, SHADED], ids=["even", "shaded"])
def test_a_grey_edge_is_no_tissue(dark, light):
    """Of a cover glass, say; it lets all colours through alike."""
    edge = np.ones((800, 1600, 1))
    edge[:, 1200:1220] = edge[700:710] = dark
    mask = tissue_mask(seen(strong_section(), light * edge), 8.0)
    assert mask[20:80, 20:80].all()
    assert mask.sum() < 1.1 * 60 * 60


def test_a_grey_edge_with_coloured_fringes_is_no_tissue():
    edge = np.ones((800, 1600, 3))
    for channel in range(3):
        edge[:, 1200 + 2 * channel : 1220 + 2 * channel, channel] = 0.4
    assert not tissue_mask(seen(strong_section(), edge), 8.0)[:, 100:].any()


def test_haze_and_coloured_light_are_no_pale_tissue():
    """As dense as pale tissue, but smooth."""
    far = np.linspace(-1, 1, 1600)[None, :, None] ** 2
    shade = np.zeros((800, 1600, 3)) + far * np.array([0.0, 0.0, 0.05])
    y, x = np.ogrid[:800, :1600]
    haze = 0.05 * np.exp(-(((y - 400) / 200) ** 2 + ((x - 1200) / 200) ** 2))[..., None]
    for density in (shade, haze * np.array([0.07, 0.99, 0.11])):
        mask = tissue_mask(seen(strong_section() + density), 8.0)
        assert mask.sum() < 1.1 * 60 * 60


def test_tissue_beside_black_padding_keeps_its_edge():
    image = glass()
    image[50:150, 100:220] = (200, 120, 170)
    image[:, :100] = 0
    assert tissue_mask(image, 8.0)[52:148, 100:218].all()


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


def test_a_dot_of_ink_is_no_hole_to_be_filled():
    """With its margin it covers less than `SPECK_UM2`."""
    image = np.full((100, 100, 3), (211, 125, 169), np.uint8)
    image[50:53, 50:53] = (30, 60, 200)
    mask = tissue_mask(image, 8.0)
    assert not mask[50:53, 50:53].any()
    assert mask.sum() > 9900


def test_none_is_all_and_tiny_images_work():
    assert tissue_mask(glass(), 8.0, "none").all()
    for side in (1, 2, 16):
        for value in (0, 128, 243, 255):
            image = np.full((side, side, 3), value, np.uint8)
            for method in ("otsu", "hsv"):
                assert tissue_mask(image, 8.0, method).shape == (side, side)


# --- a segmenter of one's own


@pytest.fixture
def toy():
    """Left half of an image, whatever lies there."""

    def left_half(thumbnail, mpp_um):
        mask = np.zeros(thumbnail.shape[:2], np.bool_)
        mask[:, : mask.shape[1] // 2] = True
        return mask

    SEGMENTERS.add("toy", left_half)
    yield left_half
    SEGMENTERS.remove("toy")


def inked_glass() -> np.ndarray:
    """Glass with padding above, a blue line in the left half, another in the right."""
    image = glass((241, 236, 239))
    image[:40] = 255
    image[100:110, 20:100] = image[100:110, 140:220] = (30, 60, 200)
    return image


def test_what_no_tissue_can_be_is_taken_out_for_a_new_segmenter_too(toy):
    mask = tissue_mask(inked_glass(), 8.0, "toy")
    assert not mask[:40].any()
    assert not mask[95:115, 20:100].any()  # 50 um around ink are 6 px at 8 um a pixel
    assert mask[40:90, :120].all()
    assert mask[120:, :120].all()
    assert not mask[:, 120:].any()


def test_specks_of_a_new_segmenter_are_dropped(toy):
    SEGMENTERS.add("toy", lambda thumbnail, mpp_um: thumbnail[..., 0] > 200)
    image = np.full((200, 240, 3), 180, np.uint8)
    image[20:28, 20:28] = image[60:160, 60:160] = (230, 180, 200)
    mask = tissue_mask(image, 8.0, "toy")
    assert not mask[20:28, 20:28].any()  # 4096 um2
    assert mask[60:160, 60:160].all()


def test_a_segmenter_may_want_its_mask_as_found(toy):
    SEGMENTERS.add("toy", as_found(toy))
    np.testing.assert_array_equal(tissue_mask(inked_glass(), 8.0, "toy"), toy(glass(), 8.0))


@pytest.mark.parametrize("method", SEGMENTERS)
def test_every_segmenter_answers_with_a_mask_of_the_image(data_dir, method):
    thumbnail = overview(data_dir / CMU, 32)
    before = thumbnail.copy()
    mask = SEGMENTERS[method](thumbnail, 16.0)
    assert mask.dtype == bool
    assert mask.shape == thumbnail.shape[:2]
    np.testing.assert_array_equal(thumbnail, before)


@pytest.mark.parametrize("values", [np.linspace(0, 1, 1000) ** 3, np.full(50, 0.07)])
def test_otsus_threshold_is_that_of_scikit_image(values: np.ndarray) -> None:
    assert _otsu(values) == threshold_otsu(values)
