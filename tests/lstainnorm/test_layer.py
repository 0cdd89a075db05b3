"""LStainNorm against the equations in plain numpy, on odd images, at its bounds, as a module."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color
from torch import Tensor, nn

from tests.builders import SLIDE, TEMPLATE
from wsi_norm.lstainnorm import (
    PRESETS,
    LayerConfig,
    LStainNorm,
    StainLayer,
    Statistics,
    Template,
)
from wsi_norm.lstainnorm.background import tissue_weight, white_of
from wsi_norm.lstainnorm.config import GAMMA_RANGE, MAX_GAIN
from wsi_norm.lstainnorm.moments import MomentPool
from wsi_norm.lstainnorm.reference import ReferenceLayer
from wsi_norm.lstainnorm.sums import add_pixels

SINGLE = [preset for preset in PRESETS if preset.startswith("single:")]
OURS = [preset for preset in PRESETS if preset != "reference"]
FUSED = ["paper", "product", "mean"]

NOISE_SD = 1.5 / 255


def layer_of(preset: str = "paper", **settings: object) -> StainLayer:
    torch.manual_seed(0)
    if preset == "reference":
        return ReferenceLayer(**{"spaces": ("lab", "hsv", "rgb"), "template": TEMPLATE, **settings})
    return LStainNorm(preset, template=TEMPLATE, **settings)


def moved(layer: LStainNorm, by: float = 0.3) -> LStainNorm:
    """Every parameter away from its start, so that each has a say."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return layer


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def constant(rgb: tuple[float, float, float], height: int = 32, width: int = 40) -> Tensor:
    return torch.tensor(rgb)[None, :, None, None].expand(1, 3, height, width).clone()


def tissue(height: int = 24, width: int = 40, seed: int = 0, batch: int = 1) -> Tensor:
    """Stained pixels from pink to dark purple, some noise."""
    amount = noise(batch, 1, height, width, seed=seed)
    dark, light = torch.tensor([0.3, 0.15, 0.45]), torch.tensor([0.85, 0.55, 0.75])
    blend = dark[:, None, None] * amount + light[:, None, None] * (1 - amount)
    return (blend + 0.04 * normal(batch, 3, height, width, seed=seed + 1)).clamp(0.02, 0.98)


