"""Normalisers as the kernels see them: coefficients from their parameters, one tile at a time."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from wsi_norm.choices import Background
from wsi_norm.glass import fill_mask, white_of_tiles
from wsi_norm.lstainnorm import LayerState, Statistics
from wsi_norm.lstainnorm.chebyshev import chebyshev, nodes_of
from wsi_norm.lstainnorm.config import MAX_GAIN, MIN_WEIGHT, REFERENCE
from wsi_norm.lstainnorm.counts import LEAST_DENSITY, LEAST_SPREAD, NUCLEI_GAIN, OD, STEEPEST
from wsi_norm.lstainnorm.moments import EPS, MomentPool, Triple, triple
from wsi_norm.lstainnorm.shadow import shadow_of
from wsi_norm.lstainnorm.state import shapes
from wsi_norm.normalizers import kernels
from wsi_norm.normalizers.base import Bools
from wsi_norm.normalizers.kernels import KINDS
from wsi_norm.pixels import UInt8
from wsi_norm.spaces import DARKEST, DENSITY_TO_STAIN, HUE, SPACES, STAIN_TO_DENSITY, Space

if TYPE_CHECKING:
    from wsi_norm.lstainnorm import StainLayer

Floats = npt.NDArray[np.float64]
Coefficients = npt.NDArray[np.float32]
"""Of any shape: what the kernels take."""
Work = Callable[[UInt8, UInt8], None]
"""A tile (H, W, 3), and where its normalised form goes."""

_BYTE = np.arange(256) / 255
_LINEAR = np.where(_BYTE > 0.04045, ((_BYTE + 0.055) / 1.055) ** 2.4, _BYTE / 12.92)
TABLES = np.stack([_LINEAR, np.log2(np.maximum(_BYTE, DARKEST))]).astype(np.float32)
MEASURED: tuple[Space, ...] = tuple(space for space in SPACES if space in KINDS)
_SEXTANTS = 3 / math.pi
_KNOWN_LAYOUT: list[Literal["C", "W"]] = ["C", "W"]
"""To numba, a read-only or strided array is another type: it would compile everything anew."""


class TileKernels(ABC):
    """A normaliser whose work on a tile is one call of the kernels; float32 inside.

    Threads may share it: each has its own scratch memory, about 40 bytes per pixel of a tile.

    Parameters
    ----------
    kinds
        Of `kernels`, one per branch.
    fusion
        As `kernels.attend` takes it, or MEAN and the weights of `kernels.average`.
    tables
        float32 (2, 256): linear light and log2 of a byte.
    """

    background: Background

    def __init__(
        self, kinds: tuple[int, ...], fusion: Any, tables: npt.NDArray[np.float32] = TABLES
    ) -> None:
        self._kinds, self._fusion, self.tables = kinds, fusion, tables
        self._memory = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_memory"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _memory=threading.local())

    @abstractmethod
    def coefficients(self, statistics: Statistics, white: Triple) -> Coefficients:
        """What the kernels multiply and add, float32 (branches, COEFFICIENTS)."""

    @abstractmethod
    def measure_tile(self, tile: UInt8, white: Triple) -> Statistics | None:
        """A tile's own statistics; None if it has (almost) no tissue."""

    def normalize(
        self, tiles: UInt8, statistics: Statistics | None = None, white: Triple | None = None
    ) -> tuple[UInt8, Bools]:
        """As `StainNormalizer.normalize`, of uint8 (N, H, W, 3), tile by tile."""
        tiles = np.require(tiles, requirements=_KNOWN_LAYOUT)
        out, usable = np.empty_like(tiles), np.ones(len(tiles), np.bool_)
        if statistics is not None:
            work = self.work(statistics, white or statistics.white)
            for tile, done in zip(tiles, out, strict=True):
                _apply(work, tile, done)
            return out, usable
        for index, (tile, done) in enumerate(zip(tiles, out, strict=True)):
            own = own_statistics(self, tile, white)
            if own is None:
                done[...], usable[index] = tile, False
            else:
                _apply(self.work(own, own.white), tile, done)
        return out, usable

    def form(self) -> tuple[Any, ...]:
        """What does not depend on a slide: kinds, then the first five of `fusion`."""
        return self._kinds, *self._fusion[:5]

    def work(self, statistics: Statistics, white: Triple) -> Work:
        """What is done to each tile of a slide; what follows from its statistics is done once."""
        glass, shadow = per_white(white), self.shadow(statistics)
        coefficients = self.coefficients(statistics, white)

        rest = self.least_weight, shadow, self.tables, self._kinds, coefficients
        fusion = self._fusion

        def average(tile: UInt8, out: UInt8) -> None:
            kernels.average(tile, out, glass, *rest, fusion[1])

        def attend(tile: UInt8, out: UInt8) -> None:
            scratch = self._scratch(tile.shape[0], tile.shape[1])
            kernels.attend(tile, out, glass, *rest, fusion, scratch)

        return average if fusion[0] == kernels.MEAN else attend

    def shadow(self, statistics: Statistics) -> Coefficients:
        """How matching is bounded, as `kernels.average` takes it."""
        start, slope = shadow_of(statistics)
        return np.array([255 * start, slope / 255, 1], np.float32)

    @property
    def least_weight(self) -> np.float32:
        """0 keeps the background, 1 does to it what is done to tissue."""
        return np.float32(self.background == "normalize")

    def _scratch(self, height: int, width: int) -> npt.NDArray[np.float32]:
        size = kernels.scratch_size(height, width, len(self._kinds))
        held: npt.NDArray[np.float32] | None = getattr(self._memory, "scratch", None)
        if held is None or held.size < size:
            held = self._memory.scratch = np.empty(size, np.float32)
        return held


