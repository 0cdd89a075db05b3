"""The colour of clear glass, on real overviews and on glass that is drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from tests.builders import TCGA
from tests.overviews import GLASSES, glass, overview, shaded_glass
from wsi_norm.glass import (
    GLASS_DARKEST,
    GLASS_MAGENTA,
    GLASS_SATURATION,
    chosen,
    fill_mask,
    glass_level,
    is_glass_coloured,
    percentile,
    percentiles,
    unscanned,
    white_level,
    white_of_tiles,
)


def test_white_of_a_real_slide(data_dir):
    white = white_level(overview(data_dir / TCGA, 32))
    np.testing.assert_allclose(white * 255, [241, 236, 239], atol=5)


@pytest.mark.parametrize("colour", GLASSES)
@pytest.mark.parametrize("shading", [0.0, 0.12])
def test_white_of_drawn_glass(colour, shading):
    expected = np.asarray(colour) * (1 - shading / 2)
    white = white_level(shaded_glass(colour, shading))
    np.testing.assert_allclose(white * 255, expected, rtol=0.02 + shading / 2)


def test_black_padding_does_not_shift_the_white():
    image = glass()
    image[:, :140] = 0
    image[50:150, 160:220] = (200, 120, 170)
    np.testing.assert_allclose(white_level(image) * 255, 243, atol=1)


@pytest.mark.parametrize("side", [1, 2, 16])
@pytest.mark.parametrize("value", [0, 128, 243, 255])
def test_tiny_images_have_a_white(side, value):
    assert white_level(np.full((side, side, 3), value, np.uint8)).shape == (3,)


def test_what_a_scanner_did_not_record():
    pixels = np.uint8([[255, 255, 255], [255, 255, 254], [7, 7, 7], [0, 0, 0], [7, 8, 7]])
    assert unscanned(pixels[None]).tolist() == [[True, False, True, True, False]]


def test_what_is_coloured_like_glass():
    """Off-white and yellowish; not pale eosin, not grey shade, not strong colour."""
    pixels = np.uint8([[243] * 3, [240, 225, 205], [240, 210, 228], [120] * 3, [240, 240, 170]])
    assert is_glass_coloured(pixels).tolist() == [True, True, False, False, False]


def test_white_level_without_glass_and_with_a_tissue_mask():
    image = np.full((60, 60, 3), (210, 120, 170), np.uint8)
    assert glass_level(image) is None
    np.testing.assert_allclose(white_level(image), 0.95)
    image[:30] = (240, 238, 236)
    image[:10] = (252, 252, 252)
    tissue = np.zeros((60, 60), bool)
    tissue[:10] = True
    np.testing.assert_allclose(white_level(image, tissue) * 255, [240, 238, 236])
    np.testing.assert_array_equal(white_level(np.full((4, 4, 3), 255, np.uint8)), 1)


def test_saturated_glass_is_pure_white() -> None:
    """Where the only white is pure, it is glass, and tissue is not taken for it."""
    field = np.full((40, 40, 3), (215, 160, 200), np.uint8)
    field[:20] = 255
    np.testing.assert_array_equal(white_level(field), np.ones(3))


def test_a_batch_of_tiles_has_the_white_of_all_its_pixels() -> None:
    rng = np.random.default_rng(0)
    tiles = rng.integers(90, 200, (3, 16, 24, 3), dtype=np.uint8)
    tiles[1, :8] = (240, 238, 236)
    expected = white_level(tiles.reshape(1, -1, 3))
    np.testing.assert_array_equal(white_level(tiles), expected)
    np.testing.assert_allclose(expected, np.array([240, 238, 236]) / 255)


def drawn_field(share_of_glass: float, colour=(244, 242, 243), seed: int = 0) -> np.ndarray:
    """Pink tissue with purple nuclei from edge to edge, with so much glass along one side."""
    rng = np.random.default_rng(seed)
    eosin, nuclei = rng.uniform(0.1, 0.4, (2, 200, 200, 1))
    nuclei = nuclei * (rng.random((200, 200, 1)) > 0.7)
    density = eosin * np.array([0.07, 0.99, 0.11]) + nuclei * np.array([0.65, 0.70, 0.29])
    image = np.array(colour) * 10.0**-density
    image[:, : round(200 * share_of_glass)] = colour
    return (image + rng.normal(0, 1.5, image.shape)).clip(0, 254).astype(np.uint8)


def test_a_field_without_glass_has_a_neutral_white() -> None:
    """Not the colour of its palest tissue, which would be left out of the normalisation."""
    field = drawn_field(0.0)
    assert glass_level(field) is None
    white = white_level(field)
    assert np.ptp(white) == 0
    assert white[0] >= 0.95


@pytest.mark.parametrize("share", [0.02, 0.2, 0.7])
@pytest.mark.parametrize("colour", [(244, 242, 243), (223, 215, 190), (255 - 9, 250, 252)])
def test_little_and_tinted_glass_is_found(share: float, colour) -> None:
    level = glass_level(drawn_field(share, colour))
    assert level is not None
    np.testing.assert_allclose(255 * level, colour, atol=4)


def test_real_fields_without_glass(data_dir) -> None:
    """Two fields of tissue from edge to edge; their palest tissue is pink."""
    for name in ("monuseg/images/TCGA-49-4488-01Z-00-DX1.webp", "samples/stardist_histo.jpg"):
        with Image.open(data_dir / "tiles" / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert glass_level(pixels) is None
        assert np.ptp(white_level(pixels)) == 0


# --- fill


def tile_of(seed: int = 0) -> np.ndarray:
    return drawn_field(0.0, seed=seed)[:128, :160].copy()


@pytest.mark.parametrize("colour", [(0, 0, 0), (5, 3, 6), (128, 128, 128), (90, 20, 200)])
@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_padding_is_fill(colour, side: str) -> None:
    tile, expected = tile_of(), np.zeros((128, 160), bool)
    part = {
        "left": np.s_[:, :50],
        "right": np.s_[:, 70:],
        "top": np.s_[:40],
        "bottom": np.s_[100:],
    }[side]
    tile[part], expected[part] = colour, True
    np.testing.assert_array_equal(fill_mask(tile), expected)


def test_black_without_a_straight_edge_is_fill_with_its_rim() -> None:
    """An unscanned corner after JPEG: black with noise, ringing beside it."""
    tile = tile_of()
    rows, columns = np.indices(tile.shape[:2])
    corner = rows + columns < 90
    tile[corner] = np.random.default_rng(1).integers(0, 8, (corner.sum(), 3))
    rim = (rows + columns >= 90) & (rows + columns < 93)
    tile[rim] = 30
    fill = fill_mask(tile)
    assert fill is not None
    assert fill[corner].mean() > 0.97  # squares leave the tips out
    assert not fill[rows + columns > 110].any()
    assert fill[rim].mean() > 0.8


def test_pigment_and_ink_are_no_fill() -> None:
    """Grains of true black are finer than fill, a pen's black is not that black."""
    tile = tile_of()
    for y, x in np.random.default_rng(0).integers(0, 110, (40, 2)):
        tile[y : y + 9, x : x + 9] = 0
    assert fill_mask(tile[:, :150]) is None or fill_mask(tile[:, :150]).mean() < 0.05
    inked = tile_of()
    inked[30:100, 30:130] = (22, 20, 24)
    assert fill_mask(inked) is None


