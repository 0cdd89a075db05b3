"""Virtual scanners: identity, seeds, ranges, glass, gradients; stains against scikit-image."""

from dataclasses import astuple, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000, hed2rgb, rgb2hed, rgb2lab, rgb_from_hed
from torch import Tensor

from wsi_norm.cohort.virtual_scanner import DEFAULT_RANGE, FARTHEST, ScannerRange, VirtualScanner
from wsi_norm.slide import read_image

PARAMETERS = [field.name for field in fields(VirtualScanner)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(n: int, seed: int = 0, scanners: ScannerRange = DEFAULT_RANGE) -> VirtualScanner:
    return VirtualScanner.draw(n, seeded(seed), scanners)


def only(**values: float) -> ScannerRange:
    return ScannerRange(**{field.name: 0.0 for field in fields(ScannerRange)} | values)


def random_image(n: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(n, 3, 12, 10, generator=seeded(seed), dtype=torch.float64).to(dtype)


def tissue(n: int = 1) -> Tensor:
    """Pixels of haematoxylin, eosin and a little of the third stain, none negative; float64."""
    most = torch.tensor([0.12, 0.10, 0.04], dtype=torch.float64)
    amounts = most * torch.rand(n, 16, 16, 3, generator=seeded(1), dtype=torch.float64)
    return torch.from_numpy(hed2rgb(amounts.numpy())).movedim(-1, 1)


def corners(dtype: torch.dtype = torch.float32) -> Tensor:
    """(1, 3, 2, 4): all RGB of zeros and ones."""
    values = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=dtype)] * 3)
    return values.T.reshape(1, 3, 2, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "scanner", [VirtualScanner.identity(2), draw(2, scanners=DEFAULT_RANGE.scaled(0))]
)
def test_identity_changes_nothing(scanner: VirtualScanner, dtype: torch.dtype) -> None:
    for x in (random_image(2, dtype=dtype), corners(dtype).repeat(2, 1, 1, 1)):
        torch.testing.assert_close(scanner(x), x, rtol=0, atol=1e-5)


