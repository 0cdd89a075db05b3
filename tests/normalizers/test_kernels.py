"""Kernels by themselves: elementary functions, attention, memory, and how often they compile."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from tests.builders import SLIDE, TEMPLATE
from wsi_norm.glass import fill_mask
from wsi_norm.lstainnorm import LStainNorm
from wsi_norm.lstainnorm.attention import direct_attention
from wsi_norm.lstainnorm.chebyshev import chebyshev
from wsi_norm.lstainnorm.fusion import ColourAttention
from wsi_norm.normalizers import kernels
from wsi_norm.normalizers.fused import FusedLayer


def applied(function: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A scalar kernel over an array of float32."""

    @njit
    def loop(x, out):
        for i in range(len(x)):
            out[i] = function(x[i])

    def over(x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        loop(x, out)
        return out.astype(float)

    return over


def linear(low: float, high: float, count: int = 1_000_001) -> np.ndarray:
    return np.linspace(low, high, count).astype(np.float32)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found / expected - 1).max())


def test_exp2() -> None:
    exp2 = applied(kernels._exp2)
    for x in (linear(-126, 127), linear(-1, 1)):
        assert relative(exp2(x), np.exp2(x.astype(float))) < 2.5e-7
    below = np.array([-127, -1e4, -1e30, -np.inf], np.float32)
    assert relative(exp2(below), np.full(4, 2.0**-126)) < 2.5e-7


def test_cube_root() -> None:
    x = np.geomspace(1e-12, 10, 1_000_001).astype(np.float32)
    assert relative(applied(kernels._cube_root)(x), np.cbrt(x.astype(float))) < 4.5e-7


def test_the_curves_of_cielab() -> None:
    x = linear(0, 1.2)
    exact = x.astype(float)
    expected = np.where(exact > 0.008856, np.cbrt(exact), 7.787 * exact + 4 / 29)
    assert relative(applied(kernels._compress)(x), expected) < 2e-6  # the curve's jump is 1.5e-6
    x = linear(-0.5, 1.5)
    exact = x.astype(float)
    expected = np.where(exact > 0.2068966, exact**3, (exact - 4 / 29) / 7.787)
    np.testing.assert_allclose(applied(kernels._expand)(x), expected, rtol=2e-7, atol=1e-7)


def test_the_curve_of_srgb() -> None:
    x = linear(-0.5, 1.5)
    exact = x.astype(float).clip(0, 1)
    expected = np.where(exact > 0.0031308, 1.055 * exact ** (1 / 2.4) - 0.055, 12.92 * exact)
    found = applied(kernels._encode)(x)
    assert np.abs(found - expected).max() < 1e-6
    assert found.min() == 0
    assert found.max() <= 1


def test_sine_and_cosine_of_a_hue() -> None:
    @njit
    def loop(base, more, out):
        for i in range(len(more)):
            out[i] = kernels._turn(base, more[i])

    more = linear(-1, 1, 100_001)
    for base in (0, 2, 4):
        out = np.empty((len(more), 2), np.float32)
        loop(np.float32(base), more, out)
        angle = (base + more.astype(float)) * np.pi / 3
        np.testing.assert_allclose(out, np.stack([np.sin(angle), np.cos(angle)], 1), atol=3e-7)


@njit
def _attend(tokens, points, to_coefficients, delta, maps):
    kernels._take_maps(tokens, points, to_coefficients, delta, maps)


def attention_error(query: np.ndarray, key: np.ndarray, value: np.ndarray, nodes: int) -> float:
    """Largest deviation from the direct softmax in float64, of tokens (N,), (N,), (3, N)."""
    tokens = np.concatenate([query[None], key[None], value]).astype(np.float32)
    delta = np.array([1, 0.5, 2], np.float32)
    maps = np.empty((3, len(query)), np.float32)
    _attend(tokens, *chebyshev(nodes), delta, maps)
    exact = torch.tensor(tokens).double()[None]
    direct = direct_attention(exact[:, 0], exact[:, 1], exact[:, 2:])[0].numpy()
    return float(np.abs(maps - delta[:, None] * direct).max())


@pytest.mark.parametrize("tokens", [1, 2, 35, 129, 1024])
@pytest.mark.parametrize("factor", [1, 4, 12])
def test_attention_is_the_direct_softmax(tokens: int, factor: int) -> None:
    for seed in range(8):
        torch.manual_seed(seed)
        module = ColourAttention(1)
        rng = np.random.default_rng(seed)
        value = rng.random((3, tokens)) ** [1, 0.1, 3][seed % 3]
        query, key = (
            factor * (weight.detach().numpy()[0] @ value + bias.item())
            for weight, bias in (
                (module.query_weight, module.query_bias),
                (module.key_weight, module.key_bias),
            )
        )
        with torch.no_grad():
            for parameter in module.parameters():
                parameter *= factor
        assert attention_error(query, key, value, module.nodes()) < 1e-5