class FusedLayer(TileKernels):
    """A layer's numbers, taken once; of a module of PyTorch those that it has now.

    Raises
    ------
    ValueError
        The layer has no fused form; one line says what lacks a kernel.
    """

    def __init__(self, layer: LayerState | StainLayer) -> None:
        state = layer if isinstance(layer, LayerState) else layer.state()
        config = state.config
        if config.preset == REFERENCE:
            raise ValueError(f"preset {config.preset!r} has no kernel")
        lacking = [space for space in config.spaces if space not in KINDS]
        if lacking:
            raise ValueError(f"colour space {lacking[0]!r} has no kernel")
        if state.arrays.keys() != shapes(config).keys():
            raise ValueError(f"its parts are not those of preset {config.preset!r}: no kernel")
        self.layer = layer
        super().__init__(tuple(KINDS[space] for space in config.spaces), _fusion(state))
        self._target = state.target_mean.astype(np.float64)
        self._target_std = state.target_std.astype(np.float64)

    @property
    def background(self) -> Background:  # type: ignore[override]
        """As the layer is set."""
        return self.layer.config.background

    def measure_tile(self, tile: UInt8, white: Triple) -> Statistics | None:
        """See `TileKernels`; in the layer's own spaces and RGB alone."""
        config = self.layer.config
        spaces = tuple(dict.fromkeys((*config.spaces, "rgb")))  # RGB says what is shadow
        pool = MomentPool(spaces, config.circular_hue, white)
        add_tile(pool, tile, None, white)
        if not pool.usable:
            return None
        return Statistics(*pool.moments(), white, pool.tissue_pixels)

    def shadow(self, statistics: Statistics) -> Coefficients:
        """See `TileKernels`; density alone has bounds of its own."""
        if self._kinds == (kernels.OD,):
            return np.zeros(3, np.float32)
        return super().shadow(statistics)

    def coefficients(self, statistics: Statistics, white: Triple) -> Coefficients:
        """See `TileKernels`."""
        config = self.layer.config
        mean, std = (np.array(rows, np.float64) for rows in statistics.rows(config.spaces))
        gain = self._target_std / (np.maximum(std, self._target_std / MAX_GAIN) + EPS)
        shift = self._target - gain * mean
        rows = np.zeros((len(self._kinds), kernels.COEFFICIENTS))
        for row, space, g, c, m, t in zip(
            rows, config.spaces, gain, shift, mean, self._target, strict=True
        ):
            if space == OD:
                row[:] = self._density(statistics, white)
                continue
            if space == "hed":  # log2 RGB -> stains -> matched -> log2 RGB
                row[:9] = (DENSITY_TO_STAIN @ np.diag(g) @ STAIN_TO_DENSITY).T.ravel()
                row[9:12] = c @ STAIN_TO_DENSITY * math.log2(DARKEST)
                continue
            row[:3], row[3:6] = g, c
            if space == "lab":  # L* = 116 f(Y) - 16, a* = 500 (f(X) - f(Y)), ...
                row[3:6] = (c[0] + 16 * (1 - g[0])) / 116, c[1] / 500, c[2] / 200
            elif space == HUE[0]:
                period = 6 if config.circular_hue else 0
                row[3], row[6], row[7] = t[0] * _SEXTANTS, m[0] * _SEXTANTS, period
        return rows.astype(np.float32)

    def _density(self, statistics: Statistics, white: Triple) -> Floats:
        """The coefficients of `kernels._od`: densities are of log2 there."""
        place = self.layer.config.spaces.index(OD)
        own, spread = (np.array(rows[0]) for rows in statistics.rows((OD,)))
        more = np.clip(self._target_std[place] / np.maximum(spread, LEAST_SPREAD), *NUCLEI_GAIN) - 1
        of_log = np.concatenate([own, spread]) / math.log(2)
        stroma = max(own.sum(), LEAST_SPREAD)
        shift = np.minimum(self._target[place] - own, STEEPEST * stroma) / math.log(2)
        amount = math.log(2) / stroma
        return np.concatenate([np.log2(white), of_log, more, shift, 1 / np.array(white), [amount]])


