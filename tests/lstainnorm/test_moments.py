"""Mean and std against numpy; sums that add up over images, groups and streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color
from torch import Tensor

from wsi_norm.lstainnorm.moments import (
    MIN_TISSUE_SHARE,
    MomentPool,
    least_tissue,
    mean_and_std,
)
from wsi_norm.lstainnorm.normalization import SpaceNormalization
from wsi_norm.lstainnorm.sums import add_pixels, numbered, shared
from wsi_norm.lstainnorm.template import Template
from wsi_norm.spaces import SPACES

TEMPLATE = Template(
    mean=dict.fromkeys(SPACES, (0.5, 0.5, 0.5)), std=dict.fromkeys(SPACES, (0.1, 0.1, 0.1))
)


def images(count: int, seed: int = 0, height: int = 9, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, height, width, generator=generator) * 0.9 + 0.05


def weights(count: int, seed: int = 1, height: int = 9, width: int = 8) -> Tensor:
    return torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(seed))


def test_the_pool_weighs_pixels() -> None:
    image = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    weight = torch.rand(2, 1, 9, 8, generator=torch.Generator().manual_seed(1))
    pool = MomentPool(["rgb", "hsv"])
    for part in range(2):
        add_pixels(pool, image[part : part + 1], weight[part : part + 1])
    mean, std = pool.moments()
    w = weight.flatten().double().numpy()
    rgb = image.movedim(1, -1).reshape(-1, 3).double().numpy()
    average = np.average(rgb, axis=0, weights=w)
    np.testing.assert_allclose(mean["rgb"], average, rtol=1e-6)
    variance = np.average((rgb - average) ** 2, axis=0, weights=w)
    np.testing.assert_allclose(std["rgb"], np.sqrt(variance), rtol=1e-5)
    angles = np.exp(2j * np.pi * color.rgb2hsv(rgb[:, None])[:, 0, 0])
    resultant = np.average(angles, weights=w)
    assert mean["hsv"][0] == pytest.approx(np.angle(resultant) % (2 * np.pi), rel=1e-5)
    assert std["hsv"][0] == pytest.approx(np.sqrt(-2 * np.log(abs(resultant))), rel=1e-5)
    assert set(mean) == {"rgb", "hsv"}
    assert pool.tissue_pixels == round(w.sum())


@pytest.mark.parametrize("circular", [True, False])
def test_a_group_is_measured_as_one_image(circular: bool) -> None:
    """Images side by side are one image: the group's moments are that image's."""
    normalization = SpaceNormalization(SPACES, TEMPLATE, circular)
    image, weight = images(4), weights(4)
    group = torch.tensor([5, 2, 5, 5])
    mean, std, usable = normalization.measure(image, weight, group=group)
    together = [torch.cat(list(x[group == 5]), dim=-1)[None] for x in (image, weight)]
    expected_mean, expected_std, _ = normalization.measure(*together)
    for index in (0, 2, 3):
        torch.testing.assert_close(mean[index], expected_mean[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(std[index], expected_std[0], rtol=1e-4, atol=1e-5)
    alone = normalization.measure(image[1:2], weight[1:2])[0]
    torch.testing.assert_close(mean[1], alone[0])
    assert usable.tolist() == [True] * 4


def test_the_layer_and_the_pool_agree() -> None:
    normalization = SpaceNormalization(SPACES, TEMPLATE, circular_hue=True)
    image, weight = (images(1) * 255).round() / 255, weights(1)
    white = (0.9, 0.95, 0.97)
    glass = torch.tensor(white)[:, None, None]
    mean, std, _ = normalization.measure(image, weight, white=glass)
    pool = MomentPool(white=white)
    add_pixels(pool, image, weight)
    for got, expected in zip((mean, std), pool.arrays(), strict=True):
        np.testing.assert_allclose(got[0].numpy(), expected, rtol=2e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_stream_is_the_same_however_it_is_cut(cuts: list[int], seed: int) -> None:
    """To the rounding of float32 where CIELAB reaches 100, 4e-6: that depends on the batch."""
    image, weight = images(sum(cuts), seed), weights(sum(cuts), seed + 1)
    whole, parts = MomentPool(), MomentPool()
    add_pixels(whole, image, weight)
    for x, w in zip(image.split(cuts), weight.split(cuts), strict=True):
        add_pixels(parts, x, w)
    for got, expected in zip(parts.arrays(), whole.arrays(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=4e-6)
    assert (parts.tissue_pixels, parts.usable) == (whole.tissue_pixels, whole.usable)


def test_gradients_flow_even_where_nothing_varies() -> None:
    normalization = SpaceNormalization(SPACES, TEMPLATE, circular_hue=True)
    for image in (images(2), torch.full((1, 3, 8, 8), 0.4)):
        image.requires_grad_()
        mean, std, _ = normalization.measure(image, torch.ones_like(image[:, :1]))
        (mean.sum() + std.sum()).backward()
        assert image.grad is not None
        assert image.grad.isfinite().all()


def test_the_least_tissue_is_a_pixel_or_a_hundredth() -> None:
    assert least_tissue(10) == 1.0
    assert least_tissue(10_000) == MIN_TISSUE_SHARE * 10_000
    normalization = SpaceNormalization(("rgb",), TEMPLATE, circular_hue=True)
    image = images(2, height=20, width=20)
    weight = torch.zeros(2, 1, 20, 20)
    weight[0, 0, 0, :4] = 1.0  # 4 of 400
    weight[1, 0, 0, :3] = 1.0
    assert normalization.measure(image, weight)[2].tolist() == [True, False]


def test_no_weight_gives_no_nan() -> None:
    mean, std = mean_and_std(torch.zeros(5, 3, 2), torch.tensor(0.0), SPACES, circular_hue=True)
    assert mean.isfinite().all()
    assert std.isfinite().all()


def test_shared_and_numbered() -> None:
    group = torch.tensor([9, 3, 9])
    values, place = numbered(group)
    assert (values.tolist(), place.tolist()) == ([3, 9], [1, 0, 1])
    x = torch.tensor([[1.0], [2.0], [4.0]])
    assert shared(x, group, "sum").flatten().tolist() == [5.0, 2.0, 5.0]
    assert shared(x, group, "mean").flatten().tolist() == [2.5, 2.0, 2.5]
