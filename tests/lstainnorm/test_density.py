"""Density: its robust statistics against numpy, and what its curve may never do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.builders import SLIDE, TEMPLATE, density_by_numpy
from wsi_norm.lstainnorm import LStainNorm, Statistics, Template
from wsi_norm.lstainnorm.counts import counts_of, density_of_counts, doubts
from wsi_norm.lstainnorm.density import density, matched_density, measure_density

WHITE = (0.95, 0.93, 0.94)
POSITIVE = st.floats(0.0, 3.0)
THREE = st.tuples(POSITIVE, POSITIVE, POSITIVE)


def pixels(count: int = 400, seed: int = 0) -> np.ndarray:
    """uint8 (count, 3): from glass to dark purple."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(1.2, 0.5, (count, 2))
    dense = amounts @ np.array([[0.6, 0.7, 0.3], [0.1, 0.8, 0.4]])
    return (255 * np.array(WHITE) * np.exp(-dense)).round().clip(0, 255).astype(np.uint8)


def as_image(levels: np.ndarray) -> Tensor:
    return torch.from_numpy(levels.T.reshape(1, 3, -1, 20) / 255)


def dense_of(levels: np.ndarray) -> Tensor:
    white = torch.tensor(WHITE, dtype=torch.float64)[:, None, None]
    return density(-as_image(levels).clamp_min(1 / 255).log(), white)


@pytest.mark.parametrize("count", [20, 400, 2020])
def test_the_statistics_are_numpys_percentiles(count: int) -> None:
    levels = pixels(count)
    median, spread = density_by_numpy(levels, WHITE)
    of_counts = density_of_counts(counts_of(levels, WHITE), WHITE)
    np.testing.assert_allclose(of_counts, [median, spread], atol=1e-12)
    dense = dense_of(levels)
    got = measure_density(dense, torch.ones_like(dense[:, :1], dtype=torch.bool), None)
    np.testing.assert_allclose(torch.cat(got), [median, spread], atol=1e-12)


def test_only_what_may_be_tissue_counts_and_groups_are_measured_together() -> None:
    parts = [pixels(200, seed) for seed in range(3)]
    dense = torch.cat([dense_of(part) for part in parts])
    counted = torch.ones_like(dense[:, :1], dtype=torch.bool)
    counted[1, :, 4:] = False  # of part 1, only the first 80
    medians, spreads = measure_density(dense, counted, torch.tensor([7, 7, 1]))
    together = np.concatenate([parts[0], parts[1][:80]])
    for index, own in enumerate([together, together, parts[2]]):
        expected = density_by_numpy(own, WHITE)
        np.testing.assert_allclose([medians[index], spreads[index]], expected, atol=1e-12)


def test_without_tissue_the_statistics_are_zero() -> None:
    glass = np.full((40, 3), 242, np.uint8)
    counted = torch.ones(1, 1, 2, 20, dtype=torch.bool)
    for got in measure_density(dense_of(glass), counted, None):
        assert (got == 0).all()
    assert (density_of_counts(counts_of(glass, WHITE), WHITE) == 0).all()


def naive(d: list, own: tuple, spread: tuple, target: tuple, target_spread: tuple) -> list:
    """One pixel, by the definition."""
    amount = min(sum(d) / max(sum(own), 1e-4), 1)
    there = []
    for c in range(3):
        gain = min(max(target_spread[c] / max(spread[c], 1e-4), 0.2), 4)
        nuclei = min(max(d[c] - own[c], 0), spread[c])
        shift = min(target[c] - own[c], 2 * max(sum(own), 1e-4))
        there.append(max(d[c] + amount * shift + (gain - 1) * nuclei, 0))
    return there


def matched(pixels: Tensor, *statistics: tuple) -> Tensor:
    """(n, 3) of (n, 3)."""
    own, spread, target, target_spread = (torch.tensor(m, dtype=torch.float64) for m in statistics)
    image = pixels.T[None, :, :, None]
    got = matched_density(image, own[None], spread[None], target, target_spread)
    return got[0, :, :, 0].T


@settings(max_examples=200, deadline=None)
@given(
    pixel=THREE, own=THREE, spread=THREE, target=THREE, target_spread=THREE, more=st.floats(1, 3)
)
def test_whatever_is_measured_it_is_the_definition_and_bounded(
    pixel: tuple, own: tuple, spread: tuple, target: tuple, target_spread: tuple, more: float
) -> None:
    """One stain, no nuclei, nuclei alone, nothing at all: glass stays, denser never gets paler."""
    statistics = own, spread, target, target_spread
    here = torch.from_numpy(np.stack([np.zeros(3), pixel, own, more * np.array(own)]))
    there = matched(here, *statistics)
    assert (there[0] == 0).all()
    expected = [naive(d, *statistics) for d in here.tolist()]
    np.testing.assert_allclose(there, expected, atol=1e-9)
    assert (there[3] >= there[2] - 1e-9).all()  # denser tissue of stroma's colour
    moved = np.abs(there.numpy() - here.numpy())
    assert (moved <= np.abs(np.subtract(target, own)) + 3 * np.array(spread) + 1e-9).all()


def test_paler_tissue_is_a_mixture_of_stroma_and_glass() -> None:
    own, target = (0.02, 0.4, 0.2), (0.28, 0.78, 0.44)
    share = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    there = matched(share * torch.tensor(own), own, (0.4, 0.6, 0.3), target, (0.6, 0.8, 0.4))
    torch.testing.assert_close(there, share * torch.tensor(target, dtype=torch.float64))