def test_a_seed_gives_the_same_scanners_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second = draw(5, seed=3), draw(5, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in PARAMETERS:
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_other_seeds_and_further_draws_give_other_scanners() -> None:
    generator = seeded(3)
    first, further = (VirtualScanner.draw(5, generator) for _ in range(2))
    for other in (further, draw(5, seed=4)):
        for name in PARAMETERS:
            assert not torch.equal(getattr(first, name), getattr(other, name))


def test_scanners_of_one_draw_differ_in_what_they_show() -> None:
    shown = draw(4)(tissue().expand(4, -1, -1, -1))
    for i in range(4):
        for j in range(i):
            assert (shown[i] - shown[j]).abs().mean() > 0.005


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(0, 4),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    strength=st.floats(0, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_result_is_an_image_of_the_same_shape(
    n: int, height: int, width: int, seed: int, strength: float, dtype: torch.dtype
) -> None:
    x = torch.rand(n, 3, height, width, generator=seeded(seed), dtype=dtype)
    scanner = draw(n, seed, DEFAULT_RANGE.scaled(strength))
    shown = scanner(x)
    assert len(scanner) == n
    assert shown.shape == x.shape
    assert shown.dtype == dtype
    assert ((shown >= 0) & (shown <= 1)).all()


def test_result_is_on_the_device_of_the_image() -> None:
    assert draw(2)(random_image(2).to("meta")).device.type == "meta"


def test_float32_and_float64_agree() -> None:
    x = random_image(8, dtype=torch.float32)
    scanner = draw(8)
    torch.testing.assert_close(scanner(x).double(), scanner(x.double()), rtol=0, atol=1e-5)


def test_parameters_are_float32_and_within_the_range() -> None:
    scanner = draw(2000)
    shapes = {"stain": (3, 3), "gain": (3,), "white": (3,), "gamma": ()}
    for name, shape in shapes.items():
        assert getattr(scanner, name).shape == (2000, *shape)
        assert getattr(scanner, name).dtype == torch.float32
    for name in ("gain", "gamma"):
        log, sd = getattr(scanner, name).log(), getattr(DEFAULT_RANGE, name)
        assert log.abs().max() <= FARTHEST * sd + 1e-6
        assert log.std().item() == pytest.approx(0.96 * sd, rel=0.05)  # the tails are cut
    assert scanner.white.max() <= 1
    assert scanner.white.min() >= 1 - DEFAULT_RANGE.white
    assert scanner.white.mean().item() == pytest.approx(1 - DEFAULT_RANGE.white / 2, abs=0.002)


def test_mean_change_grows_with_strength() -> None:
    x = tissue().expand(64, -1, -1, -1)
    ranges = [DEFAULT_RANGE.scaled(strength) for strength in (0, 0.25, 0.5, 1, 2)]
    changes = [(draw(64, scanners=each)(x) - x).abs().mean().item() for each in ranges]
    assert changes[0] < 1e-6
    assert all(stronger > 1.3 * weaker for weaker, stronger in pairwise(changes))


@pytest.mark.parametrize("name", [field.name for field in fields(ScannerRange)])
def test_every_value_of_a_range_changes_tissue(name: str) -> None:
    x = tissue()
    shown = draw(16, scanners=only(**{name: 0.05}))(x.expand(16, -1, -1, -1))
    assert (shown - x).abs().mean() > 0.002


def test_scaled_multiplies_every_value() -> None:
    assert astuple(DEFAULT_RANGE.scaled(0.5)) == tuple(0.5 * v for v in astuple(DEFAULT_RANGE))


def test_clear_glass_takes_the_colour_of_white_everywhere() -> None:
    scanner = draw(64)
    shown = scanner(torch.ones(64, 3, 4, 4))
    assert torch.equal(shown, scanner.white[..., None, None].expand_as(shown))
    assert shown.min() >= 0.9


def test_greyish_glass_stays_bright_and_is_moved_uniformly() -> None:
    shown = draw(64)(torch.full((64, 3, 4, 4), 0.95))
    assert torch.equal(shown, shown[..., :1, :1].expand_as(shown))
    assert shown.min() > 0.8


def test_glass_and_pale_tissue_are_not_clipped_together() -> None:
    x = torch.tensor([0.94, 0.96, 0.98, 1.0]).expand(64, 3, 1, 4)
    assert (draw(64)(x).diff() > 0.005).all()


def test_gain_changes_its_channel_and_keeps_its_order() -> None:
    gain = torch.tensor([[0.9, 1.0, 1.1]])
    scanner = VirtualScanner(torch.eye(3)[None], gain, torch.ones(1, 3), torch.ones(1))
    grey = torch.tensor([0.05, 0.5, 1.0], dtype=torch.float64).expand(1, 3, 1, 3)
    expected = [[0.145, 0.55, 1.0], [0.05, 0.5, 1.0], [0.0, 0.45, 1.0]]
    np.testing.assert_allclose(scanner(grey)[0, :, 0], expected, atol=2e-6)


def test_white_and_gamma_are_a_tone_curve_below_coloured_glass() -> None:
    white, gamma = torch.tensor([[0.9, 1.0, 0.8]]), torch.tensor([2.0])
    scanner = VirtualScanner(torch.eye(3)[None], torch.ones(1, 3), white, gamma)
    x = random_image()
    torch.testing.assert_close(scanner(x), white.double()[..., None, None] * x**2)


def test_stain_scaling_is_that_of_scikit_image() -> None:
    x = tissue(2)
    factors = torch.tensor([[1.3, 0.7, 1.0], [0.8, 1.25, 1.0]])
    scanner = VirtualScanner(
        torch.diag_embed(factors), torch.ones(2, 3), torch.ones(2, 3), torch.ones(2)
    )
    amounts = rgb2hed(x.movedim(1, -1).numpy()) * factors[:, None, None].double().numpy()
    np.testing.assert_allclose(scanner(x).movedim(1, -1), hed2rgb(amounts), atol=1e-6)


def test_turned_stains_keep_their_length_and_the_residual_its_colour() -> None:
    turned = draw(16, scanners=only(mixing=0.1)).stain.double().numpy() @ rgb_from_hed
    lengths = np.linalg.norm(rgb_from_hed, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1) / lengths, 1, rtol=1e-6)
    assert np.abs(turned[:, :2] - rgb_from_hed[:2]).mean() > 0.02
    np.testing.assert_allclose(turned[:, 2] / rgb_from_hed[2], 1, rtol=1e-6)


def test_amounts_alone_scale_haematoxylin_and_eosin_each_by_its_own() -> None:
    stain = draw(16, scanners=only(stain=0.2)).stain
    diagonal = stain.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(stain, torch.diag_embed(diagonal))
    assert (diagonal[:, 2] == 1).all()
    assert ((diagonal[:, 0] - diagonal[:, 1]).abs() > 1e-4).all()


def test_an_index_expands_scanners_of_slides_to_their_tiles() -> None:
    slides = draw(3)
    slide_of_tile = torch.tensor([2, 0, 0, 1, 2])
    tiles = slides[slide_of_tile]
    x = random_image(5)
    assert len(tiles) == 5
    for i, slide in enumerate(slide_of_tile):
        alone = slides[slide]
        assert len(alone) == 1
        torch.testing.assert_close(tiles(x)[i], alone(x[i : i + 1])[0])


def test_one_scanner_takes_a_batch() -> None:
    x = random_image(4)
    scanner = draw(1)
    torch.testing.assert_close(scanner(x), scanner[torch.zeros(4, dtype=torch.long)](x))


def test_gradient_is_that_of_finite_differences() -> None:
    x = tissue()[..., :3, :3].requires_grad_()
    assert torch.autograd.gradcheck(draw(1), (x,))


@pytest.mark.parametrize("strength", [0.0, 1.0, 4.0])
def test_gradient_is_finite_for_black_white_and_primaries(strength: float) -> None:
    n = 64
    x = torch.cat([corners(), random_image(1, dtype=torch.float32)[..., :2, :4]], dim=-1)
    x = x.repeat(n, 1, 1, 1).requires_grad_()
    shown = draw(n, scanners=DEFAULT_RANGE.scaled(strength))(x)
    (gradient,) = torch.autograd.grad(shown.sum(), x)
    assert shown.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient[..., 4:] != 0).float().mean() > 0.5


