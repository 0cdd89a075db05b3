"""Ink of pens on photographs of slides, drawn on a real one, and none on fields of H&E."""

import numpy as np
import pytest
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.overviews import (
    CMU,
    REAL,
    TINTS,
    artefact,
    as_jpeg,
    fields,
    glass,
    overview,
    read_rgb,
    tinted,
)
from wsi_norm.tissue import colour_problem, pen_mask, tissue_mask
from wsi_norm.tissue.ink import closed, grown, inked


@pytest.mark.parametrize(("name", "downsample"), REAL)
def test_real_slides_have_hardly_any_pen(data_dir, name, downsample):
    assert pen_mask(overview(data_dir / name, downsample)).mean() < 0.01


@pytest.mark.parametrize("tint", TINTS)
def test_tinted_glass_is_no_pen(data_dir, tint):
    assert pen_mask(tinted(overview(data_dir / CMU, 16), tint)).mean() < 0.01


def test_fields_have_hardly_any_pen(data_dir):
    for path in fields(data_dir):
        assert pen_mask(read_rgb(path)).mean() < 0.03, path


def test_stain_alone_is_no_pen():
    assert not pen_mask(np.full((300, 300, 3), (211, 125, 169), np.uint8)).any()


@pytest.mark.parametrize("name", ["almost-white-1", "almost-white-ihc", "no-tissue"])
def test_glass_has_no_pen(data_dir, name):
    assert not pen_mask(artefact(data_dir, name)).any()


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


@pytest.mark.parametrize(("mpp_um", "margin_px"), [(10.0, 5), (25.0, 2), (1.0, 9), (100.0, 0)])
def test_a_margin_around_ink_is_inked(mpp_um, margin_px):
    """50 um, but at most 3 % of the shorter side of 300 px."""
    image = glass(shape=(300, 400))
    image[100:120, 150:250] = (30, 60, 200)
    rows, columns = np.ogrid[:300, :400]
    down = np.maximum(0, np.maximum(100 - rows, rows - 119))
    across = np.maximum(0, np.maximum(150 - columns, columns - 249))
    np.testing.assert_array_equal(inked(image, mpp_um), down**2 + across**2 <= margin_px**2)


def test_without_ink_nothing_is_inked():
    """A distance transform without any ink must not take the corners for it."""
    for mpp_um in (1.0, 8.0, 64.0):
        assert not inked(glass(), mpp_um).any()


SPARSE = st.one_of(
    hnp.arrays(np.bool_, st.tuples(st.integers(12, 40), st.integers(12, 40))),
    st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((23, 31)) < 0.05),
)


@settings(max_examples=100, deadline=None)
@given(SPARSE, st.integers(0, 5))
def test_closing_is_that_of_scikit_image(mask, radius):
    expected = skimage.morphology.closing(mask, skimage.morphology.disk(radius))
    np.testing.assert_array_equal(closed(mask, radius), expected)


@settings(max_examples=100, deadline=None)
@given(SPARSE, st.one_of(st.floats(0, 9), st.integers(0, 80).map(np.sqrt)))
def test_what_is_grown_is_that_of_a_distance_transform(mask, radius):
    """Which measures from a corner where nothing is marked."""
    expected = skimage.morphology.isotropic_dilation(mask, radius) if mask.any() else mask
    np.testing.assert_array_equal(grown(mask, float(radius)), expected)