def own_statistics(normalizer: TileKernels, tile: UInt8, white: Triple | None) -> Statistics | None:
    """A tile's own statistics, with this white or its own; None if it has (almost) no tissue."""
    return normalizer.measure_tile(tile, white or triple(white_of_tiles(tile[None])))


def _apply(work: Work, tile: UInt8, out: UInt8) -> None:
    """Do the work, but leave fill as it is."""
    work(tile, out)
    keep_fill(tile, out)


def keep_fill(tile: UInt8, out: UInt8) -> None:
    """Put back what is fill in a tile (H, W, 3)."""
    if (fill := fill_of(tile)) is not None:
        out[fill] = tile[fill]


def fill_of(tile: UInt8) -> npt.NDArray[np.bool_] | None:
    """`glass.fill_mask` of a tile (H, W, 3); hundreds of times as fast where there is none."""
    tile = np.require(tile, np.uint8, _KNOWN_LAYOUT)
    return fill_mask(tile) if kernels.may_hold_fill(tile) else None


def add_tile(pool: MomentPool, tile: UInt8, tissue: npt.NDArray[Any] | None, white: Triple) -> None:
    """Add the tissue of a tile (H, W, 3), where `tissue` (H, W; None: anywhere), to a pool."""
    counted = np.ones(tile.shape[:2], np.bool_) if tissue is None else tissue
    tile = np.require(tile, np.uint8, _KNOWN_LAYOUT)
    if (fill := fill_of(tile)) is not None:
        counted = counted.astype(np.bool_) & ~fill
    counted = np.require(counted, np.uint8, _KNOWN_LAYOUT)
    kinds = np.array([KINDS[space] for space in pool.spaces])
    sums, counts = np.zeros((len(kinds), 3, 2)), np.zeros((3, 256), np.int64)
    darker = np.zeros(3, np.int64)
    if OD in pool.spaces:
        darker[:] = np.ceil(255 * np.array(white) * np.exp(-LEAST_DENSITY))
    amount = kernels.moments(
        tile, counted, per_white(white), darker, TABLES, kinds, pool.circular_hue, sums, counts
    )
    pool.add_sums(sums, counts, amount, counted.size)


def pool_of(
    tiles: UInt8, tissue: npt.NDArray[Any] | None, white: Triple, circular_hue: bool = True
) -> MomentPool:
    """Moments of the tissue of tiles (N, H, W, 3), in every space that has a kernel."""
    pool = MomentPool(MEASURED, circular_hue, white)
    for index, tile in enumerate(tiles):
        add_tile(pool, tile, None if tissue is None else tissue[index], white)
    return pool


def mean_fusion(weights: npt.NDArray[Any]) -> Any:
    """What `TileKernels` takes as `fusion`, for branches averaged with these weights."""
    return _arguments(kernels.MEAN, first=np.asarray(weights) / np.sum(weights))


def per_white(white: Triple) -> npt.NDArray[np.float32]:
    """1 / the byte value of glass, float32 (3,)."""
    return (1 / (255 * np.array(white))).astype(np.float32)


def _fusion(state: LayerState) -> Any:
    """What `TileKernels` takes as `fusion`, of a layer's numbers."""
    if len(state.config.spaces) == 1:
        return mean_fusion(np.ones(1))
    own = {
        name.removeprefix("fusion."): array
        for name, array in state.arrays.items()
        if name.startswith("fusion.")
    }
    match state.config.preset:
        case "mean":
            return mean_fusion(np.maximum(own["weight"].astype(np.float64), MIN_WEIGHT))
        case "paper":
            delta = np.maximum(own["delta"], 0)
            return _arguments(kernels.PAPER, own["scale"], own["shift"], delta, own)
        case "product":
            shares = np.exp(own["logits"] - own["logits"].max())
            return _arguments(kernels.PRODUCT, shares / shares.sum(), attention=own)
    raise ValueError(f"preset {state.config.preset!r} has no kernel")


def _arguments(
    how: int, first: Any, second: Any = 1.0, delta: Any = 1.0, attention: Any = None
) -> tuple[int, Any, Any, Any, Any, Any]:
    spaces = len(first)
    weights, scores = np.ones((spaces, 2), np.float32), np.zeros((spaces, 8), np.float32)
    weights[:, 0], weights[:, 1] = first, second
    deltas = np.ones((spaces, 3), np.float32)
    deltas[:] = delta
    nodes = 2
    if attention is not None:
        nodes = nodes_of(*(attention[f"attention.{side}_weight"] for side in ("query", "key")))
        for start, side in ((0, "query"), (4, "key")):
            scores[:, start : start + 3] = attention[f"attention.{side}_weight"]
            scores[:, start + 3] = attention[f"attention.{side}_bias"]
    return how, weights, scores, deltas, *chebyshev(nodes)
