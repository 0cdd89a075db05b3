"""Colour spaces against scikit-image and colorsys; round trips, gradients, dtypes, batches."""

import colorsys

import numpy as np
import pytest
import torch
from skimage import color
from torch import Tensor

from wsi_norm.colorspace import CONVERSIONS, hed_to_rgb, rgb_to_hed
from wsi_norm.spaces import CHANNELS, HUE, SPACES

CORNERS = [
    (0.0, 0.0, 0.0),
    (1.0, 1.0, 1.0),
    (0.5, 0.5, 0.5),
    (1.0, 0.0, 0.0),
    (0.0, 1.0, 0.0),
    (0.0, 0.0, 1.0),
    (0.01, 0.02, 0.03),
    (0.7, 0.5, 0.69),
]


def random_image(*shape: int, seed: int = 0, low: float = 0.02) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (0.98 - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def corner_image() -> Tensor:
    """(1, 3, 1, 8): black, white, grey, primaries, almost black, H&E."""
    return torch.tensor(CORNERS, dtype=torch.float64).T[None, :, None]


def channels_last(image: Tensor) -> np.ndarray:
    return image.movedim(-3, -1).numpy()


@pytest.mark.parametrize("image", [random_image(2, 3, 24, 20), corner_image()])
def test_lab_is_that_of_scikit_image(image: Tensor) -> None:
    expected = color.rgb2lab(channels_last(image))
    got = channels_last(CONVERSIONS["lab"].from_rgb(image))
    np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize("image", [random_image(2, 3, 24, 20), corner_image()])
def test_hsv_is_that_of_scikit_image_with_hue_in_radians(image: Tensor) -> None:
    expected = color.rgb2hsv(channels_last(image))
    got = channels_last(CONVERSIONS["hsv"].from_rgb(image))
    turn = np.exp(1j * got[..., 0]) - np.exp(2j * np.pi * expected[..., 0])
    assert np.abs(turn).max() < 1e-6
    assert got[..., 0].min() >= 0
    assert got[..., 0].max() < 2 * np.pi
    np.testing.assert_allclose(got[..., 1:], expected[..., 1:], atol=1e-6)


def test_hsv_to_rgb_is_that_of_colorsys_for_any_hue() -> None:
    hue = torch.linspace(-7.0, 14.0, 43, dtype=torch.float64)
    image = torch.stack([hue, torch.full_like(hue, 0.6), torch.full_like(hue, 0.8)])[:, None]
    expected = [colorsys.hsv_to_rgb((h / (2 * np.pi)) % 1, 0.6, 0.8) for h in hue.tolist()]
    got = CONVERSIONS["hsv"].to_rgb(image)[:, 0].T
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_hed_is_that_of_scikit_image_where_it_does_not_clamp() -> None:
    image = random_image(2, 3, 24, 20)
    expected = color.rgb2hed(channels_last(image))
    got = channels_last(rgb_to_hed(image))
    assert (expected > 0).mean() > 0.3
    np.testing.assert_allclose(got[expected > 0], expected[expected > 0], atol=1e-7)
    assert got[expected == 0].max() <= 1e-7


def test_stain_amounts_become_the_colours_of_scikit_image() -> None:
    stains = random_image(1, 3, 16, 16) * torch.tensor([0.08, 0.05, 0.03])[:, None, None]
    expected = color.hed2rgb(channels_last(stains))
    assert expected.min() > 0.05
    np.testing.assert_allclose(channels_last(hed_to_rgb(stains)), expected, atol=1e-6)


def test_rgb_is_itself() -> None:
    image = random_image(1, 3, 4, 4)
    assert CONVERSIONS["rgb"].from_rgb(image) is image
    assert CONVERSIONS["rgb"].to_rgb(image) is image


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("image", [random_image(2, 3, 24, 20, low=0.0), corner_image()])
def test_there_and_back(space: str, image: Tensor) -> None:
    conversion = CONVERSIONS[space]
    image = image.clamp_min({"hed": 1e-6, "od": 1 / 255}.get(space, 0))
    back = conversion.to_rgb(conversion.from_rgb(image))
    torch.testing.assert_close(back, image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("space", ["lab", "hed"])
def test_the_way_back_does_not_clip(space: str) -> None:
    outside = {"lab": (60.0, 120.0, -120.0), "hed": (-0.05, -0.05, -0.05)}[space]
    rgb = CONVERSIONS[space].to_rgb(torch.tensor(outside)[:, None, None])
    assert rgb.max() > 1


def test_every_space_names_three_channels_and_hue_is_one() -> None:
    assert set(CONVERSIONS) == set(CHANNELS) == set(SPACES)
    assert all(len(set(names)) == 3 for names in CHANNELS.values())
    space, channel = HUE
    assert CHANNELS[space][channel] == "hue"


@pytest.mark.parametrize("space", SPACES)
def test_gradients_are_right_away_from_kinks(space: str) -> None:
    conversion = CONVERSIONS[space]
    colours = torch.tensor(
        [[0.7, 0.3, 0.5], [0.2, 0.6, 0.35], [0.4, 0.45, 0.9], [0.8, 0.55, 0.3]],
        dtype=torch.float64,
    )
    image = colours.T.reshape(3, 2, 2).clone().requires_grad_()
    assert torch.autograd.gradcheck(conversion.from_rgb, (image,))
    there = conversion.from_rgb(image.detach()).requires_grad_()
    assert torch.autograd.gradcheck(conversion.to_rgb, (there,))


@pytest.mark.parametrize("space", SPACES)
def test_gradients_are_finite_at_black_white_grey_and_primaries(space: str) -> None:
    image = corner_image().float().requires_grad_()
    conversion = CONVERSIONS[space]
    there = conversion.from_rgb(image)
    there.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    again = there.detach().requires_grad_()
    conversion.to_rgb(again).sum().backward()
    assert again.grad is not None
    assert again.grad.isfinite().all()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-4), (torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.03)],
)
def test_dtype_is_kept(space: str, dtype: torch.dtype, tolerance: float) -> None:
    image = random_image(1, 3, 8, 8, low=0.2)
    conversion = CONVERSIONS[space]
    there = conversion.from_rgb(image.to(dtype))
    back = conversion.to_rgb(there)
    assert there.dtype == back.dtype == dtype
    torch.testing.assert_close(back.double(), image, atol=tolerance, rtol=0)


@pytest.mark.parametrize("space", SPACES)
def test_an_image_does_not_depend_on_its_batch(space: str) -> None:
    """But for float32's rounding, which vectorised powers do in another order."""
    batch = random_image(3, 3, 9, 7).float()
    conversion = CONVERSIONS[space]
    there = conversion.from_rgb(batch)
    back = conversion.to_rgb(there)
    for index, image in enumerate(batch):
        alone = conversion.from_rgb(image[None])[0]
        torch.testing.assert_close(alone, there[index], atol=1e-4, rtol=0)
        alone = conversion.to_rgb(there[index][None])[0]
        torch.testing.assert_close(alone, back[index], atol=1e-6, rtol=0)


@pytest.mark.parametrize("space", SPACES)
def test_any_leading_axes(space: str) -> None:
    batch = random_image(2, 3, 3, 5, 4)
    conversion = CONVERSIONS[space]
    there = conversion.from_rgb(batch)
    assert there.shape == batch.shape
    torch.testing.assert_close(conversion.from_rgb(batch[1, 2]), there[1, 2])
    torch.testing.assert_close(conversion.to_rgb(there)[1, 2], conversion.to_rgb(there[1, 2]))
