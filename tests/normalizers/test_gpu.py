"""The kernels of a GPU against the layer in torch float64: on a CUDA device, else interpreted.

The interpreter takes a tenth of a second for what a program does to its block of pixels, so that
pictures are few and small, and blocks are large. How a device rounds, it cannot tell.
"""

import os
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import GLASS
from tests.normalizers.test_fused import (
    CASES,
    DEGENERATE,
    MODES,
    differences,
    flat,
    layer_of,
    random_tile,
    stained,
)
from wsi_norm.glass import fill_mask
from wsi_norm.lstainnorm import LStainNorm
from wsi_norm.normalizers.base import Bools
from wsi_norm.normalizers.engine import Normalizer
from wsi_norm.normalizers.fused import FusedLayer
from wsi_norm.pixels import UInt8

pytest.importorskip("triton", reason="Triton is not installed: the kernels of a GPU stay untested")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")


class OnGpu:
    """As `Normalizer` uses them, without its batches."""

    def __init__(self, layer: LStainNorm) -> None:
        from wsi_norm.normalizers.gpu import GpuKernels

        sizes = {"block": 8192, "tokens": 64} if INTERPRETED else {}
        self.kernels = GpuKernels(FusedLayer(layer), DEVICE, **sizes)

    def normalize(self, tiles: UInt8, statistics: Any, white: Any) -> tuple[UInt8, Bools]:
        parameters, usable = self.kernels.parameters(tiles, statistics, white)
        on_device = torch.tensor(tiles).to(DEVICE)
        out = self.kernels.transform(on_device, parameters.to(DEVICE)).cpu().numpy()
        self.kernels.keep(tiles, out, usable)
        return out, usable


def all_in_one() -> np.ndarray:
    """Every degenerate tile, stained and random ones side by side; edges cut through tokens."""
    parts = [*DEGENERATE.values(), stained(40, 56), random_tile(40, 56)]
    parts = [part[:38, :50] for part in parts if part.shape == (40, 56, 3)]
    rows = [np.concatenate(parts[start : start + 6], axis=1) for start in (0, 6, 12)]
    return np.ascontiguousarray(np.concatenate(rows)[:, 1:])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_layer_in_float64(case: tuple) -> None:
    layer = layer_of(case, 1)
    assert differences(layer, [all_in_one()], *MODES["slide"], OnGpu).max() <= 1
    found = differences(layer, [stained(90, 130), random_tile(40, 60)], *MODES["slide"], OnGpu)
    assert found.max() <= 1
    assert (found == 0).mean() >= 0.999


@pytest.mark.parametrize("case", [CASES[0], CASES[18]], ids=str)
def test_the_whole_way_of_tiles(case: tuple) -> None:
    """As a Normalizer goes it on a GPU, here with the CPU in its place."""
    layer = layer_of(case)
    normalize, expected = Normalizer(layer, "cpu"), Normalizer(layer, "cpu")
    normalize.device, normalize._on_gpu = DEVICE, OnGpu(layer).kernels
    tiles = np.stack([stained(40, 56), flat(GLASS), DEGENERATE["half black"], stained(40, 56, 1)])
    for form in (tiles, tiles[:, ::2, ::-1]):
        for mode in MODES.values():
            out, usable = normalize.normalize(form, *mode)
            by_cpu, known = expected.normalize(form, *mode)
            assert usable.tolist() == known.tolist()
            assert np.abs(out.astype(int) - by_cpu).max() <= 1
            assert (out == by_cpu).mean() >= 0.999


@pytest.mark.parametrize("mode", ["tile", "tile, known white"])
@pytest.mark.parametrize("case", [CASES[0], CASES[7], CASES[18]], ids=str)
def test_every_tile_has_its_own_statistics(case: tuple, mode: str) -> None:
    names = "one colour", "half black", "two colours", "about red", "white"
    tiles = np.stack([stained(40, 56), *(DEGENERATE[name] for name in names)])
    layer = layer_of(case)
    expected, known = FusedLayer(layer).normalize(tiles, *MODES[mode])
    out, usable = OnGpu(layer).normalize(tiles, *MODES[mode])
    assert usable.tolist() == known.tolist()
    assert not usable.all()
    assert np.abs(out.astype(int) - expected).max() <= 1
    assert (out == expected).mean() >= 0.999
    assert (out[~usable] == tiles[~usable]).all()
    fill = fill_mask(tiles[2])
    assert (out[2][fill] == tiles[2][fill]).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 9), (8, 8), (7, 13), (9, 130)])
@pytest.mark.parametrize("case", [CASES[0], CASES[18]], ids=str)
def test_tiles_of_any_size(case: tuple, shape: tuple[int, int]) -> None:
    tile = random_tile(*shape)
    assert differences(layer_of(case), [tile], *MODES["slide"], OnGpu).max() <= 1


@pytest.mark.parametrize("case", [CASES[0], CASES[18]], ids=str)
def test_no_tile_depends_on_another(case: tuple) -> None:
    tiles = np.stack([stained(20, 30), flat(GLASS, 20, 30), random_tile(20, 30)])
    on_gpu = OnGpu(layer_of(case))
    together = on_gpu.normalize(tiles, *MODES["slide"])[0]
    for tile, expected in zip(tiles, together, strict=True):
        assert (on_gpu.normalize(tile[None], *MODES["slide"])[0][0] == expected).all()


def test_no_tiles_are_no_work() -> None:
    for shape in ((0, 16, 16, 3), (2, 0, 16, 3)):
        on_gpu = OnGpu(layer_of(CASES[0]))
        parameters = on_gpu.kernels.parameters(np.zeros(shape, np.uint8), *MODES["slide"])[0]
        assert (
            on_gpu.kernels.transform(torch.zeros(shape, dtype=torch.uint8), parameters).shape
            == shape
        )
