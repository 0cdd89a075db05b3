"""The domain probe: features against scikit-image and loops, accuracy by hand, no leak by case."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from skimage import color
from torch import Tensor

from wsi_norm.evaluation.probe import colour_features, domain_probe, rich_features

HISTOGRAMS, STAINS, GRADIENTS, PATTERNS, POWER = (
    slice(0, 48),
    slice(48, 57),
    slice(57, 61),
    slice(61, 71),
    slice(71, 79),
)


def random_images(count: int = 2, height: int = 24, width: int = 19) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def pixels_of(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).double().numpy()


def grey(luminance: np.ndarray) -> Tensor:
    """Grey images (1, 3, H, W) of the given L* / 100, by scikit-image."""
    lab = np.zeros((*luminance.shape, 3))
    lab[..., 0] = 100 * luminance
    return torch.tensor(color.lab2rgb(lab)).permute(2, 0, 1)[None]


def wave(cycles_per_px: float, size: int = 64) -> Tensor:
    phase = 2 * np.pi * cycles_per_px * np.arange(size)
    return grey(np.tile(0.5 + 0.2 * np.sin(phase), (size, 1)))


# Features


def test_colour_features_are_moments_of_cielab() -> None:
    images = random_images()
    expected = []
    for image in images:
        columns = color.rgb2lab(pixels_of(image)).reshape(-1, 3).T.tolist()
        means = [sum(values) / len(values) for values in columns]
        squares = [[(v - m) ** 2 for v in c] for c, m in zip(columns, means, strict=True)]
        expected.append([*means, *((sum(s) / len(s)) ** 0.5 for s in squares)])
    features = colour_features(images)
    assert features.dtype == np.float64
    # scikit-image's constants of D65 have one digit more or less than kornia's
    np.testing.assert_allclose(features, expected, atol=0.02)


def test_an_image_has_its_features_whatever_it_is_batched_with() -> None:
    images = random_images(3)
    for features in (colour_features, rich_features):
        alone = np.concatenate([features(image[None]) for image in images])
        np.testing.assert_allclose(features(images), alone, rtol=1e-9, atol=1e-12)


def test_rich_features_are_79_finite_numbers_even_of_flat_images() -> None:
    flat = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 3, 16, 16)
    for images in (random_images(), flat):
        features = rich_features(images)
        assert features.shape == (len(images), 79)
        assert features.dtype == np.float64
        assert np.isfinite(features).all()


def test_histograms_of_cielab() -> None:
    image = random_images(1)
    lab = color.rgb2lab(pixels_of(image[0])).reshape(-1, 3)
    found = rich_features(image)[0, HISTOGRAMS].reshape(3, 16)
    ranges = ((0, 6.25), (-20, 5.0), (-50, 5.0))  # first edge, width
    for channel, (first, width) in enumerate(ranges):
        expected = np.zeros(16)
        for value in lab[:, channel]:
            expected[min(max(int((value - first) // width), 0), 15)] += 1 / len(lab)
        # a value at an edge may fall to the other side: one pixel of 456
        np.testing.assert_allclose(found[channel], expected, atol=1.01 / len(lab))
        assert found[channel].sum() == pytest.approx(1)


def test_stain_moments() -> None:
    image = random_images(1)
    # rgb2hed, without its clipping of negative amounts
    density = np.log(pixels_of(image[0]).clip(1e-6).reshape(-1, 3)) / np.log(1e-6)
    stains = density @ color.hed_from_rgb
    spread = stains.std(axis=0)
    expected = np.stack([stains.mean(axis=0), spread, stats.skew(stains, axis=0)], axis=1)
    np.testing.assert_allclose(rich_features(image)[0, STAINS], expected.ravel(), rtol=1e-4)


def test_gradients_are_those_of_sobel() -> None:
    image = random_images(1)
    light = color.rgb2lab(pixels_of(image[0]))[..., 0] / 100
    across, down = (ndimage.sobel(light, axis) / 4 for axis in (1, 0))
    magnitude = np.hypot(across, down) / np.sqrt(2)
    ordered = np.sort(magnitude.ravel())
    found = rich_features(image)[0, GRADIENTS]
    np.testing.assert_allclose(found[:2], [magnitude.mean(), magnitude.std()], rtol=1e-3)
    for value, share in zip(found[2:], (0.90, 0.99), strict=True):
        rank = int(share * (len(ordered) - 1))
        assert ordered[rank] - 1e-4 <= value <= ordered[rank + 1] + 1e-4


def test_local_binary_patterns() -> None:
    flat, noise = grey(np.full((32, 32), 0.5)), random_images(1, 32, 32)
    # Neighbours all as light as the centre: pattern 8. At the edge, "outside" is black.
    assert rich_features(flat)[0, PATTERNS][8] == pytest.approx((30 / 32) ** 2)
    shares = rich_features(noise)[0, PATTERNS]
    assert shares.sum() == pytest.approx(1)
    assert shares.argmax() == 9  # of 256 patterns, 58 are uniform: noise has mostly the others


def test_patterns_are_of_whole_levels() -> None:
    checks = np.indices((32, 32)).sum(axis=0) % 2 / 255
    flat, rounding, faint = (
        rich_features(grey(0.5 + height * checks))[0, PATTERNS] for height in (0.0, 0.1, 2.0)
    )
    np.testing.assert_array_equal(rounding, flat)
    assert faint[8] < 0.6 < flat[8]


def test_light_that_rises_across_the_image_is_no_fine_detail() -> None:
    power = rich_features(grey(np.tile(np.linspace(0.2, 0.8, 64), (64, 1))))[0, POWER]
    # as a periodic image it would have an edge, with power of 1e-3 in the finest band
    assert power[0] > -2
    assert power[-1] < -7


@pytest.mark.parametrize("band", range(1, 8))
def test_a_wave_has_its_power_at_its_frequency(band: int) -> None:
    power = rich_features(wave((band + 0.5) / 16))[0, POWER]
    assert power.argmax() == band
    assert np.delete(power, band).max() < power[band] - 2


def test_noise_has_its_variance_in_every_band() -> None:
    sd = 0.02
    noise = 0.5 + sd * np.random.default_rng(0).standard_normal((256, 256))
    power = rich_features(grey(noise))[0, POWER]
    # White noise has power sd^2 at every frequency. The first ring holds 200 of them, so it errs by
    # some tenth; the others hold 600 and more.
    np.testing.assert_allclose(10 ** power[1:], sd**2, rtol=0.1)
    assert 10 ** power[0] == pytest.approx(sd**2, rel=0.3)


def test_features_of_what_is_no_batch_of_images() -> None:
    with pytest.raises(ValueError, match=r"expected float \(B, 3, H, W\)"):
        colour_features(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="expected float"):
        rich_features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="at least 16 px"):
        rich_features(torch.zeros(1, 3, 15, 32))


# The probe


def cases(groups: int, each: int) -> np.ndarray:
    return np.repeat(np.arange(groups), each)


def test_separable_domains_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    group = cases(20, 5)
    domain = np.array(["aperio", "hamamatsu", "leica"])[group % 3]
    means = {"aperio": (0.0, 0.0), "hamamatsu": (9.0, 0.0), "leica": (0.0, 900.0)}
    scale = (1.0, 100.0)
    features = np.array([means[d] for d in domain]) + scale * rng.standard_normal((100, 2)) * 0.1
    assert domain_probe(features, domain, group) == 1.0


def test_scans_of_the_same_cases_by_two_scanners() -> None:
    rng = np.random.default_rng(0)
    group, domain = np.tile(cases(10, 2), 2), np.repeat([0, 1], 20)
    own = 5 * rng.standard_normal((10, 1))[group]
    features = np.hstack([own, domain[:, None] + 0.01 * rng.standard_normal((40, 1))])
    assert domain_probe(features, domain, group) == 1.0


def test_random_labels_are_near_chance() -> None:
    rng = np.random.default_rng(1)
    features, domain = rng.standard_normal((900, 6)), rng.integers(0, 3, 900)
    # three standard errors of an accuracy of 1/3 from 900 images: 0.05
    assert domain_probe(features, domain, cases(300, 3)) == pytest.approx(1 / 3, abs=0.05)


def test_who_tells_the_case_does_not_tell_the_scanner() -> None:
    rng = np.random.default_rng(0)
    group = cases(80, 6)
    domain = group % 2
    fingerprint = rng.standard_normal((80, 100))[group] + 0.01 * rng.standard_normal((480, 100))
    # Without groups, images of a case would be in training and test: its scanner would be known.
    assert domain_probe(fingerprint, domain, np.arange(480)) == 1.0
    # three standard errors of an accuracy of 1/2 from 80 cases: 0.17
    assert domain_probe(fingerprint, domain, group) == pytest.approx(0.5, abs=0.17)


def test_accuracy_is_balanced() -> None:
    # 40 images of "a", of which 10 look like those of "b"; 20 of "b": (30/40 + 20/20) / 2
    domain = np.repeat(["a", "b"], [40, 20])
    group = np.concatenate([np.arange(40) % 10, 10 + np.arange(20) % 10])
    features = np.where(np.arange(60) < 30, -1.0, 1.0)[:, None]
    assert domain_probe(features, domain, group) == pytest.approx((30 / 40 + 1) / 2)


def test_a_rare_domain_counts_as_much_as_a_common_one() -> None:
    # Overlapping, 1 to 19. The best threshold for balanced accuracy lies in the middle: with
    # Gaussians at -1 and 1 of sd 1 it scores Phi(1) = 0.841. Unweighted, all would be "common".
    rng = np.random.default_rng(0)
    domain = (np.arange(4000) % 20 == 0).astype(int)
    features = (2.0 * domain - 1 + rng.standard_normal(4000))[:, None]
    # three standard errors of 0.841 from 200 images, halved: 0.04
    assert domain_probe(features, domain, np.arange(4000) // 40) == pytest.approx(0.841, abs=0.04)


def test_the_same_twice_and_another_seed() -> None:
    rng = np.random.default_rng(0)
    features, group = rng.standard_normal((120, 5)), cases(30, 4)
    results = [domain_probe(features, group % 2, group, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert results[0] == results[1]
    assert len(set(results)) > 1


def test_units_of_features_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    group = cases(30, 4)
    features = rng.standard_normal((120, 3)) + 0.5 * (group % 2)[:, None]
    scaled = features * (1e-3, 1.0, 1e3) + (5.0, 0.0, -300.0)
    assert domain_probe(scaled, group % 2, group) == domain_probe(features, group % 2, group)


def test_fewer_groups_than_folds_reduce_the_folds() -> None:
    rng = np.random.default_rng(0)
    group = np.concatenate([cases(8, 3), 8 + cases(2, 3)])
    domain = np.repeat(["many", "few"], [24, 6])
    features = rng.standard_normal((30, 3))
    reduced = domain_probe(features, domain, group, folds=5)
    assert reduced == domain_probe(features, domain, group, folds=2)
    separable = np.where(domain == "many", 1.0, -1.0)[:, None]
    assert domain_probe(separable, domain, group) == 1.0


@pytest.mark.parametrize(
    ("features", "domain", "group", "folds", "message"),
    [
        (np.zeros((4, 1)), [0, 0, 1, 1], [0, 1, 2, 2], 5, r"^domain 1 has 1 group; .*$"),
        (np.zeros((4, 1)), [0, 0, 0, 0], [0, 1, 2, 3], 5, "two domains"),
        (np.zeros((4, 1)), [0, 0, 1, 1], [0, 1, 2, 3], 1, "folds must be at least 2"),
        (np.zeros((4, 1)), [0, 0, 1], [0, 1, 2, 3], 5, "expected features"),
        (np.zeros((4, 1)), [0, 0, 1, 1], [0, 1, 2], 5, "expected features"),
        (np.zeros(4), [0, 0, 1, 1], [0, 1, 2, 3], 5, "expected features"),
        (np.full((4, 1), np.nan), [0, 0, 1, 1], [0, 1, 2, 3], 5, "NaN"),
    ],
)
def test_what_cannot_be_probed_is_said_in_one_line(
    features: np.ndarray, domain: list[int], group: list[int], folds: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        domain_probe(features, domain, group, folds=folds)
    assert "\n" not in str(raised.value)


def test_a_domain_that_lies_in_one_fold_cannot_be_learned() -> None:
    # case 2 alone mixes the domains; of two folds, one gets all of a domain
    domain, group = [1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="all groups of a domain"):
        domain_probe(np.zeros((6, 1)), domain, group)
