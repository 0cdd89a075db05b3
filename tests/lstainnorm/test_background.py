"""Glass and tissue relative to the image's own white level."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wsi_norm.glass import GLASS_ABSORPTION, TISSUE_ABSORPTION, white_level
from wsi_norm.lstainnorm.background import (
    bounded,
    fill_of,
    tissue_weight,
    white_of,
)
from wsi_norm.lstainnorm.shadow import shadow_range

levels = st.floats(0.0, 1.0, width=32)
colours = st.tuples(levels, levels, levels)


def pixel(*rgb: float) -> Tensor:
    return torch.tensor(rgb, dtype=torch.float32)[None, :, None, None]


def weight_of(rgb: tuple[float, ...], white: tuple[float, ...] = (1.0, 1.0, 1.0)) -> float:
    return float(tissue_weight(pixel(*rgb), pixel(*white)))


def test_white_is_that_of_the_images_bytes() -> None:
    image = torch.rand(2, 3, 30, 40, generator=torch.Generator().manual_seed(0))
    for got, one in zip(white_of(image), image, strict=True):
        levels = np.rint(255 * one.permute(1, 2, 0).double().numpy()).astype(np.uint8)
        np.testing.assert_allclose(got.flatten().numpy(), white_level(levels), rtol=1e-6)


def test_a_group_shares_its_white() -> None:
    image = 0.5 + 0.1 * torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    image[0, :, :8] = 0.9
    white = white_of(image, torch.tensor([7, 7, 2]))
    assert torch.equal(white[0], white[1])
    assert white[0, 0].item() == pytest.approx(round(0.9 * 255) / 255)
    levels = np.rint(255 * image[2].permute(1, 2, 0).numpy()).astype(np.uint8)
    np.testing.assert_allclose(white[2].flatten().numpy(), white_level(levels), rtol=1e-6)


def test_a_black_image_has_no_glass() -> None:
    image = torch.zeros(1, 3, 8, 8)
    assert (tissue_weight(image, white_of(image)) == 1).all()


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 1, 7), (2, 3, 5, 1)])
def test_white_of_tiny_images(shape: tuple[int, ...]) -> None:
    level = 230 / 255
    image = torch.full(shape, level)
    torch.testing.assert_close(white_of(image), torch.full((shape[0], 3, 1, 1), level))


def test_no_gradient_flows_through_white_or_weight() -> None:
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert not white_of(image).requires_grad
    assert not tissue_weight(image, white_of(image)).requires_grad


@given(absorbed=st.floats(0.0, GLASS_ABSORPTION - 1e-4), channel=st.integers(0, 2))
def test_glass_weighs_exactly_nothing(absorbed: float, channel: int) -> None:
    rgb = [1.0, 1.0, 1.0]
    rgb[channel] -= absorbed
    assert weight_of(tuple(rgb)) == 0.0


@given(absorbed=st.floats(TISSUE_ABSORPTION + 1e-4, 1.0), channel=st.integers(0, 2))
def test_tissue_in_one_channel_suffices(absorbed: float, channel: int) -> None:
    rgb = [1.0, 1.0, 1.0]
    rgb[channel] -= absorbed
    assert weight_of(tuple(rgb)) == 1.0


@given(rgb=colours, darker=st.floats(0.0, 1.0), channel=st.integers(0, 2))
def test_a_darker_pixel_is_no_less_tissue(
    rgb: tuple[float, ...], darker: float, channel: int
) -> None:
    below = list(rgb)
    below[channel] *= darker
    assert 0 <= weight_of(rgb) <= weight_of(tuple(below)) <= 1


def test_the_weight_rises_without_an_edge() -> None:
    ramp = torch.linspace(1, 0.8, 2001).expand(1, 3, 1, -1)
    weight = tissue_weight(ramp, pixel(1, 1, 1)).flatten()
    steps = weight.diff()
    assert weight[0] == 0
    assert weight[-1] == 1
    assert steps.min() >= 0
    assert steps.max() < 2e-3  # a straight ramp would make 1e-3
    assert steps.diff().abs().max() < 5e-5  # nor a bend


@given(rgb=colours, dimmed=st.floats(0.6, 1.0))
def test_tissue_is_relative_to_the_white_of_the_lamp(rgb: tuple[float, ...], dimmed: float) -> None:
    seen = tuple(value * dimmed for value in rgb)
    lamp = (dimmed,) * 3
    assert weight_of(seen, lamp) == pytest.approx(weight_of(rgb), abs=1e-4)


def test_yellowish_glass_is_glass() -> None:
    glass = torch.tensor([0.95, 0.93, 0.75])[None, :, None, None].expand(1, 3, 40, 40).clone()
    glass[..., 30:, :] *= torch.tensor([0.8, 0.5, 0.8])[:, None, None]
    weight = tissue_weight(glass, white_of(glass))[0, 0]
    assert (weight[:30] == 0).all()
    assert (weight[30:] == 1).all()


def test_one_white_for_a_whole_batch() -> None:
    image = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(2))
    white = torch.tensor([0.9, 0.8, 0.7])[:, None, None]
    weight = tissue_weight(image, white)
    assert weight.shape == (2, 1, 6, 5)
    assert torch.equal(weight, tissue_weight(image, white.expand(2, 3, 1, 1)))


def bounds(image: Tensor, matched: Tensor, start: float, slope: float) -> Tensor:
    return bounded(image, matched, torch.tensor([start]), torch.tensor([slope]))


def luminance(rgb: Tensor) -> Tensor:
    return 0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2]


def test_deep_shadow_keeps_hue_and_saturation() -> None:
    fold, black_green = pixel(0.40, 0.04, 0.15), pixel(0.05, 0.15, 0.10)
    out = bounds(fold, black_green, 0.5, 4.0)
    torch.testing.assert_close(out / out.amax(1, keepdim=True), fold / fold.amax(1, keepdim=True))
    torch.testing.assert_close(luminance(out), luminance(black_green), atol=1e-6, rtol=0)


def test_shadow_is_not_crushed() -> None:
    fold = pixel(0.40, 0.04, 0.15)
    out = bounds(fold, pixel(0.0, 0.0, 0.0), 0.5, 4.0)
    torch.testing.assert_close(luminance(out), luminance(fold) / 2)


@given(rgb=colours, matched=colours)
def test_nothing_becomes_greener_than_red_that_was_not(
    rgb: tuple[float, ...], matched: tuple[float, ...]
) -> None:
    before, after = pixel(*rgb), pixel(*matched)
    out = bounds(before, after, 0.0, 0.0)
    lead, had = float(out[:, 0] - out[:, 1]), float(before[:, 0] - before[:, 1])
    assert lead >= min(had, 0.0) - 1e-6
    torch.testing.assert_close(luminance(out), luminance(after), atol=2e-6, rtol=0)
    if float(after[:, 0]) >= float(after[:, 1]):
        torch.testing.assert_close(out, after)  # ordinary tissue is not touched


def test_the_range_of_shadow() -> None:
    mean, std = torch.tensor([[0.6, 0.4, 0.6]]), torch.tensor([[0.1, 0.1, 0.1]])
    start, slope = shadow_range(mean, std)
    middle = 0.299 * 0.6 + 0.587 * 0.4 + 0.114 * 0.6
    torch.testing.assert_close(start, torch.tensor([middle - 0.2]))
    torch.testing.assert_close(1 / slope, torch.tensor([0.075]))
    assert shadow_range(mean, 5 * std)[1].item() == 0  # it would begin below black
    assert shadow_range(mean, 0 * std)[1].item() == 0


def test_fill_of_an_image() -> None:
    image = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.3
    image[1, :, :, 30:] = 0
    fill = fill_of(image)
    assert not fill[0].any()
    assert fill[1, 0, :, 30:].all()
    assert not fill[1, 0, :, :30].any()
