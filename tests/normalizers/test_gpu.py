"""The kernels of a GPU against the layer in torch float64: on a CUDA device, else interpreted.

The interpreter takes a tenth of a second for what a program does to its block of pixels: without a
device cases and pictures are few and small, and blocks are large. How a device rounds it cannot
tell, nor what a compiler makes one operation of; that the compiler takes the kernels is a test of
its own.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import GLASS
from tests.normalizers.test_fused import (
    CASES,
    DEGENERATE,
    MODES,
    TILES,
    assert_equal_but_for_rounding,
    differences,
    flat,
    layer_of,
    random_tile,
    stained,
)
from wsi_norm.glass import fill_mask
from wsi_norm.lstainnorm import LStainNorm
from wsi_norm.normalizers.base import Bools
from wsi_norm.normalizers.batches import OnTensors
from wsi_norm.normalizers.engine import Normalizer
from wsi_norm.normalizers.fused import FusedLayer
from wsi_norm.pixels import UInt8

pytest.importorskip("triton", reason="Triton is not installed: the kernels of a GPU stay untested")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
CHOSEN = [CASES[number] for number in (5, 8, 10, 15, 18)] if INTERPRETED else CASES
"""Interpreted: every space and fusion once, both kinds of hue."""


class OnGpu:
    """As `Normalizer` uses them, without its batches."""

    def __init__(self, layer: LStainNorm) -> None:
        from wsi_norm.normalizers.gpu import GpuKernels

        sizes = {"block": 1 << 16, "tokens": 64} if INTERPRETED else {}
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


@pytest.mark.parametrize("case", CHOSEN, ids=str)
def test_it_is_the_layer_in_float64(case: tuple) -> None:
    """A level at most, also of greys and of red and blue, where hue jumps from 0 to a turn."""
    found = differences(layer_of(case, 1), [all_in_one()], *MODES["slide"], OnGpu)
    assert found.max() <= 1
    assert (found == 0).mean() >= (0.999 if INTERPRETED else 0.995)  # seen on a device: 0.9973


@pytest.mark.skipif(INTERPRETED, reason="no CUDA device, and the interpreter is slow")
@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_layer_in_float64_of_tiles_of_any_size(mode: str) -> None:
    for case in CASES:
        assert_equal_but_for_rounding(differences(layer_of(case), TILES[2:], *MODES[mode], OnGpu))


def test_the_whole_way_of_tiles() -> None:
    """As a Normalizer goes it on a GPU, here with the CPU in its place."""
    layer = layer_of(CASES[18])
    normalize, expected = Normalizer(layer, "cpu"), Normalizer(layer, "cpu")
    normalize._on_tensors = form = OnTensors(layer, "cpu", None, None)
    form._device, form._kernels = DEVICE, OnGpu(layer).kernels
    tiles = np.stack([stained(40, 56), flat(GLASS), DEGENERATE["half black"], stained(40, 56, 1)])
    for form, modes in ((tiles, MODES), (tiles[:, ::2, ::-1], ["slide"])):
        for mode in (MODES[name] for name in modes):
            out, usable = normalize.normalize(form, *mode)
            by_cpu, known = expected.normalize(form, *mode)
            assert usable.tolist() == known.tolist()
            assert np.abs(out.astype(int) - by_cpu).max() <= 1
            assert (out == by_cpu).mean() >= 0.999


@pytest.mark.parametrize(
    ("case", "mode"),
    [(CASES[4], "tile"), (CASES[18], "tile, known white")],
    ids=str,
)
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


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 21)])
@pytest.mark.parametrize("case", [CASES[4], CASES[18]], ids=str)
def test_tiles_of_any_size(case: tuple, shape: tuple[int, int]) -> None:
    tile = random_tile(*shape)
    assert differences(layer_of(case), [tile], *MODES["slide"], OnGpu).max() <= 1


@pytest.mark.parametrize("case", [CASES[4], CASES[18]], ids=str)
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


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from wsi_norm.normalizers import gpu_kernels
from wsi_norm.normalizers.kernels import KINDS

TYPES = {name: "*u8" for name in ("tiles", "out")}
TYPES |= {name: "*fp32" for name in ("parameters", "weights", "linear", "maps", "tokens", "scores")}
TYPES |= {name: "i32" for name in ("stride", "pixels", "height", "width", "down", "across")}
TYPES |= {"least_weight": "fp32"}
for name, kind in ("average", "od"), ("average", "hsv"), ("pool", "lab"), ("attend", "hsv"):
    kernel = getattr(gpu_kernels, name)
    known = {"kinds": KINDS[kind], "spaces": 1, "paper": True, "block": 128, "count": 1}
    constants = {(i,): known[arg] for i, arg in enumerate(kernel.arg_names) if arg in known}
    types = {arg: TYPES.get(arg, "constexpr") for arg in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants)
    made = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True}
    )
    assert made.asm["cubin"]
    by_255 = [line for line in made.asm["ptx"].splitlines() if "0f3B808081" in line]
    print(name, kind, sum("fma" in line for line in by_255))
"""


def test_the_kernels_compile_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    """And no byte / 255 is part of a difference, where its rounding would make hue jump."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert {"average hsv 0", "attend hsv 0"} <= set(done.stdout.splitlines())
