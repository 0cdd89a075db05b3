"""The direct softmax against a naive one, the linear form against the direct, and its bound."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tests.builders import TEMPLATE
from wsi_norm.lstainnorm import attention
from wsi_norm.lstainnorm.attention import (
    direct_attention,
    linear_attention,
)
from wsi_norm.lstainnorm.chebyshev import TOLERANCE, nodes_needed
from wsi_norm.lstainnorm.fusion import ColourAttention, upsample
from wsi_norm.lstainnorm.normalization import SpaceNormalization


def tokens(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def values(*shape: int, seed: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def naive_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """One token after the other, in float64."""
    out = np.empty((*value.shape[:2], query.shape[1]))
    for m in range(len(query)):
        for i, q in enumerate(query[m]):
            scores = q * key[m]
            weights = np.exp(scores - scores.max())
            out[m, :, i] = (value[m] * weights).sum(-1) / weights.sum()
    return out


def attention_with(scale: float, seed: int = 4) -> ColourAttention:
    """As initialised, with weights and biases scaled."""
    torch.manual_seed(seed)
    module = ColourAttention(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    return module


def random_branches(height: int, width: int) -> Tensor:
    return values(1, 3, 3, height, width).float()


def stained_branches(image: Tensor) -> Tensor:
    """What the layer makes of an image in its three spaces, before fusion."""
    normalization = SpaceNormalization(("rgb", "lab", "hsv"), TEMPLATE, circular_hue=True)
    mean, std, _ = normalization.measure(image, torch.ones_like(image[:, :1]))
    return normalization(image, mean, std).detach()


def smooth_tissue(edge: int) -> Tensor:
    """Blobs of haematoxylin on eosin."""
    amount = torch.nn.functional.interpolate(
        values(1, 1, edge // 16, edge // 16).float(), size=(edge, edge), mode="bicubic"
    )
    amount = ((amount - 0.5) * 3).clamp(0, 1)
    purple, pink = torch.tensor([0.35, 0.2, 0.55]), torch.tensor([0.9, 0.65, 0.8])
    blend = purple[:, None, None] * amount + pink[:, None, None] * (1 - amount)
    return (blend + 0.03 * tokens(1, 3, edge, edge).float()).clamp(0, 1)


def linear_and_direct(module: ColourAttention, branches: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        module.form = "linear"
        linear = module(branches)
        module.form = "direct"
        return linear, module(branches)


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (1, 1), (64, 64), (5, 30)])
def test_direct_is_the_naive_softmax(queries: int, keys: int) -> None:
    q, k, v = tokens(2, queries, scale=3), tokens(2, keys, seed=1, scale=3), values(2, 3, keys)
    expected = naive_attention(q.numpy(), k.numpy(), v.numpy())
    np.testing.assert_allclose(direct_attention(q, k, v).numpy(), expected, atol=1e-12)
    single = direct_attention(q.float(), k.float(), v.float()).numpy()
    np.testing.assert_allclose(single, expected, atol=1e-5)


def test_large_scores_do_not_overflow() -> None:
    q, k, v = (
        tokens(1, 50, scale=60).float(),
        tokens(1, 50, seed=1, scale=60).float(),
        values(1, 3, 50),
    )
    out = direct_attention(q, k, v.float())
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1


def test_chunks_of_queries_change_nothing() -> None:
    """18 million pairs, more than twice what is taken at a time."""
    q, k, v = tokens(2, 3000), tokens(2, 3000, seed=1), values(2, 3, 3000)
    expected = naive_attention(q.numpy(), k.numpy(), v.numpy())
    np.testing.assert_allclose(direct_attention(q, k, v), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("scale", [1, 4, 12])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (136, 72), (70, 45), (256, 256)])
def test_linear_is_direct_on_random_branches(scale: float, height: int, width: int) -> None:
    linear, direct = linear_and_direct(attention_with(scale), random_branches(height, width))
    assert (linear - direct).abs().max() <= 1e-5


@pytest.mark.parametrize("scale", [1, 4, 12])
def test_many_tokens_of_glass_do_not_round_away(scale: float) -> None:
    """Thousands of equal values near 1: a float32 softmax is off by more than 1e-5 here."""
    branches = stained_branches(smooth_tissue(512))
    branches[..., 96:] = 0.97
    linear, direct = linear_and_direct(attention_with(scale), branches)
    assert (linear - direct).abs().max() <= 2e-6
    exact = attention_with(scale).double()
    exact.form = "linear"
    with torch.no_grad():
        assert (linear - exact(branches.double())).abs().max() <= 2e-6


@pytest.mark.parametrize("scale", [1, 4, 12])
@pytest.mark.parametrize("edge", [128, 512])
def test_linear_is_direct_on_stained_branches(scale: float, edge: int) -> None:
    branches = stained_branches(smooth_tissue(edge))
    linear, direct = linear_and_direct(attention_with(scale), branches)
    assert (linear - direct).abs().max() <= 1e-5
    assert direct.std() > 1e-4


@pytest.mark.parametrize("scale", [1, 4, 12])
def test_linear_is_direct_on_a_real_tile(data_dir: Path, scale: float) -> None:
    file = min((data_dir / "tiles" / "samples").glob("*.png"))
    with Image.open(file) as opened:
        pixels = np.asarray(opened.convert("RGB"))[:240, :200]
    image = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
    linear, direct = linear_and_direct(attention_with(scale), stained_branches(image))
    assert (linear - direct).abs().max() <= 1e-5


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_linear_on_a_constant_image(value: float) -> None:
    branches = torch.full((1, 3, 3, 64, 64), value)
    linear, direct = linear_and_direct(attention_with(4), branches)
    torch.testing.assert_close(linear, branches, atol=1e-5, rtol=0)
    torch.testing.assert_close(direct, branches, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1, 4])
def test_gradients_of_linear_are_those_of_direct(scale: float) -> None:
    inputs = (tokens(2, 90, scale=scale), tokens(2, 90, seed=1, scale=scale), values(2, 3, 90))
    upstream = tokens(2, 3, 90, seed=5)
    radii = [float((x.amax(1) - x.amin(1)).max()) / 2 for x in inputs[:2]]
    gradients = []
    for form in (
        direct_attention,
        lambda q, k, v: linear_attention(q, k, v, nodes_needed(radii[0], radii[1])),
    ):
        leaves = [x.clone().requires_grad_() for x in inputs]
        (form(*leaves) * upstream).sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for direct, linear in zip(*gradients, strict=True):
        assert direct.abs().max() > 1e-2
        torch.testing.assert_close(linear, direct, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_works_after_inference_in_the_same_process(dtype: torch.dtype) -> None:
    attention.chebyshev.cache_clear()
    q, k, v = (x.to(dtype) for x in (tokens(1, 90), tokens(1, 90, seed=1), values(1, 3, 90)))
    with torch.inference_mode():
        expected = linear_attention(q, k, v, 17)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = linear_attention(*leaves, 17)
    out.sum().backward()
    torch.testing.assert_close(out.detach(), expected)
    assert all(leaf.grad is not None for leaf in leaves)


def test_gradients_of_the_weights_agree() -> None:
    branches = stained_branches(smooth_tissue(128)).double()
    upstream = tokens(*branches.shape, seed=2)
    gradients = {}
    for form in ("direct", "linear"):
        module = attention_with(4).double()
        module.form = form
        leaf = branches.clone().requires_grad_()
        (module(leaf) * upstream).sum().backward()
        gradients[form] = [leaf.grad, module.query_weight.grad, module.key_weight.grad]
    for direct, linear in zip(gradients["direct"], gradients["linear"], strict=True):
        assert (linear - direct).abs().max() <= 1e-4 * direct.abs().max()


@settings(max_examples=150, deadline=None)
@given(
    query_radius=st.floats(0.01, 6.0),
    key_radius=st.floats(0.01, 5.0),
    query_middle=st.floats(-5, 5),
    key_middle=st.floats(-5, 5),
    count=st.integers(1, 40),
    binary=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_nodes_needed_bounds_the_error(
    query_radius: float,
    key_radius: float,
    query_middle: float,
    key_middle: float,
    count: int,
    binary: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    keys = key_middle + key_radius * (
        2 * torch.rand(1, count, generator=generator, dtype=torch.float64) - 1
    )
    v = torch.rand(1, 2, count, generator=generator, dtype=torch.float64)
    v = v.round() if binary else v
    queries = query_middle + query_radius * torch.linspace(-1, 1, 301, dtype=torch.float64)[None]
    nodes = nodes_needed(query_radius, key_radius)
    error = linear_attention(queries, keys, v, nodes) - direct_attention(queries, keys, v)
    assert error.abs().max() <= TOLERANCE


@pytest.mark.parametrize("radius", [0.5, 3.0, 10.0, 30.0])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_the_steepest_function_keeps_the_tolerance_and_far_fewer_nodes_do_not(
    radius: float, tolerance: float
) -> None:
    """Two keys at the ends with values 0 and 1: a tanh, the steepest f there is."""
    keys = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    v = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    queries = radius * torch.linspace(-1, 1, 2001, dtype=torch.float64)[None]
    expected = 0.5 * (1 + torch.tanh(queries))[None]
    nodes = nodes_needed(radius, 1.0, tolerance)
    enough = linear_attention(queries, keys, v, nodes) - expected
    assert enough.abs().max() <= tolerance
    few = linear_attention(queries, keys, v, 2 * nodes // 5) - expected
    assert few.abs().max() > tolerance


@given(z=st.floats(0.0, 40.0), more=st.floats(0.0, 20.0))
def test_a_wider_range_needs_no_fewer_nodes(z: float, more: float) -> None:
    assert 2 <= nodes_needed(z, 1.0) <= nodes_needed(z + more, 1.0)
    assert nodes_needed(z, 1.0) == nodes_needed(1.0, z)
    assert nodes_needed(z, 1.0) <= nodes_needed(z, 1.0, TOLERANCE / 100)


@pytest.mark.parametrize("scale", [1, 4, 12])
def test_the_nodes_follow_the_weights_and_cover_every_image(scale: float) -> None:
    """Half the range of scores in [0, 1] is at most half the sum of the weights' magnitudes."""
    module = attention_with(scale)
    radii = []
    for weight in (module.query_weight, module.key_weight):
        corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
        scores = corners @ weight.detach().T
        radii.append((scores.amax(0) - scores.amin(0)) / 2)
    z = float((radii[0] * radii[1]).max())
    assert module.nodes() >= nodes_needed(z * (1 - 1e-6), 1.0)
    assert module.nodes() <= nodes_needed(z * (1 + 1e-6), 1.0)