def test_noise_of_a_channel_that_hardly_absorbs_does_not_grow() -> None:
    """To bring such stroma to the target by a gain would make 14 levels of one."""
    own, target, spread = (0.02, 0.4, 0.2), (0.28, 0.78, 0.44), (0.4, 0.6, 0.3)
    here = torch.tensor([own, (0.03, 0.4, 0.2), (0.01, 0.4, 0.2)], dtype=torch.float64)
    there = matched(here, own, spread, target, spread)
    assert (there[:, 0].diff().abs() <= 1.5 * here[:, 0].diff().abs()).all()


def test_noise_of_a_slide_that_is_hardly_stained_grows_threefold_at_most() -> None:
    """Its stroma would have to become eight times as dense."""
    own, target, spread = (0.02, 0.1, 0.05), (0.28, 0.78, 0.44), (0.4, 0.6, 0.3)
    noise = 0.2 * np.random.default_rng(0).random((500, 3)) * own
    here = torch.from_numpy(noise + np.multiply(0.6, own))
    there = matched(here, own, spread, target, spread)
    for c in range(3):
        nudged = here.clone()
        nudged[:, c] += 1e-4
        rise = (matched(nudged, own, spread, target, spread) - there)[:, c]
        assert (rise <= 3e-4 + 1e-9).all()


def test_stroma_and_nuclei_become_the_targets_and_beyond_them_differences_stay() -> None:
    own, spread, target, target_spread = (
        (0.2, 0.5, 0.3),
        (0.5, 0.9, 0.4),
        (0.3, 0.8, 0.4),
        (0.6, 0.7, 0.5),
    )
    stroma, nuclei = np.array(own), np.add(own, spread)
    here = torch.tensor(np.stack([stroma, nuclei, nuclei + 0.7]))
    aim, strong = np.array(target), np.add(target, target_spread)
    np.testing.assert_allclose(
        matched(here, own, spread, target, target_spread), [aim, strong, strong + 0.7]
    )


def single(background: str = "normalize") -> LStainNorm:
    return LStainNorm("single:od", template=TEMPLATE, background=background)


def test_a_slide_that_is_the_target_stays_but_for_its_glass() -> None:
    levels = pixels(2000)
    levels = levels[(levels < 200).any(axis=1)][:1000]
    image = as_image(levels)
    own = Statistics(TEMPLATE.mean, TEMPLATE.std, (0.95, 0.95, 0.95), 1000)
    torch.testing.assert_close(single().double()(image, own), image, atol=1e-6, rtol=0)


def test_what_is_measured_becomes_the_target() -> None:
    """Medians and 95th percentiles of the result, where no bound plays a part."""
    levels = pixels(4000)
    image = as_image(levels)
    layer = single().double()
    median, spread = density_by_numpy(levels, WHITE)
    measured = {"od": tuple(median)}, {"od": tuple(spread)}
    out = layer(image, Statistics(*measured, WHITE, 4000))[0].flatten(1).T.detach().numpy()
    tissue = dense_of(levels)[0].flatten(1).T.numpy().max(axis=1) > 0.1
    dense = -np.log(out[tissue] / 0.95)
    got = np.percentile(dense, [50, 95], axis=0)
    np.testing.assert_allclose(got[0], TEMPLATE.mean["od"], atol=0.02)
    np.testing.assert_allclose(got[1] - got[0], TEMPLATE.std["od"], atol=0.02)


def test_no_pixel_becomes_greener_than_red_that_was_not_on_clear_glass() -> None:
    """A very red slide, whose nuclei hardly absorb red: by channels alone they turn teal."""
    red = Statistics(
        {**SLIDE.mean, "od": (0.18, 0.9, 0.45)}, {**SLIDE.std, "od": (0.3, 0.74, 0.44)}, WHITE, 9
    )
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    out = single()(image, red)
    clear = image / torch.tensor(WHITE)[:, None, None]
    lead = (clear[:, 0] - clear[:, 1]).clamp(-1, 0) * 0.95
    assert (out[:, 0] - out[:, 1] >= lead - 1e-5).all()
    dense = (-(image / torch.tensor(WHITE)[:, None, None]).clamp_min(1 / 255).log()).clamp_min(0)
    target = TEMPLATE.mean["od"], TEMPLATE.std["od"]
    moments = (torch.tensor([red.mean["od"]]), torch.tensor([red.std["od"]]))
    unbounded = torch.exp(-matched_density(dense, *moments, *map(torch.tensor, target)))
    assert (unbounded[:, 0] - unbounded[:, 1] < lead - 0.1).any()


def test_statistics_that_lack_density_are_refused_in_a_line() -> None:
    old = Statistics({"rgb": (0.5, 0.5, 0.5)}, {"rgb": (0.1, 0.1, 0.1)}, WHITE, 9)
    with pytest.raises(ValueError, match="lack colour space 'od': measure them anew"):
        single()(torch.full((1, 3, 8, 8), 0.5), old)


def test_a_template_without_density_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks colour space 'od'"):
        LStainNorm("single:od", template=Template({"rgb": (0, 0, 0)}, {"rgb": (1, 1, 1)}))


def test_what_is_unlike_the_target_is_told_with_its_figures() -> None:
    target, spread = TEMPLATE.mean["od"], TEMPLATE.std["od"]
    assert doubts(target, spread, target, spread) == []
    assert doubts((0.1, 1.9, 0.5), spread, target, spread) == []  # 2.7 and 0.4 times
    (line,) = doubts((0.02, 0.4, 0.2), spread, target, spread)
    assert "stroma absorbs red, green and blue 14, 1.9, 2.1 times" in line
    (line,) = doubts(target, (0.1, 0.7, 0.4), target, spread)
    assert "nuclei stand out from stroma by 6.4, 1.1, 1 times" in line
    (line,) = doubts(target, spread, (-0.1, 0.7, 0.4), spread)
    assert "stroma" in line