def slide_like(height: int = 48, width: int = 40) -> Tensor:
    """Glass above, with a camera's noise; tissue below."""
    image = tissue(height, width)
    glass = 0.96 + NOISE_SD * normal(1, 3, height // 3, width, seed=5)
    image[..., : height // 3, :] = glass.clamp(0, 1)
    return image


# The equations, in numpy float64: Ke et al. 2025, steps 1 to 4, and our bounds on the parameters.


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """CIE 15 and IEC 61966-2-1, D65, without clipping."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, np.maximum(fy - lab[..., 2] / 200, 0)], axis=-1)
    ratio = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    xyz = ratio * np.array([0.95047, 1.0, 1.08883])
    to_xyz = np.array(
        [
            [0.412453, 0.357580, 0.180423],
            [0.212671, 0.715160, 0.072169],
            [0.019334, 0.119193, 0.950227],
        ]
    )
    linear = xyz @ np.linalg.inv(to_xyz).T
    curved = 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    return np.where(linear > 0.0031308, curved, 12.92 * linear)


def hsv_to_rgb(hsv: np.ndarray) -> np.ndarray:
    """v - v s max(0, min(k, 4 - k, 1)), k = (n + h / 60 degrees) mod 6, n = 5, 3, 1."""
    k = (np.array([5, 3, 1]) + hsv[..., :1] * 3 / np.pi) % 6
    amount = np.clip(np.minimum(k, 4 - k), 0, 1)
    return hsv[..., 2:] * (1 - hsv[..., 1:2] * amount)


def rgb_to_hsv(rgb: np.ndarray) -> np.ndarray:
    return color.rgb2hsv(rgb) * np.array([2 * np.pi, 1, 1])


def unclamped_hed(rgb: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(rgb, 1e-6)) / np.log(1e-6) @ color.hed_from_rgb


def hed_to_rgb(hed: np.ndarray) -> np.ndarray:
    return np.exp(np.log(1e-6) * (hed @ color.rgb_from_hed))


TO = {"rgb": np.array, "lab": color.rgb2lab, "hsv": rgb_to_hsv, "hed": unclamped_hed}
BACK = {"rgb": np.array, "lab": lab_to_rgb, "hsv": hsv_to_rgb, "hed": hed_to_rgb}


def equations(
    layer: LStainNorm, image: Tensor, statistics: Statistics, circular: bool = True
) -> np.ndarray:
    """The layer's output (H, W, 3) for one image (1, 3, H, W)."""
    p = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
    rgb = image[0].double().permute(1, 2, 0).numpy()
    branches = []
    for index, space in enumerate(layer.config.spaces):
        std = np.array(TEMPLATE.std[space])
        if space == "od":
            factor = np.clip(1 + p["normalization.std_offset"][index], *GAMMA_RANGE)
            aim = TEMPLATE.mean[space] + std * p["normalization.mean_offset"][index]
            branches.append(by_density(rgb, statistics, aim, std * factor))
            continue
        gamma = std * np.clip(1 + p["normalization.std_offset"][index], *GAMMA_RANGE)
        beta = TEMPLATE.mean[space] + std * p["normalization.mean_offset"][index]
        sigma = np.maximum(statistics.std[space], std / MAX_GAIN)
        deviation = TO[space](rgb) - np.array(statistics.mean[space])
        if space == "hsv" and circular:
            deviation[..., 0] = np.angle(np.exp(1j * deviation[..., 0]))
        branches.append(np.clip(BACK[space](gamma * deviation / sigma + beta), 0, 1))
    y = np.stack(branches)
    fuse = {"paper": fuse_paper, "product": fuse_product, "mean": fuse_mean}
    fused = y[0] if len(y) == 1 else fuse[layer.config.preset](p, y)
    if layer.config.spaces == ("od",):
        return fused
    return within_bounds(rgb, fused, statistics)


def by_density(
    rgb: np.ndarray,
    statistics: Statistics,
    aim: np.ndarray,
    its_spread: np.ndarray,
) -> np.ndarray:
    """Stroma to stroma, nuclei to nuclei, the pale by as much as it holds of stroma's density."""
    dense = np.maximum(-np.log(np.maximum(rgb, 1 / 255) / statistics.white), 0)
    own, spread = (np.array(m["od"]) for m in (statistics.mean, statistics.std))
    amount = np.minimum(dense.sum(axis=-1, keepdims=True) / own.sum(), 1)
    gain = np.clip(its_spread / spread, 0.2, 4)
    nuclei = np.clip(dense - own, 0, spread)
    there = np.maximum(dense + amount * (aim - own) + (gain - 1) * nuclei, 0)
    return no_greener(0.95 * np.exp(-dense), 0.95 * np.exp(-there))


def no_greener(before: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Red and green meet where green would lead as it did not; luminance stays."""
    y = y.copy()
    for at in np.ndindex(y.shape[:2]):
        allowed, greener = max(before[at][1] - before[at][0], 0), y[at][1] - y[at][0]
        if greener > allowed:
            red_for_green = 0.587 / 0.299
            change = (greener - allowed) / (1 + red_for_green)
            y[at] += change * np.array([red_for_green, -1, 0])
    return y


def within_bounds(rgb: np.ndarray, y: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Shadow keeps its hue and saturation; nothing that was not becomes greener than red."""
    luminance = np.array([0.299, 0.587, 0.114])
    mean, spread = (luminance @ m["rgb"] for m in (statistics.mean, statistics.std))
    y = y.copy()
    for at in np.ndindex(rgb.shape[:2]):
        before, after = luminance @ rgb[at], luminance @ y[at]
        depth = np.clip((mean - before - 2 * spread) / (0.75 * spread), 0, 1)
        depth = depth**2 * (3 - 2 * depth)
        shadow = np.clip(rgb[at] * max(after / before, 0.5), 0, 1)
        y[at] = depth * shadow + (1 - depth) * y[at]
    return no_greener(rgb, y)


def fuse_mean(p: dict[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    weight = np.maximum(p["fusion.weight"], 1e-3)
    return np.average(y, axis=0, weights=weight)


def fuse_product(p: dict[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    weight = np.exp(p["fusion.logits"]) / np.exp(p["fusion.logits"]).sum()
    return sum(w * m * branch for w, m, branch in zip(weight, attention_maps(p, y), y, strict=True))


def fuse_paper(p: dict[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    delta = np.maximum(p["fusion.delta"], 0)
    evidence = delta[:, None, None] * attention_maps(p, y) + y
    pixelwise = evidence / (evidence.sum(axis=0) + 1e-7)
    scale, shift = (p[f"fusion.{name}"][:, None, None, None] for name in ("scale", "shift"))
    weight = np.maximum(scale * pixelwise + shift, 1e-3)
    return (weight * y).sum(axis=0) / weight.sum(axis=0)


def attention_maps(p: dict[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    maps = []
    for s, branch in enumerate(y):
        q, k = (
            pooled(
                branch @ p[f"fusion.attention.{name}_weight"][s]
                + p[f"fusion.attention.{name}_bias"][s]
            )
            for name in ("query", "key")
        )
        v = pooled(branch)
        scores = np.exp(np.outer(q.ravel(), k.ravel()))
        attended = scores / scores.sum(axis=1, keepdims=True) @ v.reshape(-1, 3)
        maps.append(bilinear(attended.reshape(v.shape), branch.shape[:2]))
    return np.stack(maps)


def pooled(x: np.ndarray) -> np.ndarray:
    """Maxima of 8 x 8 squares; a smaller one at the edge is what replicating the edge gives."""
    rows = np.maximum.reduceat(x, np.arange(0, x.shape[0], 8), axis=0)
    return np.maximum.reduceat(rows, np.arange(0, x.shape[1], 8), axis=1)


def bilinear(small: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """8 times as large, between the centres of the small pixels, flat beyond them; cropped."""
    for axis in (0, 1):
        at = (np.arange(shape[axis]) + 0.5) / 8 - 0.5
        known = np.arange(small.shape[axis])
        small = np.apply_along_axis(
            lambda line, at, known: np.interp(at, known, line), axis, small, at, known
        )
    return small


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize(("height", "width"), [(24, 40), (21, 13)])
@pytest.mark.parametrize("by", [0.0, 0.3])
def test_the_equations(preset: str, height: int, width: int, by: float) -> None:
    layer = moved(layer_of(preset, background="normalize"), by)
    image = tissue(height, width)
    got = layer(image, SLIDE)[0].permute(1, 2, 0).detach().numpy()
    expected = equations(layer, image, SLIDE)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.abs(got - image[0].permute(1, 2, 0).numpy()).mean() > 0.02


@pytest.mark.parametrize("preset", FUSED)
def test_the_equations_in_five_spaces_of_any_order(preset: str) -> None:
    spaces = ("hed", "lab", "od", "rgb", "hsv")
    layer = moved(layer_of(preset, spaces=spaces, background="normalize"))
    assert layer.config.spaces == spaces
    image = tissue(30, 17)
    got = layer(image, SLIDE)[0].permute(1, 2, 0).detach().numpy()
    np.testing.assert_allclose(got, equations(layer, image, SLIDE), atol=1e-4)


@pytest.mark.parametrize("form", ["direct", "linear"])
def test_the_equations_where_attention_is_linear(form: str) -> None:
    """256 tokens, and weights large enough for attention to move pixels."""
    layer = moved(layer_of("paper", background="normalize"), 2.0)
    layer.attention_form = form
    image = tissue(128, 128)
    got = layer(image, SLIDE)[0].permute(1, 2, 0).detach().numpy()
    np.testing.assert_allclose(got, equations(layer, image, SLIDE), atol=1e-4)


def test_the_equations_with_linear_hue() -> None:
    layer = moved(layer_of("single:hsv", background="normalize", circular_hue=False))
    image = tissue()
    image[:, 0] = 0.9
    image[..., 20:] = image[:, [0, 2, 1], :, 20:]  # red on both sides of hue 0
    got = layer(image, SLIDE)[0].permute(1, 2, 0).detach().numpy()
    expected = equations(layer, image, SLIDE, circular=False)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.abs(got - equations(layer, image, SLIDE)).max() > 0.05


def test_the_background_is_blended_by_its_weight() -> None:
    image = slide_like()
    layer = layer_of(background="preserve")
    preserved = layer(image, SLIDE)
    layer.configure(background="normalize")
    weight = tissue_weight(image, torch.tensor(SLIDE.white)[:, None, None])
    assert 0 < weight.mean() < 1
    expected = image + weight * (layer(image, SLIDE) - image)
    torch.testing.assert_close(preserved, expected, atol=1e-6, rtol=0)


def test_measured_statistics_are_those_of_the_tissue() -> None:
    """Per image in a batch, by numpy, on dark images without glass."""
    batch = torch.cat([0.6 * tissue(), 0.4 * tissue(seed=3)])
    layer = layer_of(spaces=("rgb", "lab", "hsv", "hed"))
    weight = tissue_weight(batch, white_of(batch))
    assert (weight == 1).all()
    mean, std, usable = layer.normalization.measure(batch, weight)
    assert usable.all()
    for index, image in enumerate(batch):
        rgb = image.double().permute(1, 2, 0).numpy()
        for s, space in enumerate(layer.config.spaces):
            x = TO[space](rgb).reshape(-1, 3)
            expected = x.mean(axis=0), x.std(axis=0)
            if space == "hsv":
                resultant = np.exp(1j * x[:, 0]).mean()
                expected[0][0] = np.angle(resultant) % (2 * np.pi)
                expected[1][0] = np.sqrt(-2 * np.log(abs(resultant)))
            np.testing.assert_allclose(mean[index, s], expected[0], rtol=2e-4)
            np.testing.assert_allclose(std[index, s], expected[1], rtol=2e-3)


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize("background", ["preserve", "normalize"])
def test_given_statistics_and_measured_ones_agree(preset: str, background: str) -> None:
    image = (slide_like() * 255).round() / 255
    white = white_of(image)
    pool = MomentPool(white=tuple(white.flatten().tolist()))
    add_pixels(pool, image, tissue_weight(image, white))
    mean, std = pool.moments()
    statistics = Statistics(mean, std, tuple(white.flatten().tolist()), pool.tissue_pixels)
    layer = moved(layer_of(preset, background=background))
    torch.testing.assert_close(layer(image, statistics), layer(image), atol=1e-4, rtol=0)


def test_the_statistics_of_an_image_do_not_depend_on_its_batch() -> None:
    layer = moved(layer_of())
    batch = torch.cat([slide_like(), 0.7 * slide_like(), constant((1, 1, 1), 48, 40)])
    together = layer(batch)
    for index in range(3):
        alone = layer(batch[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    preset=st.sampled_from(OURS),
    background=st.sampled_from(["preserve", "normalize"]),
    seed=st.integers(0, 100),
)
def test_any_height_and_width(
    height: int, width: int, preset: str, background: str, seed: int
) -> None:
    image = noise(2, 3, height, width, seed=seed)
    out = layer_of(preset, background=background)(image)
    assert out.shape == image.shape
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("preset", [*OURS, "reference"])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("edge", [40, 136])
def test_every_parameter_learns(preset: str, given: bool, edge: int) -> None:
    """At 136 px there are tokens enough for the linear attention."""
    layer = layer_of(preset)
    image = slide_like(edge, edge).requires_grad_()
    out = layer(image, SLIDE if given else None)
    (out * normal(*out.shape, seed=3)).sum().backward()
    for name, value in [*layer.named_parameters(), ("image", image)]:
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
        key_bias = name in ("fusion.attention.key_bias", "fusion.key.bias")
        assert key_bias or value.grad.abs().amax() > 0, name  # it cancels in the softmax


@pytest.mark.parametrize("preset", ["paper", "product", "mean", "single:hed", "single:od"])
def test_gradients_by_differences(preset: str) -> None:
    layer = moved(layer_of(preset, background="normalize"), 0.1).double()
    image = (0.25 + 0.5 * tissue(9, 7).double()).requires_grad_()
    values = [image, *layer.parameters()]
    upstream = normal(1, 3, 9, 7, seed=4).double()

    def loss() -> Tensor:
        return (layer(image, SLIDE) * upstream).sum()

    gradients = torch.autograd.grad(loss(), values)
    for index, (value, gradient) in enumerate(zip(values, gradients, strict=True)):
        direction = normal(*value.shape, seed=index).double()
        sides = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                value += step * direction
                sides.append(float(loss()))
                value -= step * direction
        difference = (sides[0] - sides[1]) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("preset", OURS)
def test_a_step_of_training_lowers_the_loss(preset: str) -> None:
    layer = layer_of(preset)
    image = slide_like(24, 24)
    aim = 0.8 * image
    optimizer = torch.optim.AdamW(layer.parameters(), 1e-2, weight_decay=0.0)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (layer(image) - aim).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize("given", [False, True])
def test_glass_keeps_its_colour_exactly(preset: str, given: bool) -> None:
    image = slide_like()
    out = moved(layer_of(preset))(image, SLIDE if given else None)
    glass = slice(0, 16)
    assert torch.equal(out[..., glass, :], image[..., glass, :])
    assert (out[..., 16:, :] - image[..., 16:, :]).abs().mean() > 0.01


def test_normalising_the_background_changes_it() -> None:
    image = slide_like()
    out = layer_of(background="normalize")(image, SLIDE)
    assert (out[..., :16, :] - image[..., :16, :]).abs().mean() > 0.01


@pytest.mark.parametrize("preset", OURS)
def test_no_edge_between_glass_and_tissue(preset: str) -> None:
    """From clear glass to stain in small steps: a hard threshold would jump."""
    share = torch.linspace(0, 1, 1501)
    white, stain = torch.tensor(SLIDE.white), torch.tensor([0.55, 0.3, 0.6])
    ramp = white[:, None] * (1 - share) + stain[:, None] * share
    image = ramp[None, :, None].repeat(1, 1, 8, 1)
    out = layer_of(preset)(image, SLIDE)
    shift = (out - image).abs().amax()
    assert shift > 0.04
    assert out.diff(dim=-1).abs().amax() < 0.1 * shift


CONSTANTS = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "grey": (0.3, 0.3, 0.3),
    "stain": (0.45, 0.2, 0.4),
    "red": (1.0, 0.0, 0.0),
}


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("background", ["preserve", "normalize"])
def test_constant_tiles_stay_as_they_are(preset: str, name: str, background: str) -> None:
    """They are glass or fill: no scanner sees a constant colour elsewhere."""
    image = constant(CONSTANTS[name]).requires_grad_()
    out, usable = layer_of(preset, background=background).normalize(image)
    assert not usable.any()
    assert torch.equal(out, image)
    out.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize("name", ["grey", "stain", "red"])
def test_nearly_constant_tiles_get_the_colour_aimed_at(preset: str, name: str) -> None:
    image = (constant(CONSTANTS[name]) + 0.5 / 255 * normal(1, 3, 32, 40)).clamp(0, 1)
    layer = layer_of(preset, background="normalize")
    out, usable = layer.normalize(image.requires_grad_())
    assert usable.all()
    assert out.isfinite().all()
    if preset == "single:rgb":
        aim = torch.tensor(TEMPLATE.mean["rgb"])
        torch.testing.assert_close(out[0].mean(dim=(-2, -1)), aim, atol=0.01, rtol=0)
    out.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize("pixels", [1, 40])
@pytest.mark.parametrize("background", ["preserve", "normalize"])
def test_white_with_a_little_colour(preset: str, pixels: int, background: str) -> None:
    """One pixel is no statistics: all is passed through; from forty on, glass is still glass."""
    image = constant((1.0, 1.0, 1.0))
    image[0, :, 0, :pixels] = torch.tensor([0.6, 0.2, 0.5])[:, None]
    out, usable = layer_of(preset, background=background).normalize(image)
    assert bool(usable) is (pixels > 1)
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1
    if pixels == 1 or background == "preserve":
        assert (out[..., 1:, :] == 1).all()
    if pixels == 1:
        assert torch.equal(out, image)


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize("given", [False, True])
def test_noise_on_glass_is_left_alone(preset: str, given: bool) -> None:
    image = (0.95 + NOISE_SD * normal(1, 3, 64, 64)).clamp(0, 1)
    out = layer_of(preset)(image, SLIDE if given else None)
    assert torch.equal(out, image)


@pytest.mark.parametrize("preset", OURS)
def test_noise_on_flat_stain_is_not_amplified_beyond_the_bound(preset: str) -> None:
    """Without a floor under sigma its sd would become the template's, some 40 / 255.

    The bound holds in each space's own units; at this colour the way from HSV or HED to RGB adds
    up to 30 % to it.
    """
    image = (constant((0.62, 0.35, 0.60), 64, 64) + NOISE_SD * normal(1, 3, 64, 64)).clamp(0, 1)
    out, usable = layer_of(preset).normalize(image)
    assert usable.all()
    bent = 1.3 if preset in ("single:hsv", "single:hed") else 1.05
    assert out.std(dim=(-2, -1)).max() < bent * MAX_GAIN * NOISE_SD


def test_the_bound_of_the_gain_is_reached_but_not_passed() -> None:
    image = (constant((0.62, 0.35, 0.60), 64, 64) + NOISE_SD * normal(1, 3, 64, 64)).clamp(0, 1)
    out = layer_of("single:rgb")(image)
    gain = out.std(dim=(-2, -1)) / image.std(dim=(-2, -1))
    torch.testing.assert_close(gain, torch.full_like(gain, MAX_GAIN), rtol=1e-3, atol=0)


def test_a_tile_with_little_tissue_among_others_is_reported_alone() -> None:
    batch = torch.cat([slide_like(), constant((0.97, 0.97, 0.97), 48, 40)])
    out, usable = layer_of().normalize(batch)
    assert usable.tolist() == [True, False]
    assert torch.equal(out[1], batch[1])
    assert not torch.equal(out[0], batch[0])


def test_with_given_statistics_every_tile_is_usable() -> None:
    batch = torch.cat([slide_like(), constant((0.97, 0.97, 0.97), 48, 40)])
    assert layer_of().normalize(batch, SLIDE)[1].tolist() == [True, True]


def test_a_white_level_from_elsewhere_wins() -> None:
    """A tile of pale stain is none of the glass of its slide, unless that is as pale."""
    image = (constant((0.85, 0.7, 0.82)) + 0.01 * normal(1, 3, 32, 40)).clamp(0, 1)
    layer = layer_of()
    out, usable = layer.normalize(image)
    assert usable.tolist() == [True]
    assert (out - image).abs().mean() > 0.02
    assert layer.normalize(image, white=(0.85, 0.7, 0.82))[1].tolist() == [False]
    dim = layer.normalize(image, SLIDE, white=(0.85, 0.7, 0.82))[0]
    assert (dim - image).abs().mean() < 0.5 * (layer(image, SLIDE) - image).abs().mean()


BAD = {
    "nan": noise(1, 3, 8, 8).index_fill(3, torch.tensor([2]), float("nan")),
    "infinite": noise(1, 3, 8, 8).index_fill(3, torch.tensor([2]), float("inf")),
    "negative": noise(1, 3, 8, 8) - 0.5,
    "0 to 255": noise(1, 3, 8, 8) * 255,
    "two channels": noise(1, 2, 8, 8),
    "no batch": noise(3, 8, 8),
    "channels last": noise(1, 8, 8, 3),
    "bytes": torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
    "no images": torch.zeros(0, 3, 8, 8),
    "no pixels": torch.zeros(1, 3, 0, 8),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_bad_input_is_refused(name: str, preset: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        layer_of(preset)(BAD[name])


def test_rounding_beyond_the_range_is_not_refused() -> None:
    layer_of()(constant((1.0 + 5e-7, 0.0, -5e-7)))


def hsv_image(hue: Tensor) -> Tensor:
    shape = hue.shape
    saturation = 0.5 + 0.2 * (noise(*shape, seed=8) - 0.5)
    value = 0.6 + 0.2 * (noise(*shape, seed=9) - 0.5)
    rgb = hsv_to_rgb(torch.stack([hue, saturation, value], dim=-1).double().numpy())
    return torch.tensor(rgb).permute(2, 0, 1)[None].float()


def matched(layer: LStainNorm, image: Tensor) -> Tensor:
    """The equations alone: what is done to shadow and to green depends on the hue."""
    mean, std, _ = layer.normalization.measure(image, tissue_weight(image, white_of(image)))
    return layer.fusion(layer.normalization(image, mean, std))


def test_red_tissue_on_both_sides_of_hue_0_is_treated_as_any_other_hue() -> None:
    hue = 0.25 * normal(32, 40)
    assert (hue < 0).any()
    assert (hue > 0).any()
    image = hsv_image(hue)
    layer = layer_of("single:hsv")
    for turn in (0.9, 2.0, 4.0):
        rotated = hsv_image(hue + turn)
        got = matched(layer, rotated)
        torch.testing.assert_close(matched(layer, image), got, atol=2e-4, rtol=0)
    linear = layer_of("single:hsv", circular_hue=False)
    assert (linear(image) - linear(hsv_image(hue + 2.0))).abs().mean() > 0.02


def test_a_target_on_both_sides_of_hue_0() -> None:
    """Turning the template's hue turns every hue of the output alike, through 0 too."""
    image = hsv_image(3.0 + 0.25 * normal(32, 40))
    hues = []
    for mean in (0.05, 2.0):
        template = Template({"hsv": (mean, 0.5, 0.6)}, {"hsv": (0.2, 0.05, 0.05)})
        out = matched(LStainNorm("single:hsv", template=template), image)
        hue = color.rgb2hsv(out[0].permute(1, 2, 0).numpy(force=True))[..., 0] * 2 * np.pi
        hues.append(np.exp(1j * (hue - mean)))
    np.testing.assert_allclose(hues[0], hues[1], atol=2e-3)


EXTREMES: dict[str, Callable[[nn.Parameter], Tensor]] = {
    "very negative": partial(torch.full_like, fill_value=-50.0),
    "huge": partial(torch.full_like, fill_value=1e4),
    "zero": torch.zeros_like,
    "mixed": lambda p: 30 * normal(*p.shape, seed=6),
}


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_no_parameter_drives_the_output_out_of_range(preset: str, extreme: str) -> None:
    image = slide_like(24, 16)
    for name, _ in layer_of(preset).named_parameters():
        if "attention" in name and extreme == "huge":
            continue  # the next test
        layer = layer_of(preset, background="normalize")
        with torch.no_grad():
            parameter = layer.get_parameter(name)
            parameter.copy_(EXTREMES[extreme](parameter))
        out = layer(image, SLIDE)
        assert out.isfinite().all(), name
        assert out.min() >= 0, name
        assert out.max() <= 1, name


@pytest.mark.parametrize("preset", ["paper", "product"])
def test_large_attention_weights_stay_finite(preset: str) -> None:
    layer = layer_of(preset, background="normalize")
    with torch.no_grad():
        for parameter in layer.fusion.attention.parameters():
            parameter.mul_(100)
    out = layer(slide_like(), SLIDE)
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1


def test_the_target_std_stays_within_its_bounds() -> None:
    layer = layer_of()
    for offset, factor in ((100.0, GAMMA_RANGE[1]), (-100.0, GAMMA_RANGE[0]), (0.5, 1.5)):
        nn.init.constant_(layer.normalization.std_offset, offset)
        for space in layer.config.spaces:
            expected = [factor * value for value in TEMPLATE.std[space]]
            assert layer.target.std[space] == pytest.approx(expected, rel=1e-6)


def test_the_target_mean_moves_in_units_of_the_template_std() -> None:
    layer = layer_of()
    assert layer.target == layer.template
    nn.init.constant_(layer.normalization.mean_offset, 0.5)
    for space in layer.config.spaces:
        moments = zip(TEMPLATE.mean[space], TEMPLATE.std[space], strict=True)
        expected = [mean + 0.5 * std for mean, std in moments]
        assert layer.target.mean[space] == pytest.approx(expected, rel=1e-6)
        assert layer.template.mean[space] == pytest.approx(TEMPLATE.mean[space], rel=1e-6)


@pytest.mark.parametrize("preset", OURS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-5), (torch.bfloat16, 0.12), (torch.float16, 0.02)],
)
def test_dtype(preset: str, dtype: torch.dtype, tolerance: float) -> None:
    follows_dtype(layer_of(preset), slide_like(40, 40), dtype, tolerance)


@pytest.mark.parametrize("preset", ["paper", "single:rgb", "single:lab"])
def test_float16_with_more_tissue_pixels_than_it_can_count(preset: str) -> None:
    follows_dtype(layer_of(preset), slide_like(320, 320), torch.float16, 0.02)


def follows_dtype(layer: LStainNorm, image: Tensor, dtype: torch.dtype, tolerance: float) -> None:
    """The layer in another precision: its dtype, and the values of float32 but for rounding."""
    expected = layer(image)
    out = layer.to(dtype)(image.to(dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()
    error = (out.float() - expected).abs()
    assert error.mean() <= tolerance / 4
    assert error.flatten().quantile(0.99) <= tolerance


def test_without_a_template_it_says_where_to_get_one() -> None:
    with pytest.raises(ValueError, match=r"Template\.fit"):
        LStainNorm()


def test_a_template_must_know_the_spaces() -> None:
    template = Template({"lab": (60.0, 20.0, -10.0)}, {"lab": (10.0, 5.0, 5.0)})
    with pytest.raises(ValueError, match="rgb"):
        LStainNorm(template=template)
    LStainNorm("single:lab", template=template)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"preset": "papper"}, "papper"),
        ({"preset": "single:cmyk"}, "single:cmyk"),
        ({"spaces": ("rgb", "xyz")}, "xyz"),
        ({"spaces": ("rgb", "rgb")}, "distinct"),
        ({"spaces": ()}, "distinct"),
        ({"statistics": "image"}, "statistics"),
        ({"background": "white"}, "background"),
    ],
)
def test_unknown_settings_are_refused(settings: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        LStainNorm(template=TEMPLATE, **settings)


@pytest.mark.parametrize(
    ("preset", "spaces", "count"),
    [
        ("paper", 3, 18 + 24 + 9 + 3 + 3),
        ("paper", 4, 24 + 32 + 12 + 4 + 4),
        ("product", 3, 18 + 24 + 3),
        ("mean", 3, 18 + 3),
        ("single:lab", 1, 6),
        ("reference", 3, 18 + (4 + 4 + 12) + 9 + 3 + 3),
    ],
)
def test_parameter_count(preset: str, spaces: int, count: int) -> None:
    """Two offsets per channel; two 1x1 convolutions to one channel per space; delta; a, b."""
    layer = layer_of(preset, spaces=("rgb", "lab", "hsv", "hed")[:spaces])
    assert len(layer.config.spaces) == spaces
    assert sum(parameter.numel() for parameter in layer.parameters()) == count


def test_hed_as_a_fourth_space_has_a_say() -> None:
    three = layer_of("mean")
    four = layer_of("mean", spaces=("rgb", "lab", "hsv", "hed"))
    image = slide_like()
    assert four.template.mean["hed"] == pytest.approx(TEMPLATE.mean["hed"])
    alone = matched(layer_of("single:hed"), image)
    mixed = (3 * matched(three, image) + alone) / 4
    torch.testing.assert_close(matched(four, image), mixed, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", ["paper", "product"])
def test_attention_forms_agree(preset: str) -> None:
    layer = moved(layer_of(preset))
    image = slide_like(144, 136)
    assert layer.attention_form == "auto"
    outputs = []
    for form in ("auto", "direct", "linear"):
        layer.attention_form = form
        assert layer.attention_form == form
        outputs.append(layer(image))
    torch.testing.assert_close(outputs[1], outputs[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs[0], outputs[2], atol=1e-5, rtol=0)
    assert not torch.equal(outputs[1], outputs[2])


@pytest.mark.parametrize("preset", ["mean", "single:lab"])
def test_without_colour_attention_the_form_is_direct(preset: str) -> None:
    layer = layer_of(preset)
    layer.attention_form = "linear"
    assert layer.attention_form == "direct"


def test_configure_changes_only_what_is_named() -> None:
    layer = layer_of()
    before = layer.config
    layer.configure()
    assert layer.config == before
    layer.configure(statistics="tile")
    assert (layer.config.statistics, layer.config.background) == ("tile", "preserve")
    layer.configure(background="normalize")
    assert (layer.config.statistics, layer.config.background) == ("tile", "normalize")
    with pytest.raises(ValueError, match="statistics"):
        layer.configure(statistics="image")
    with pytest.raises(ValueError, match="background"):
        layer.configure(background="white")
    assert (layer.config.statistics, layer.config.background) == ("tile", "normalize")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_config_round_trips(preset: str) -> None:
    config = layer_of(preset, statistics="tile").config
    assert LayerConfig.from_dict(config.to_dict()) == config


def test_the_templates_are_saved_but_not_trained() -> None:
    layer = layer_of()
    names = set(layer.state_dict()) - {name for name, _ in layer.named_parameters()}
    assert names == {"normalization.template_mean", "normalization.template_std"}


def test_the_input_is_not_modified() -> None:
    image = slide_like()
    before = image.clone()
    layer_of()(image)
    assert torch.equal(image, before)