@pytest.mark.parametrize(("size", "form"), [(16, "direct"), (256, "linear")])
def test_auto_is_direct_for_few_tokens_and_linear_for_many(size: int, form: str) -> None:
    """The forms agree to rounding, and differ in it."""
    module = attention_with(1)
    branches = random_branches(size, size)
    auto = module(branches)
    same = {}
    for module.form in ("direct", "linear"):
        same[module.form] = torch.equal(module(branches), auto)
    assert same == {"direct": form == "direct", "linear": form == "linear"}


def test_the_maps_of_a_batch_are_those_of_its_images() -> None:
    module = attention_with(4)
    batch = torch.cat([stained_branches(smooth_tissue(64)), random_branches(64, 64)])
    maps = module(batch)
    for index in range(2):
        torch.testing.assert_close(maps[index : index + 1], module(batch[index : index + 1]))


def test_upsample_is_bilinear_between_centres_of_tokens() -> None:
    row = torch.tensor([0.0, 1.0])[None, None, None].expand(1, 1, 2, 2)
    pixels = upsample(row, 13, 15)
    assert pixels.shape == (1, 1, 13, 15)
    centres = (torch.arange(15) + 0.5) / 8 - 0.5
    torch.testing.assert_close(pixels[0, 0, 5], centres.clamp(0, 1))


LARGE_TILE = """
import resource, sys, torch
from wsi_norm.lstainnorm import LStainNorm, load_checkpoint
torch.set_num_threads(1)
layer = LStainNorm("paper", template=load_checkpoint("paper").template)
x = torch.rand(1, 3, 2048, 2048, generator=torch.Generator().manual_seed(0))
with torch.inference_mode():
    y = layer(x)
assert y.shape == x.shape and bool(y.isfinite().all())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak if sys.platform == "darwin" else peak * 1024)
"""


def test_a_tile_of_2048_px_fits_in_4_gb() -> None:
    """Slow (some 10 s), and the point of the linear form: 65536 tokens, 17 GB per N x N matrix."""
    done = subprocess.run(
        [sys.executable, "-c", LARGE_TILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4e9
