"""Density: its robust statistics against numpy, and what its curve may never do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.builders import SLIDE, TEMPLATE, density_by_numpy
from wsi_norm.lstainnorm import LStainNorm, Statistics, Template
from wsi_norm.lstainnorm.density import (
    NUCLEI_GAIN,
    byte_curves,
    counts_of,
    curve,
    density,
    density_of_counts,
    doubts,
    measure_density,
)

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


@settings(max_examples=200, deadline=None)
@given(own=THREE, spread=THREE, target=THREE, target_spread=THREE)
def test_the_curve_never_falls_and_amplifies_within_bounds(
    own: tuple, spread: tuple, target: tuple, target_spread: tuple
) -> None:
    """Whatever is measured: one stain, no nuclei, nuclei alone, nothing at all."""
    dense = torch.linspace(0, 5.6, 800, dtype=torch.float64).expand(1, 3, 1, 800)
    moments = (torch.tensor([m], dtype=torch.float64) for m in (own, spread))
    aims = (torch.tensor(m, dtype=torch.float64) for m in (target, target_spread))
    there = curve(dense, *moments, *aims)
    assert (there >= 0).all()
    slope = there.diff(dim=-1) / dense.diff(dim=-1)
    assert (slope >= -1e-9).all()
    assert (slope <= NUCLEI_GAIN[1] + 1e-9).all()
    paler = dense[0, 0, 0, 1:] <= torch.tensor(own).min()
    assert (slope[..., paler] <= 1 + 1e-9).all()


def test_stroma_and_nuclei_become_the_targets_and_beyond_them_differences_stay() -> None:
    own, spread, target, target_spread = (
        torch.tensor([[0.2, 0.5, 0.3], [0.5, 0.9, 0.4], [0.3, 0.8, 0.4], [0.6, 0.7, 0.5]])
        .double()
        .unbind(0)
    )
    at = torch.stack([own, own + spread, own + spread + 0.7])
    there = curve(at.T[None, :, :, None], own[None], spread[None], target, target_spread)
    expected = torch.stack([target, target + target_spread, target + target_spread + 0.7])
    torch.testing.assert_close(there[0, :, :, 0].T, expected)


@settings(max_examples=50, deadline=None)
@given(own=THREE, spread=THREE, white=st.tuples(*[st.floats(0.5, 1.0)] * 3))
def test_the_bytes_curves_are_those_of_the_definition(
    own: tuple, spread: tuple, white: tuple
) -> None:
    target, target_spread = np.array([0.3, 0.8, 0.4]), np.array([0.6, 0.7, 0.5])
    matched, clear = byte_curves(white, np.array(own), np.array(spread), target, target_spread)
    gains = np.clip(target_spread / np.maximum(spread, 1e-4), 0.2, 4)
    for c in range(3):
        light = np.maximum(np.arange(256), 1) / 255
        dense = np.maximum(0, -np.log(light / white[c]))
        np.testing.assert_allclose(clear[c], 0.95 * np.exp(-dense), atol=1e-12)
        ends = own[c], own[c] + spread[c]
        there = [
            max(target[c] - own[c] + min(d, ends[0]), 0)
            + gains[c] * min(max(d - ends[0], 0), spread[c])
            + max(d - ends[1], 0)
            for d in dense
        ]
        np.testing.assert_allclose(matched[c], 0.95 * np.exp(-np.array(there)), atol=1e-12)


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
    dense = -image.clamp_min(1 / 255).log()
    target = TEMPLATE.mean["od"], TEMPLATE.std["od"]
    moments = (torch.tensor([red.mean["od"]]), torch.tensor([red.std["od"]]))
    unbounded = torch.exp(-curve(dense, *moments, *map(torch.tensor, target)))
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
