"""A layer as its kernels see it: coefficients from its parameters, one tile at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from wsi_norm.colorspace import DARKEST, DENSITY_TO_STAIN, HUE, SPACES, STAIN_TO_DENSITY, Space
from wsi_norm.lstainnorm.attention import chebyshev
from wsi_norm.lstainnorm.background import DARKEST_WHITE, WHITE_PERCENTILE
from wsi_norm.lstainnorm.fusion import MIN_WEIGHT, MeanFusion, PaperFusion, ProductFusion
from wsi_norm.lstainnorm.layer import LStainNorm
from wsi_norm.lstainnorm.normalization import EPS, MAX_GAIN, SpaceNormalization
from wsi_norm.lstainnorm.template import MIN_TISSUE_SHARE, MomentPool, Statistics, Triple, triple
from wsi_norm.normalizers import kernels

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_BYTE = np.arange(256) / 255
_LINEAR = np.where(_BYTE > 0.04045, ((_BYTE + 0.055) / 1.055) ** 2.4, _BYTE / 12.92)
_TABLES = np.stack([_LINEAR, np.log2(np.maximum(_BYTE, DARKEST))]).astype(np.float32)
_KINDS: dict[Space, int] = {
    "rgb": kernels.RGB,
    "lab": kernels.LAB,
    "hsv": kernels.HSV,
    "hed": kernels.HED,
}
_SEXTANTS = 3 / math.pi
_KNOWN_LAYOUT: list[Literal["C", "W"]] = ["C", "W"]
"""To numba, a read-only or strided array is another type: it would compile everything anew."""


class FusedLayer:
    """A layer's parameters, taken once, and the kernels that apply them; float32 inside.

    Threads may share it: each has its own scratch memory, about 40 bytes per pixel of a tile.

    Raises
    ------
    ValueError
        The preset is "reference", which has no fused form.
    """

    def __init__(self, layer: LStainNorm) -> None:
        if not isinstance(layer.normalization, SpaceNormalization):
            raise ValueError("preset 'reference' has no fused form")
        self.config = layer.config
        self._kinds = tuple(_KINDS[space] for space in layer.config.spaces)
        self._target = layer.normalization.target_mean.detach().double().cpu().numpy()
        self._target_std = layer.normalization.target_std.detach().double().cpu().numpy()
        self._fusion = _fusion(layer.fusion, len(self._kinds))
        self._memory = threading.local()

    def normalize(
        self, tiles: UInt8, statistics: Statistics | None, white: Triple | None
    ) -> tuple[UInt8, npt.NDArray[np.bool_]]:
        """As `Normalizer.normalize`, of uint8 (N, H, W, 3), tile by tile."""
        tiles = np.require(tiles, requirements=_KNOWN_LAYOUT)
        out, usable = np.empty_like(tiles), np.ones(len(tiles), np.bool_)
        if statistics is not None:
            white = white or statistics.white
            known = self._coefficients(self._rows(statistics.mean), self._rows(statistics.std))
            for tile, done in zip(tiles, out, strict=True):
                self._transform(tile, done, white, known)
            return out, usable
        for index, (tile, done) in enumerate(zip(tiles, out, strict=True)):
            level = white or self._white_of(tile)
            measured = self._measured(tile, level)
            if measured is None:
                done[...], usable[index] = tile, False
            else:
                self._transform(tile, done, level, self._coefficients(*measured))
        return out, usable

    def add_to(
        self, pool: MomentPool, tile: UInt8, tissue: npt.NDArray[Any], white: Triple
    ) -> None:
        """Add the tissue of a tile (H, W, 3), where `tissue` (H, W) is true, to a pool."""
        kinds = np.array([_KINDS[space] for space in SPACES])
        tile, tissue = (np.require(x, np.uint8, _KNOWN_LAYOUT) for x in (tile, tissue))
        sums = np.zeros((len(SPACES), 3, 2))
        amount = kernels.moments(
            tile, tissue, _per_white(white), _TABLES, kinds, pool.circular_hue, sums
        )
        pool.add_sums(dict(zip(SPACES, sums, strict=True)), amount, tissue.size)

    def _transform(
        self, tile: UInt8, out: UInt8, white: Triple, coefficients: npt.NDArray[np.float32]
    ) -> None:
        least_weight = np.float32(self.config.background == "normalize")
        scratch = self._scratch(tile.shape[0], tile.shape[1])
        kernels.transform(
            tile,
            out,
            _per_white(white),
            least_weight,
            _TABLES,
            self._kinds,
            coefficients,
            self._fusion,
            scratch,
        )

    def _measured(self, tile: UInt8, white: Triple) -> tuple[Floats, Floats] | None:
        """Mean and std (spaces, 3) of a tile's tissue; None if there is (almost) none."""
        sums = np.zeros((len(self._kinds), 3, 2))
        everywhere = np.ones(tile.shape[:2], np.uint8)
        angle = self.config.circular_hue
        amount = kernels.moments(
            tile, everywhere, _per_white(white), _TABLES, np.array(self._kinds), angle, sums
        )
        if amount < MIN_TISSUE_SHARE * everywhere.size:
            return None
        return self._finish(sums / amount)

    def _rows(self, moments: Mapping[Space, Triple]) -> Floats:
        return np.array([moments[space] for space in self.config.spaces], np.float64)

    def _scratch(self, height: int, width: int) -> npt.NDArray[np.float32]:
        size = kernels.scratch_size(height, width, len(self._kinds), self._fusion[0])
        held: npt.NDArray[np.float32] | None = getattr(self._memory, "scratch", None)
        if held is None or held.size < size:
            held = self._memory.scratch = np.empty(size, np.float32)
        return held

    def _white_of(self, tile: UInt8) -> Triple:
        levels = np.empty(3, np.int64)
        rank = max(1, round(WHITE_PERCENTILE * tile.shape[0] * tile.shape[1]))
        kernels.white_ranks(tile, rank, levels)
        return triple(np.maximum(levels / 255, DARKEST_WHITE))

    def _finish(self, sums: Floats) -> tuple[Floats, Floats]:
        """Mean and std (spaces, 3) of mean x and x^2, as `SpaceNormalization.measure` has them."""
        mean = sums[..., 0]
        std = np.sqrt(np.maximum(sums[..., 1] - mean**2, 0) + 1e-12)
        if self.config.circular_hue and HUE[0] in self.config.spaces:
            hue = self.config.spaces.index(HUE[0]), HUE[1]
            sine, cosine = sums[hue]
            resultant = min(math.sqrt(sine**2 + cosine**2 + 1e-12), 1 - 1e-6)
            mean[hue] = math.atan2(sine, cosine + 1e-12) % math.tau
            std[hue] = math.sqrt(-2 * math.log(resultant))
        return mean, std

    def _coefficients(self, mean: Floats, std: Floats) -> npt.NDArray[np.float32]:
        """What the kernels multiply and add, float32 (spaces, COEFFICIENTS)."""
        gain = self._target_std / (np.maximum(std, self._target_std / MAX_GAIN) + EPS)
        shift = self._target - gain * mean
        rows = np.zeros((len(self._kinds), kernels.COEFFICIENTS))
        for row, kind, g, c, m, t in zip(
            rows, self._kinds, gain, shift, mean, self._target, strict=True
        ):
            if kind == kernels.HED:  # log2 RGB -> stains -> matched -> log2 RGB
                row[:9] = (DENSITY_TO_STAIN @ np.diag(g) @ STAIN_TO_DENSITY).T.ravel()
                row[9:12] = c @ STAIN_TO_DENSITY * math.log2(DARKEST)
                continue
            row[:3], row[3:6] = g, c
            if kind == kernels.LAB:  # L* = 116 f(Y) - 16, a* = 500 (f(X) - f(Y)), ...
                row[3:6] = (c[0] + 16 * (1 - g[0])) / 116, c[1] / 500, c[2] / 200
            elif kind == kernels.HSV:
                period = 6 if self.config.circular_hue else 0
                row[3], row[6], row[7] = t[0] * _SEXTANTS, m[0] * _SEXTANTS, period
        return rows.astype(np.float32)


