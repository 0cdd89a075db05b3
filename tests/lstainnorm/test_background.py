"""Glass and tissue relative to the image's own white level."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wsi_norm.glass import GLASS_ABSORPTION, TISSUE_ABSORPTION, white_level
from wsi_norm.lstainnorm.background import (
    tissue_weight,
    white_of,
)

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
