"""What a normaliser does to images: published values, scikit-image and loops, known changes."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import color, metrics
from torch import Tensor

import wsi_norm
from wsi_norm.evaluation.quality import (
    Normalize,
    background_drift,
    cielab,
    degenerate_tiles,
    pair_difference,
    robustness,
    seam_step,
    structure,
)

# Sharma, Wu and Dalal, Color Res. Appl. 30:21-30, 2005, table 1: those inside the gamut of sRGB.
Lab = tuple[float, float, float]
SHARMA: list[tuple[Lab, Lab, float]] = [
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0009), 7.1792),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((50.0, 2.5, 0.0), (61.0, -5.0, 29.0), 22.8977),
    ((50.0, 2.5, 0.0), (58.0, 24.0, 15.0), 19.4535),
    ((50.0, 2.5, 0.0), (50.0, 3.1736, 0.5854), 1.0000),
    ((61.2901, 3.7196, -5.3901), (61.4292, 2.2480, -4.9620), 1.8731),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((36.4612, 47.8580, 18.3852), (36.2715, 50.5065, 21.2231), 1.4146),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
]


def random_images(count: int = 2, height: int = 24, width: int = 19, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def pixels_of(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).double().numpy()


def light_of(image: Tensor) -> np.ndarray:
    return color.rgb2lab(pixels_of(image))[..., 0] / 100


def identity(x: Tensor) -> Tensor:
    return x


def standardise(x: Tensor) -> Tensor:
    return (x - x.mean(dim=(-2, -1), keepdim=True)) / x.std(dim=(-2, -1), keepdim=True)


def stretch(x: Tensor) -> Tensor:
    """The range of each channel, spread over [0, 1]: as histogram methods do."""
    low, high = x.amin(dim=(-2, -1), keepdim=True), x.amax(dim=(-2, -1), keepdim=True)
    return (x - low) / (high - low).clamp_min(1e-9)


# CIELAB and CIEDE2000


def test_cielab_against_scikit_image() -> None:
    images = random_images()
    expected = [color.rgb2lab(pixels_of(image)) for image in images]
    found = cielab(images)
    assert found.dtype == np.float64
    # their white points differ in the sixth digit
    np.testing.assert_allclose(found, expected, atol=0.02)
    np.testing.assert_array_equal(cielab(3 * images - 1), cielab((3 * images - 1).clamp(0, 1)))


@pytest.mark.parametrize(("first", "second", "expected"), SHARMA)
def test_published_colour_differences(first: Lab, second: Lab, expected: float) -> None:
    pair = np.array([first, second])
    rgb = color.lab2rgb(pair)
    # inside the gamut, or the way back would not lead to the published colour
    np.testing.assert_allclose(color.rgb2lab(rgb), pair, atol=2e-3)
    a, b = (torch.tensor(c)[None, :, None, None].expand(1, 3, 4, 5) for c in rgb)
    # colours at the rounding of the conversions' constants: 0.02 in a*, b* as above
    assert pair_difference(a, b)[0] == pytest.approx(expected, abs=0.01)


def test_colour_difference_is_the_mean_over_pixels_of_each_image() -> None:
    a, b = random_images(seed=0), random_images(seed=1)
    expected = []
    for first, second in zip(a, b, strict=True):
        labs = [color.rgb2lab(pixels_of(image)).reshape(-1, 3) for image in (first, second)]
        each = [color.deltaE_ciede2000(x, y) for x, y in zip(*labs, strict=True)]
        expected.append(sum(each) / len(each))
    np.testing.assert_allclose(pair_difference(a, b), expected, atol=0.01)
    np.testing.assert_array_equal(pair_difference(a, a), [0, 0])


# Structure


def test_an_image_has_its_own_structure() -> None:
    images = random_images()
    ssim, gradients = structure(images, images)
    np.testing.assert_allclose(ssim, 1, atol=1e-12)
    np.testing.assert_allclose(gradients, 1, atol=1e-12)


def test_structure_against_scikit_image_and_scipy() -> None:
    a, b = random_images(seed=0), (random_images(seed=0) + random_images(seed=1)) / 2
    ssim, gradients = structure(a, b)
    for index, pair in enumerate(zip(a, b, strict=True)):
        x, y = (light_of(image) for image in pair)
        wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        expected = metrics.structural_similarity(x, y, data_range=1, **wang)
        assert ssim[index] == pytest.approx(expected, abs=1e-4)
        slopes = [np.hypot(*(ndimage.sobel(v, axis) for axis in (0, 1))).ravel() for v in (x, y)]
        assert gradients[index] == pytest.approx(np.corrcoef(*slopes)[0, 1], abs=1e-3)
        assert ssim[index] < 0.9


def test_a_blurred_image_loses_structure_and_an_inverted_one_keeps_its_edges() -> None:
    a = random_images(1, 32, 32)
    blurred = torch.nn.functional.avg_pool2d(a, 5, 1, 2)
    ssim, gradients = structure(a, blurred)
    assert ssim[0] < 0.5
    assert gradients[0] < 0.5
    ssim, gradients = structure(a, 1 - a)
    assert ssim[0] < 0
    assert gradients[0] > 0.5


def test_structure_of_flat_images_is_defined() -> None:
    noise = random_images(1, 16, 16)
    pink = torch.tensor([0.9, 0.6, 0.8])[None, :, None, None].expand(1, 3, 16, 16)
    flat, textured = torch.cat([pink, pink, noise]), torch.cat([pink / 2, noise, pink])
    ssim, gradients = structure(flat, textured)
    assert np.isfinite(ssim).all()
    np.testing.assert_array_equal(gradients, [1, 0, 0])
    assert 0 < ssim[0] < 1  # same structure, less light


# Seams


def ramp_images(height: int = 70, width: int = 64) -> Tensor:
    """Light from left to right, and noise: tiles differ in mean."""
    light = torch.linspace(0.2, 0.8, width).expand(2, 3, height, width)
    return light + 0.05 * (random_images(2, height, width) - 0.5)


def centre(x: Tensor) -> Tensor:
    return x - x.mean(dim=(-2, -1), keepdim=True) + 0.5


@pytest.mark.parametrize("tile", [2, 8, 16, 32])
def test_no_seam_where_nothing_was_done_or_all_pixels_alike(tile: int) -> None:
    images = ramp_images()
    np.testing.assert_allclose(seam_step(identity, images, tile), 1, atol=1e-12)
    # steps are halved everywhere; at 0.008 and less, the floor of 1e-4 is felt
    np.testing.assert_allclose(seam_step(lambda x: 0.5 * x + 0.2, images, tile), 1, atol=0.02)


def test_tiles_with_means_of_their_own_have_seams() -> None:
    assert (seam_step(centre, ramp_images(), 16) > 1.5).all()


def test_the_size_of_a_seam() -> None:
    # Columns alternate between 0.4 and 0.5: steps of 0.1 across, 0 down. Of 2 x 2 tiles of 4 px,
    # two are lifted by 0.2. The loops count steps at and beside the borders, both ways.
    image = (0.4 + 0.1 * (torch.arange(8) % 2)).expand(1, 3, 8, 8).double()

    def lift(tiles: Tensor) -> Tensor:
        return tiles + torch.tensor([0.0, 0.2, 0.2, 0.0])[:, None, None, None]

    before = after = 0.0
    done = image[0].clone()
    done[:, :4, 4:] += 0.2
    done[:, 4:, :4] += 0.2
    for pixels in (image[0], done):
        at = [abs(pixels[:, i, 3] - pixels[:, i, 4]) for i in range(8)]
        at += [abs(pixels[:, 3, i] - pixels[:, 4, i]) for i in range(8)]
        inner = [abs(pixels[:, i, j] - pixels[:, i, j + 1]) for i in range(8) for j in (2, 4)]
        inner += [abs(pixels[:, j, i] - pixels[:, j + 1, i]) for i in range(8) for j in (2, 4)]
        ratio = (float(sum(v.mean() for v in at)) / 16) / (float(sum(v.mean() for v in inner)) / 32)
        before, after = after, ratio
    # the floor of 1e-4 on steps of 0.05 changes the ratio by a few parts in a thousand
    assert seam_step(lift, image, 4)[0] == pytest.approx(after / before, rel=5e-3)
    assert after / before > 3


def test_steps_that_were_there_before_are_no_seams() -> None:
    images = ramp_images(64, 64)
    images[..., 16:] += 0.1  # at a border of tiles
    np.testing.assert_allclose(seam_step(identity, images, 16), 1, atol=1e-12)


def test_tiles_are_normalised_by_themselves_and_put_back() -> None:
    seen: list[Tensor] = []

    def watch(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    images = random_images(1, 21, 13)
    seam_step(watch, images, 6)
    expected = [images[0, :, i : i + 6, j : j + 6] for i in (0, 6, 12) for j in (0, 6)]
    assert torch.equal(torch.cat(seen), torch.stack(expected))


def test_flat_images_have_a_seam_only_if_one_was_made() -> None:
    flat = torch.full((1, 3, 16, 16), 0.5)
    assert seam_step(identity, flat, 8)[0] == 1

    def lift(tiles: Tensor) -> Tensor:
        return tiles + 0.1 * torch.arange(len(tiles))[:, None, None, None]

    assert seam_step(lift, flat, 8)[0] > 100


def test_seams_need_two_tiles_and_a_normaliser_that_keeps_the_shape() -> None:
    images = random_images(1, 32, 31)
    for tile in (16, 1, 0):
        with pytest.raises(ValueError, match="two tiles"):
            seam_step(identity, images, tile)
    with pytest.raises(ValueError, match="differ"):
        seam_step(lambda x: x.permute(0, 2, 3, 1), images, 8)


# Background


def test_background_drift() -> None:
    image = torch.full((1, 3, 20, 20), 0.9)
    image[..., :10] = 0.4  # tissue
    np.testing.assert_array_equal(background_drift(image, image), [0])
    assert background_drift(image, image + 7 / 255)[0] == pytest.approx(7, abs=1e-4)
    tinted = image + torch.tensor([0, 0, -6 / 255])[:, None, None]
    assert background_drift(image, tinted)[0] == pytest.approx(2, abs=1e-4)
    stained = torch.where(image < 0.5, 0.1, image)
    np.testing.assert_array_equal(background_drift(image, stained), [0])


@pytest.mark.parametrize(("glass_px", "known"), [(0, False), (30, False), (60, True), (400, True)])
def test_background_needs_half_a_percent_of_the_image(glass_px: int, known: bool) -> None:
    # 10 000 px: one channel each is dark, so that only what is bright in all is background
    image = torch.full((3, 100 * 100), 0.9)
    at = torch.arange(100 * 100)
    image[at % 3, at] = 0.2
    image[:, :glass_px] = 0.9
    drift = background_drift(image.view(1, 3, 100, 100), image.view(1, 3, 100, 100) + 0.01)
    assert np.isfinite(drift[0]) == known


def test_a_batch_has_a_drift_per_image() -> None:
    before = torch.full((2, 3, 8, 8), 0.9)
    after = before + torch.tensor([0.0, -5 / 255])[:, None, None, None]
    np.testing.assert_allclose(background_drift(before, after), [0, 5], atol=1e-4)


def test_background_is_pale_relative_to_the_given_white() -> None:
    tile = torch.full((1, 3, 20, 20), 0.8)  # pale tissue without glass, of a slide whose is 0.95
    tile[..., :10] = 0.4
    dim, white = (torch.full((1, 3, 1, 1), level) for level in (0.8, 0.95))
    assert background_drift(tile, tile + 5 / 255, dim)[0] == pytest.approx(5, abs=1e-4)
    assert np.isnan(background_drift(tile, tile + 5 / 255, white)[0])
    pair = torch.cat([tile, torch.full_like(tile, 0.95)])
    found = background_drift(pair, pair + 5 / 255, white[0])
    np.testing.assert_allclose(found, [np.nan, 5], atol=1e-4)
    own = torch.cat([white, torch.ones_like(white)])  # each image with its own
    assert np.isnan(background_drift(pair, pair + 5 / 255, own)[0])


# Degenerate tiles


@pytest.mark.parametrize("size", [16, 17, 23, 64])
def test_degenerate_tiles_are_images(size: int) -> None:
    tiles = degenerate_tiles(size)
    assert len(tiles) >= 10
    for tile in tiles.values():
        assert tile.shape == (3, size, size)
        assert tile.dtype == torch.float32
        assert tile.min() >= 0
        assert tile.max() <= 1


def test_degenerate_tiles_are_what_they_are_called() -> None:
    tiles = degenerate_tiles()
    assert (tiles["white"] == 1).all()
    assert (tiles["black"] == 0).all()
    assert (tiles["one_coloured_pixel"] != 1).any(dim=0).sum() == 1
    noise = tiles["glass_noise"]
    assert float(noise.mean()) == pytest.approx(0.95, abs=2e-4)
    assert float(noise.std() * 255) == pytest.approx(1.5, rel=0.03)
    assert tiles["half_glass"][:, :, 32:].mean() > 0.94
    light = {name: cielab(tile[None])[0] for name, tile in tiles.items()}
    tissue = light["half_glass"][:, :32]
    assert 30 < tissue[..., 0].mean() < 85
    assert tissue[..., 1].mean() > 10  # pink to purple: a* above, b* below zero
    assert tissue[..., 2].mean() < 0
    assert tissue[..., 0].std() > 5
    assert light["folded_tissue"][..., 0].mean() < 30 < 80 < light["pale_tissue"][..., 0].mean()
    again = degenerate_tiles()
    assert all(torch.equal(tile, again[name]) for name, tile in tiles.items())


def test_degenerate_tiles_have_a_smallest_size() -> None:
    with pytest.raises(ValueError, match="at least 16 px"):
        degenerate_tiles(15)


# Robustness


def test_who_does_nothing_does_no_harm() -> None:
    assert robustness(identity) == dict.fromkeys(degenerate_tiles(), "ok")


def test_a_naive_standardiser_fails_in_named_ways() -> None:
    found = robustness(standardise)
    for name in ("white", "black", "mid_grey", "constant_pink"):
        assert found[name] == "not finite"  # 0 / 0
    assert found["glass_noise"] == "out of range; coloured glass; noise amplified"
    assert found["blood"] == "out of range"
    assert "coloured glass" in found["half_glass"]


def test_a_stretched_tile_has_coloured_glass_and_amplified_noise() -> None:
    found = robustness(stretch)
    assert found["white"] == "coloured glass"  # it became black
    assert found["glass_noise"] == "coloured glass; noise amplified"
    assert found["black"] == "ok"
    assert found["pen_blue"] == "ok"  # no glass there to be coloured


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [(9, "ok"), (-9, "ok"), (-11, "coloured glass"), (-200, "coloured glass")],
)
def test_glass_may_move_by_ten_levels(levels: int, verdict: str) -> None:
    found = robustness(lambda x: (x + levels / 255).clamp(0, 1))
    assert found["glass_noise"] == verdict
    assert found["mid_grey"] == "ok"


@pytest.mark.parametrize(("gain", "amplified"), [(2.9, False), (3.1, True)])
def test_noise_may_grow_threefold(gain: float, amplified: bool) -> None:
    found = robustness(lambda x: 0.95 + gain * (x - 0.95))
    assert ("noise amplified" in found["glass_noise"]) == amplified
    assert "noise amplified" not in found["half_glass"]


def test_what_a_normaliser_raises_is_reported() -> None:
    def fragile(x: Tensor) -> Tensor:
        if x.amax() == 0:
            raise ZeroDivisionError("no\nlight " + 100 * "x")
        if x.std() == 0:
            raise np.linalg.LinAlgError
        return x

    found = robustness(fragile)
    assert found["black"] == "raised ZeroDivisionError: no light " + 51 * "x"
    assert found["white"] == "raised LinAlgError: "
    assert found["half_glass"] == "ok"


@pytest.mark.parametrize(
    ("normalize", "verdict"),
    [
        (lambda x: x.permute(0, 2, 3, 1), "wrong shape"),
        (lambda x: x[0], "wrong shape"),
        (lambda x: torch.where(x == x.amax(), torch.inf, x), "not finite"),
        (lambda x: x.mul_(0).add_(1), "coloured glass"),  # in place: the input is lost
    ],
)
def test_other_ways_to_fail(normalize: Normalize, verdict: str) -> None:
    assert robustness(normalize)["half_glass"] == verdict


def test_interruptions_are_not_swallowed() -> None:
    def stop(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        robustness(stop)


@pytest.mark.parametrize("name", ["density", "paper"])
def test_a_packaged_layer_is_robust(name: str) -> None:
    found = robustness(wsi_norm.load_checkpoint(name))
    assert set(found.values()) == {"ok"}, found


@pytest.mark.parametrize("measure", [pair_difference, structure, background_drift])
def test_pairs_must_have_one_shape(measure: Normalize) -> None:
    with pytest.raises(ValueError, match=r"shapes \(1, 3, 16, 16\) and \(1, 3, 16, 17\) differ"):
        measure(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 17))  # type: ignore[call-arg]
