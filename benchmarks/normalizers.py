"""The contestants: each is built from tiles of the target and maps uint8 (T, T, 3) to the same.

Imports stand inside: each contestant lives in its own process, and a missing package is its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Tile = np.ndarray
Normalize = Callable[[Tile], Tile]
Build = Callable[[np.ndarray], Normalize]

FLOOR = "cv2 Reinhard, 8-bit CIELAB (floor)"
FLOAT_FLOOR = "cv2 Reinhard, float32 CIELAB"
DENSITY = "wsi-norm density (default), kernel, slide statistics"
KERNEL = "wsi-norm paper, kernel, slide statistics"
EAGER = "wsi-norm paper, torch eager, slide statistics"
COMPILED = "torch.compile of the paper's layer"
PLAIN = "plain kornia layer, N x N softmax"

MISSING = {
    "torch-staintools": "needs kornia ~= 0.8.2 (0.9 here) and torchvision",
    "tiatoolbox": "needs torch < 2.13, dask < 2026.7.1, numpy < 2.4.4, torchvision",
    "histomicstk": "needs dask < 2024.11",
    "squidpy": "spatialdata needs dask < 2026.1.2",
    "histolab": "releases that normalise need numpy <= 1.24 and Pillow < 11",
}
"""Rivals that cannot be installed beside torch 2.13 and the versions of constraints.txt."""


def ours(
    reference: np.ndarray, checkpoint: str, engine: str = "kernel", per_slide: bool = True
) -> Normalize:
    from wsi_norm import Normalizer, load_checkpoint

    normalizer = Normalizer(load_checkpoint(checkpoint), "cpu", engine=engine)
    statistics = normalizer.measure(reference) if per_slide else None
    return lambda tile: normalizer(tile[None], statistics)[0]


def compiled(reference: np.ndarray) -> Normalize:
    import torch

    from wsi_norm import Normalizer, load_checkpoint

    layer = load_checkpoint("paper").eval().requires_grad_(False)
    statistics = Normalizer(layer, "cpu").measure(reference)
    forward = torch.compile(lambda x: layer.normalize(x, statistics)[0], dynamic=False)
    return _on_floats(forward)


def plain(reference: np.ndarray) -> Normalize:
    import torch

    from benchmarks.plain import TO, PlainLayer
    from wsi_norm import load_checkpoint

    target = load_checkpoint("paper").target
    moments = (
        {space: torch.tensor(values[space])[:, None, None] for space in TO}
        for values in (target.mean, target.std)
    )
    return _on_floats(PlainLayer(*moments).eval())


def cv2_reinhard_8_bit(reference: np.ndarray) -> Normalize:
    """The fastest there is: CIELAB rounded to bytes, a look-up table per channel."""
    import cv2

    cv2.setNumThreads(1)
    goal_mean, goal_std = cv2.meanStdDev(cv2.cvtColor(reference[0], cv2.COLOR_RGB2LAB))
    levels = np.arange(256)

    def normalize(tile: Tile) -> Tile:
        lab = cv2.cvtColor(tile, cv2.COLOR_RGB2LAB)
        mean, std = cv2.meanStdDev(lab)
        table = (levels - mean) * (goal_std / np.maximum(std, 1e-3)) + goal_mean
        tables = table.round().clip(0, 255).astype(np.uint8).T[None]
        return cv2.cvtColor(cv2.LUT(lab, np.ascontiguousarray(tables)), cv2.COLOR_LAB2RGB)

    return normalize


def cv2_reinhard(reference: np.ndarray) -> Normalize:
    import cv2

    cv2.setNumThreads(1)

    def to_lab(tile: Tile) -> np.ndarray:
        return cv2.cvtColor(np.multiply(tile, np.float32(1 / 255)), cv2.COLOR_RGB2LAB)

    goal_mean, goal_std = cv2.meanStdDev(to_lab(reference[0]))

    def normalize(tile: Tile) -> Tile:
        lab = to_lab(tile)
        mean, std = cv2.meanStdDev(lab)
        scale = goal_std / np.maximum(std, 1e-3)
        moved = cv2.transform(lab, np.hstack([np.diagflat(scale), goal_mean - mean * scale]))
        return cv2.convertScaleAbs(cv2.cvtColor(moved, cv2.COLOR_LAB2RGB), alpha=255)

    return normalize


def torchstain(reference: np.ndarray, method: str, backend: str) -> Normalize:
    import torch
    from torchstain import normalizers

    normalizer = getattr(normalizers, method)(backend=backend)

    def take(tile: Tile) -> Any:
        return torch.from_numpy(tile).permute(2, 0, 1) if backend == "torch" else tile

    normalizer.fit(take(reference[0]))
    options = {"stains": False} if "Macenko" in method else {}

    def normalize(tile: Tile) -> Tile:
        done = normalizer.normalize(take(tile), **options)
        return np.asarray(done[0] if options else done).astype(np.uint8, copy=False)

    return normalize


def stainx(reference: np.ndarray, method: str) -> Normalize:
    import stainx as package
    import torch

    normalizer = getattr(package, method)(device="cpu")
    normalizer.fit(torch.from_numpy(reference[:1]).permute(0, 3, 1, 2))

    def normalize(tile: Tile) -> Tile:
        done = normalizer.transform(torch.from_numpy(tile).permute(2, 0, 1)[None])
        return done[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).contiguous().numpy()

    return normalize


def _on_floats(forward: Callable[..., Any]) -> Normalize:
    import torch

    @torch.inference_mode()
    def normalize(tile: Tile) -> Tile:
        x = torch.from_numpy(tile).permute(2, 0, 1)[None].float() / 255
        y = (forward(x)[0] * 255).round().to(torch.uint8)
        return y.permute(1, 2, 0).contiguous().numpy()

    return normalize


CONTESTANTS: dict[str, Build] = {
    FLOOR: cv2_reinhard_8_bit,
    FLOAT_FLOOR: cv2_reinhard,
    DENSITY: lambda reference: ours(reference, "density"),
    "wsi-norm density, kernel, tile statistics": lambda reference: ours(
        reference, "density", per_slide=False
    ),
    KERNEL: lambda reference: ours(reference, "paper"),
    "wsi-norm paper, kernel, tile statistics": lambda reference: ours(
        reference, "paper", per_slide=False
    ),
    EAGER: lambda reference: ours(reference, "paper", "torch"),
    COMPILED: compiled,
    PLAIN: plain,
    **{
        f"torchstain {method}, {backend}": (
            lambda reference, method=method, backend=backend: torchstain(
                reference, f"{method}Normalizer", backend
            )
        )
        for method in ("Reinhard", "Macenko")
        for backend in ("numpy", "torch")
    },
    "stainx Reinhard": lambda reference: stainx(reference, "Reinhard"),
    "stainx Macenko": lambda reference: stainx(reference, "Macenko"),
}

ONLY_EDGES = {COMPILED: (256,)}
"""Compiling takes a minute a size."""
