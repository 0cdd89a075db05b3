"""Tissue on real overviews, artefacts and drawn glass, and a segmenter of one's own."""

import numpy as np
import pytest

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