@pytest.mark.parametrize("level", [0.0, 1e-7, 1.0])
def test_black_and_white_images_stay_black_and_white(level: float) -> None:
    shown = draw(64)(torch.full((64, 3, 2, 2), level))
    assert ((shown - level).abs() < 0.2).all()


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 8, 8),
        torch.zeros(2, 4, 8, 8),
        torch.zeros(2, 8, 8, 3),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 3, 8, 8),
    ],
)
def test_what_is_no_batch_of_images_is_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        draw(2)(x)


@pytest.mark.parametrize("values", [{"stain": -0.1}, {"white": 1.0}, {"gamma": float("nan")}])
def test_an_impossible_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        only(**values)


@pytest.mark.parametrize("strength", [-1.0, 10.0, float("inf")])
def test_a_strength_without_a_possible_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="scanner range"):
        DEFAULT_RANGE.scaled(strength)


def test_two_scanners_show_a_real_tile_about_as_differently_as_documented(data_dir: Path) -> None:
    tiles = sorted((data_dir / "tiles" / "samples").iterdir())
    differences = []
    for seed, path in enumerate(tiles):
        x = torch.from_numpy(read_image(path)[::8, ::8].copy()).movedim(-1, 0)[None] / 255
        lab = rgb2lab(draw(24, seed)(x.expand(24, -1, -1, -1)).movedim(1, -1))
        differences.append(deltaE_ciede2000(lab[:12], lab[12:]).mean())
    assert 7.5 < np.mean(differences) < 9.7
