"""Template and Statistics: fitted moments against numpy, scikit-image and scipy; JSON form."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from skimage import color

from tests.builders import density_by_numpy, moments_by_scikit_image
from wsi_norm.lstainnorm import Statistics, Template
from wsi_norm.lstainnorm.moments import MIN_TISSUE_SHARE

SPACES = ("rgb", "lab", "hsv", "hed")
"""Those whose pixels are pooled; density has a test of its own."""
NO_SHAPES = [(2, 8, 8), (2, 8, 8, 4), (2, 3, 8, 8), (3,), (8, 8)]


def stained(count: int, height: int = 24, width: int = 20, seed: int = 0) -> np.ndarray:
    """Tissue only, uint8: too dark to be glass of any lamp, hues on both sides of 0."""
    rng = np.random.default_rng(seed)
    amount = rng.random((count, height, width, 1))
    colour = np.array([60, 25, 90]) * amount + np.array([125, 60, 55]) * (1 - amount)
    return (colour + rng.normal(0, 6, colour.shape)).clip(1, 130).astype(np.uint8)


def with_glass(tiles: np.ndarray, rows: int) -> np.ndarray:
    """As many rows of clear glass above every tile."""
    glass = np.full((len(tiles), rows, *tiles.shape[2:]), 244, np.uint8)
    return np.concatenate([glass, tiles], axis=1)


def assert_moments(got: Template | Statistics, pixels: np.ndarray) -> None:
    expected = moments_by_scikit_image(pixels)
    assert set(got.mean) - {"od"} == set(got.std) - {"od"} == set(SPACES)
    for space, (mean, std) in expected.items():
        np.testing.assert_allclose(got.mean[space], mean, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(got.std[space], std, rtol=2e-4, atol=2e-4)


def test_fit_is_the_mean_and_std_of_all_pixels_pooled() -> None:
    tiles = stained(3)
    tiles[0] //= 2  # means of tiles differ: the pooled std is not the mean of theirs
    template = Template.fit(tiles)
    assert_moments(template, tiles)
    hues = color.rgb2hsv(tiles)[..., 0]
    assert (hues < 0.25).any()
    assert (hues > 0.75).any()
    assert template.std["hsv"][0] < 1.0


def test_glass_does_not_move_it() -> None:
    tiles = stained(3)
    assert_moments(Template.fit(with_glass(tiles, 10)), tiles)


def test_glass_is_what_is_as_bright_as_each_tiles_own_white() -> None:
    dim = with_glass(stained(1), 10)
    noise = np.random.default_rng(2).integers(-2, 3, dim[:, :10].shape)
    dim[:, :10] = (np.array([190, 180, 175]) + noise).astype(np.uint8)
    assert_moments(Template.fit(dim), dim[:, 10:])


@pytest.mark.parametrize("scale", ["whole array", "tiles", "batches", "generator"])
def test_any_iterable_of_tiles_is_the_array(scale: str) -> None:
    tiles = with_glass(stained(4), 5)

    def one_by_one() -> Iterator[np.ndarray]:
        yield from tiles

    forms = {
        "whole array": tiles,
        "tiles": list(tiles),
        "batches": [tiles[:1], tiles[1:]],
        "generator": one_by_one(),
    }
    assert Template.fit(forms[scale]) == Template.fit(tiles)


def test_one_tile_needs_no_batch_axis() -> None:
    tiles = stained(1)
    assert Template.fit(tiles[0]) == Template.fit(tiles)


def test_tiles_may_differ_in_size_and_every_pixel_counts_alike() -> None:
    small, large = stained(1, 6, 8)[0] // 2, stained(1, 30, 40, seed=1)[0]
    pooled = np.concatenate([small.reshape(-1, 3), large.reshape(-1, 3)])
    assert_moments(Template.fit([small, large]), pooled)


def test_the_order_of_tiles_does_not_matter() -> None:
    tiles = with_glass(stained(5), 4)
    forward, backward = Template.fit(tiles), Template.fit(tiles[::-1].copy())
    for space in SPACES:
        assert backward.mean[space] == pytest.approx(forward.mean[space], rel=1e-9)
        assert backward.std[space] == pytest.approx(forward.std[space], rel=1e-6, abs=1e-9)


def test_tiles_are_not_modified_and_may_be_views() -> None:
    tiles = with_glass(stained(2), 4)
    before = tiles.copy()
    tiles.flags.writeable = False
    every_other = Template.fit(tiles[:, ::2, ::2])
    assert every_other == Template.fit(tiles[:, ::2, ::2].copy())
    assert (tiles == before).all()


def test_a_flipped_view_is_as_good_as_an_array() -> None:
    tiles = with_glass(stained(2), 4)
    assert Template.fit(tiles[:, ::-1]) == Template.fit(tiles[:, ::-1].copy())


@pytest.mark.parametrize("value", [255, 244])
def test_white_tiles_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="no tissue"):
        Template.fit(np.full((2, 16, 16, 3), value, np.uint8))


def test_too_little_tissue_is_refused() -> None:
    tiles = np.full((1, 100, 100, 3), 244, np.uint8)
    enough = round(MIN_TISSUE_SHARE * 100 * 100)
    flat = tiles.reshape(-1, 3)
    flat[: enough - 1] = (120, 40, 110)
    with pytest.raises(ValueError, match="no tissue"):
        Template.fit(tiles)
    flat[: enough + 1] = (120, 40, 110)
    np.testing.assert_allclose(np.array(Template.fit(tiles).mean["rgb"]) * 255, (120, 40, 110))


def test_a_white_tile_among_others_does_not_move_it() -> None:
    tiles = with_glass(stained(2), 4)
    white = np.full_like(tiles[:1], 250)
    assert Template.fit([white, tiles]) == Template.fit(tiles)


def test_no_tiles_are_refused() -> None:
    for nothing in (np.zeros((0, 8, 8, 3), np.uint8), []):
        with pytest.raises(ValueError, match="no tissue"):
            Template.fit(nothing)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int8, bool])
def test_another_dtype_is_refused(dtype: type) -> None:
    for tiles in (np.zeros((1, 8, 8, 3), dtype), [np.zeros((8, 8, 3), dtype)]):
        with pytest.raises(ValueError, match="uint8"):
            Template.fit(tiles)


@pytest.mark.parametrize("shape", NO_SHAPES)
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        Template.fit([np.zeros(shape, np.uint8)])


def test_the_template_round_trips_through_json() -> None:
    template = Template.fit(stained(1))
    assert Template.from_dict(json.loads(json.dumps(template.to_dict()))) == template


def test_statistics_round_trip_through_json() -> None:
    template = Template.fit(stained(1))
    statistics = Statistics(template.mean, template.std, (0.9, 0.8, 0.7), 480)
    assert Statistics.from_dict(json.loads(json.dumps(statistics.to_dict()))) == statistics


def template_data() -> dict[str, object]:
    return {"mean": {"lab": [60.0, 20.0, -10.0]}, "std": {"lab": [10.0, 5.0, 5.0]}}


BAD = {
    "empty": {},
    "no std": {"mean": template_data()["mean"]},
    "two numbers": template_data() | {"std": {"lab": [1.0, 2.0]}},
    "four numbers": template_data() | {"std": {"lab": [1.0, 2.0, 3.0, 4.0]}},
    "words": template_data() | {"std": {"lab": ["a", "b", "c"]}},
    "a number": template_data() | {"std": {"lab": 3.0}},
    "unknown space": template_data() | {"std": {"xyz": [1.0, 2.0, 3.0]}},
    "no mapping": template_data() | {"mean": [1.0, 2.0, 3.0]},
}


@pytest.mark.parametrize("name", BAD)
def test_another_form_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        Template.from_dict(BAD[name])


def test_statistics_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError):
        Statistics.from_dict(template_data())
    with pytest.raises(ValueError, match="xyz"):
        Statistics.from_dict(BAD["unknown space"] | {"white": [1, 1, 1], "tissue_pixels": 3})


def test_the_std_of_one_colour_is_zero() -> None:
    """Differences of large sums may come out negative: no NaN."""
    tiles = np.full((1, 64, 64, 3), (119, 41, 101), np.uint8)
    tiles[:, ::63, ::2] = tiles[:, ::2, ::63] = 255  # else it would be padding
    template = Template.fit(tiles)
    for space in (*SPACES, "od"):
        assert template.std[space] == pytest.approx((0, 0, 0), abs=1e-4)


def test_density_is_the_mean_of_the_tiles_own_each_with_its_own_white() -> None:
    tiles = with_glass(stained(3), 10)
    tiles[1, :10] -= 20
    tiles[2, 10:] //= 2
    own = [density_by_numpy(t[10:], t[:10].reshape(-1, 3).mean(axis=0) / 255) for t in tiles]
    medians, spreads = np.array(own).swapaxes(0, 1)
    for within in (False, True):
        template = Template.fit(tiles, within_tiles=within)
        np.testing.assert_allclose(template.mean["od"], medians.mean(axis=0), rtol=1e-6)
        expected = np.sqrt(np.square(spreads).mean(axis=0))
        np.testing.assert_allclose(template.std["od"], expected, rtol=1e-6)


def test_padding_is_no_tissue() -> None:
    tiles = with_glass(stained(2, height=64, width=64), 10)
    padded = tiles.copy()
    padded[:, 50:] = 0
    got, expected = Template.fit(padded), Template.fit(tiles[:, :50])
    for space in (*SPACES, "od"):  # some dark pixels beside it pass for the rim of the padding
        np.testing.assert_allclose(got.mean[space], expected.mean[space], rtol=0.03)


def test_a_list_of_tiles_is_one_slide() -> None:
    """Whatever their sizes: as one tall tile of the same pixels."""
    tiles = with_glass(stained(4), 5)
    tiles[1:, 5:] //= 2
    tall = [np.concatenate(tiles[:2]), np.concatenate(tiles[2:])]
    slides = [[tiles[0], tiles[1, :12], tiles[1, 12:]], list(tiles[2:])]
    for within in (False, True):
        got, expected = (Template.fit(x, within_tiles=within) for x in (slides, tall))
        for space in (*SPACES, "od"):
            np.testing.assert_allclose(got.mean[space], expected.mean[space], rtol=1e-5)
            np.testing.assert_allclose(got.std[space], expected.std[space], rtol=1e-5)