def _per_white(white: Triple) -> npt.NDArray[np.float32]:
    return (1 / (255 * np.array(white))).astype(np.float32)


def _fusion(fusion: torch.nn.Module, spaces: int) -> tuple[int, Any, Any, Any, Any, Any]:
    """The argument `fusion` of `kernels.transform`."""
    weights = np.ones((spaces, 2), np.float32)
    scores, delta = np.zeros((spaces, 8), np.float32), np.ones((spaces, 3), np.float32)
    how, nodes = kernels.MEAN, 2
    with torch.no_grad():
        if isinstance(fusion, MeanFusion):
            weight = fusion.weight.double().clamp_min(MIN_WEIGHT)
            weights[:, 0] = weight / weight.sum()
        elif isinstance(fusion, PaperFusion):
            how = kernels.PAPER
            weights[:] = torch.stack([fusion.scale, fusion.shift], dim=1)
            delta[:] = fusion.delta.clamp_min(0)
        elif isinstance(fusion, ProductFusion):
            how = kernels.PRODUCT
            weights[:, 0] = fusion.logits.softmax(0)
        if isinstance(fusion, PaperFusion | ProductFusion):
            attention = fusion.attention
            for start, side in ((0, "query"), (4, "key")):
                scores[:, start : start + 3] = getattr(attention, f"{side}_weight")
                scores[:, start + 3] = getattr(attention, f"{side}_bias")
            nodes = attention.nodes()
    points, to_coefficients = chebyshev(nodes)
    return how, weights, scores, delta, points, to_coefficients