@pytest.mark.parametrize("colour", [(255, 255, 255), (243, 242, 240)])
def test_white_padding_passes_for_glass(colour) -> None:
    tile = tile_of()
    tile[:, 100:] = colour
    assert fill_mask(tile) is None


def test_a_tile_without_padding_has_no_fill() -> None:
    assert fill_mask(tile_of()) is None
    assert fill_mask(np.random.default_rng(0).integers(0, 256, (1, 1, 3), dtype=np.uint8)) is None


def test_fill_does_not_count_for_the_white_of_tiles() -> None:
    tile = drawn_field(0.3)
    padded = tile.copy()
    padded[:, 120:] = (150, 150, 150)
    np.testing.assert_allclose(white_of_tiles(padded[None]), white_level(tile), atol=0.01)


@given(
    hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 30)] * 2, st.just(3))),
    st.sampled_from([5.0, 50.0, 98.0, 99.0, 99.9]),
    st.data(),
)
def test_counted_percentiles_of_what_is_chosen_are_numpys(pixels, percent, data):
    mask = data.draw(hnp.arrays(np.bool_, pixels.shape[:2]))
    some = chosen(pixels, mask)
    np.testing.assert_array_equal(some, pixels[mask])
    if len(some):
        np.testing.assert_allclose(percentiles(some, percent), np.percentile(some, percent, axis=0))
        sums = some.sum(axis=-1, dtype=np.uint16)
        np.testing.assert_allclose(percentile(sums, percent), np.percentile(sums, percent))


def test_glass_by_bytes_is_what_the_limits_say() -> None:
    """By numbers, pixel by pixel, on colours of all kinds and on those next to the limits."""
    rng = np.random.default_rng(0)
    pale = rng.integers(100, 256, (50_000, 1)) + rng.integers(-30, 31, (50_000, 3))
    colours = np.concatenate([rng.integers(0, 256, (50_000, 3)), pale.clip(0, 255)])
    red, green, blue = colours.T.astype(float)
    brightest, darkest = colours.max(axis=1), colours.min(axis=1)
    expected = (
        (darkest >= GLASS_DARKEST)
        & ((brightest - darkest) / brightest.clip(1) < GLASS_SATURATION)
        & ((np.minimum(red, blue) - green) / brightest.clip(1) < GLASS_MAGENTA)
    )
    assert 0.05 < expected.mean() < 0.95
    found = is_glass_coloured(colours.astype(np.uint8))
    np.testing.assert_array_equal(found, expected)
    assert is_glass_coloured(np.array([240, 240, 240], np.uint8))