@pytest.mark.parametrize("spread", [0, 1e-7, 5e-7, 4e-6, 3e-5, 1e-3])
@pytest.mark.parametrize("nodes", [9, 133, 900])
def test_attention_of_almost_equal_queries(nodes: int, spread: float) -> None:
    """As in a tile of two colours: their range is a few roundings wide."""
    rng = np.random.default_rng(0)
    for middle in (-10.63, 3.1167, 0.7, 15.4):
        query = middle + spread * rng.integers(0, 6, 35)
        assert attention_error(query, rng.uniform(-2.7, 2.2, 35), rng.random((3, 35)), nodes) < 1e-5


def fused(preset: str = "paper", background: str = "preserve") -> FusedLayer:
    torch.manual_seed(0)
    return FusedLayer(LStainNorm(preset, template=TEMPLATE, background=background))


def random_tiles(count: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 200, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (30, 129), (16, 256)])
@pytest.mark.parametrize("preset", ["paper", "product", "mean", "single:od"])
def test_nothing_outside_a_tile_is_read_or_written(preset: str, shape: tuple[int, int]) -> None:
    layer = fused(preset)
    tile = random_tiles(1, *shape)
    expected = layer.normalize(tile, SLIDE, None)[0][0]
    size = kernels.scratch_size(*shape, 3)
    layer._memory.scratch = scratch = np.full(size + 1000, np.nan, np.float32)
    work = layer.work(SLIDE, SLIDE.white)
    for fill in (0, 255):
        around = np.full((2, 600 + tile.size), fill, np.uint8)
        inside, out = (row[300:-300].reshape(*shape, 3) for row in around)
        inside[:] = tile[0]
        work(inside, out)
        assert (out == expected).all()
        assert (inside == tile[0]).all()
        assert (around[:, :300] == fill).all()
        assert (around[:, -300:] == fill).all()
    assert np.isnan(scratch[size:]).all()


def test_nothing_is_compiled_again_for_another_use() -> None:
    functions = kernels.average, kernels.attend, kernels.moments
    for preset in ("paper", "mean"):
        fused(preset).normalize(random_tiles(2, 24, 40), None, None)
    before = [len(function.signatures) for function in functions]
    read_only = random_tiles(1, 9, 9)
    read_only.flags.writeable = False
    for preset in ("paper", "product", "mean"):
        for background in ("preserve", "normalize"):
            layer = fused(preset, background)
            for tiles in (random_tiles(1, 16, 200), random_tiles(3, 1, 1), read_only):
                layer.normalize(tiles, SLIDE, None)
                layer.normalize(tiles, None, None)
                layer.normalize(tiles, None, SLIDE.white)
    assert [len(function.signatures) for function in functions] == before


TWO_PROCESSES = """
import os
import numpy as np
from wsi_norm import compiled
compiled._load = lambda function: function._cache.load_overload  # not what is beside the source
from wsi_norm.normalizers import kernels
from wsi_norm.normalizers.fused import FusedLayer, pool_of
from wsi_norm.lstainnorm import LStainNorm, Statistics, Template

TILES = np.random.default_rng(0).integers(60, 220, (2, 70, 300, 3), dtype=np.uint8)

def use(background, height):
    rgb = {"rgb": (0.5, 0.4, 0.3)}
    layer = FusedLayer(LStainNorm("single:rgb", template=Template(rgb, rgb), background=background))
    tiles = np.zeros((1, height, 9, 3), np.uint8)
    layer.normalize(tiles, Statistics(rgb, rgb, (1, 1, 1), 9), None)
    stats = kernels.average.stats
    print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), flush=True)
    print(*(a.tobytes().hex() for a in pool_of(TILES, None, (0.9, 0.9, 0.9)).arrays()), flush=True)

child = os.fork()
if child == 0:
    use("preserve", 8)
    os._exit(0)
os.waitpid(child, 0)
use("normalize", 17)
"""


def test_another_process_compiles_nothing_and_sums_the_same(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", TWO_PROCESSES],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        cwd=Path(kernels.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    compiled, loaded = run.stdout.split("0 1\n")[1].split("1 0\n")
    assert compiled == loaded  # every bit: the process that compiles sums as the others do


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    rows=st.integers(0, 40),
    columns=st.integers(0, 40),
    level=st.sampled_from([0, 7, 8, 100, 240]),
    corner=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_what_holds_fill_is_never_overlooked(
    height: int, width: int, rows: int, columns: int, level: int, corner: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    tile = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    turned = tile[:: 1 - 2 * (corner & 1), :: 1 - (corner & 2)]
    turned[:rows, :columns] = level
    found = fill_mask(tile) is not None
    assert kernels.may_hold_fill(tile) or not found


def test_plain_tissue_is_not_looked_at_twice() -> None:
    tile = np.random.default_rng(0).integers(20, 220, (64, 64, 3), dtype=np.uint8)
    assert not kernels.may_hold_fill(tile)
    tile[:4] = 90
    assert kernels.may_hold_fill(tile)
