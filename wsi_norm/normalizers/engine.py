"""The learned layer at work on uint8 tiles: by kernels, on a CPU or a GPU, or by PyTorch."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from wsi_norm.choices import StatisticsMode
from wsi_norm.errors import ConfigError
from wsi_norm.glass import white_of_tiles
from wsi_norm.lstainnorm import LayerState, Statistics, Template
from wsi_norm.lstainnorm.checkpoint import read_checkpoint
from wsi_norm.lstainnorm.config import REFERENCE
from wsi_norm.lstainnorm.counts import OD, doubts
from wsi_norm.lstainnorm.moments import MomentPool, Triple, triple
from wsi_norm.machine import resolve_device
from wsi_norm.normalizers.base import Bools
from wsi_norm.normalizers.blank import holds_tissue, without_blank
from wsi_norm.normalizers.model import Model
from wsi_norm.pixels import UInt8, as_batch

if TYPE_CHECKING:
    from wsi_norm.lstainnorm import StainLayer
    from wsi_norm.normalizers.batches import OnTensors
    from wsi_norm.normalizers.fused import FusedLayer

Engine = Literal["auto", "kernel", "torch"]


def lstainnorm(model: Model, device: str, batch_size: int | None) -> Normalizer:
    """The layer of a checkpoint, set to what the model asks for: a `Maker`."""
    state, sha256 = read_checkpoint(model.path, model.template, tried=model.sha256)
    try:
        state = state.configured(model.statistics, model.background)
    except ValueError as error:
        raise ConfigError(f"{model.file}: {error}") from error
    return Normalizer(state, device, batch_size, digest=sha256)


class Normalizer:
    """LStainNorm on tiles: uint8 in, normalised uint8 out. A `StainNormalizer`.

    Parameters
    ----------
    layer
        Any form of it, moved to the device itself; or its numbers, which do without PyTorch where
        kernels do the work on a CPU.
    device
        "auto" (the first CUDA device, else the CPU), "cpu", "cuda" or "cuda:i".
    batch_size
        Tiles per forward pass on a GPU, halved while they do not fit; None fits it to the free
        memory. A CPU always works tile by tile: it is no slower, and no byte of the result can
        depend on the batch.
    engine
        "kernel": the fused form, by numba on a CPU and by Triton on a GPU; it takes the layer's
        parameters once, here, and agrees with "torch" to a rounding of the byte. "auto" is the
        kernel, but torch for the preset "reference" and, with a warning, where numba or, for a GPU,
        Triton is not installed.
    name, digest
        What a store says of it; see `StainNormalizer`.

    Raises
    ------
    ConfigError
        The device does not exist here, or the engine does not run on it or lacks a kernel.
    """

    def __init__(
        self,
        layer: StainLayer | LayerState,
        device: str = "auto",
        batch_size: int | None = None,
        *,
        engine: Engine = "auto",
        name: str = "lstainnorm",
        digest: str | None = None,
    ) -> None:
        self._made_with = device, batch_size, engine, name, digest
        self.device = resolve_device(device)
        self._layer = layer if isinstance(layer, LayerState) else layer.to(self.device).eval()
        self.name, self.digest = name, digest
        self._fused = _fused(self._layer, self.device, engine)
        self._on_tensors: OnTensors | None = None
        if self._fused is None or self.device != "cpu":
            from wsi_norm.normalizers.batches import OnTensors

            self._on_tensors = OnTensors(self.layer, self.device, batch_size, self._fused)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (self._layer, *self._made_with)

    @property
    def layer(self) -> StainLayer:
        """The layer in PyTorch, on the device; a new one each time where numbers were given."""
        if isinstance(self._layer, LayerState):
            from wsi_norm.lstainnorm.layer import layer_of

            return layer_of(self._layer).to(self.device)
        return self._layer

    @property
    def engine(self) -> Literal["kernel", "torch"]:
        """The form that is at work."""
        return "torch" if self._fused is None else "kernel"

    @property
    def statistics(self) -> StatisticsMode:
        """Whose mean and std the layer is given."""
        return self._layer.config.statistics

    @property
    def target(self) -> Template:
        """What the layer aims at."""
        return self._layer.target

    def facts(self) -> dict[str, Any]:
        """See `StainNormalizer.facts`."""
        config = self._layer.config
        return {
            "normalizer": self.name,
            "sha256": self.digest,
            "preset": config.preset,
            "statistics": config.statistics,
            "background": config.background,
            "provenance": self._layer.provenance,
        }

    def warm_up(self) -> None:
        """Compile or load the kernels, or start the device: seconds that no tile need wait for."""
        tile = np.random.default_rng(0).integers(40, 200, (1, 16, 16, 3), dtype=np.uint8)
        self.normalize(tile, self.measure(tile, white=(1.0, 1.0, 1.0)))
        self.normalize(tile)

    def measure(
        self, tiles: UInt8, tissue: Bools | None = None, white: Triple | None = None
    ) -> Statistics:
        """See `StainNormalizer.measure`."""
        batch = as_batch(tiles)
        if not len(batch):
            raise ValueError("no statistics: no tiles, hence no tissue")
        if tissue is not None and tissue.shape != batch.shape[:3]:
            raise ValueError(f"tissue must be bool {batch.shape[:3]}, not {tissue.shape}")
        level = white or triple(white_of_tiles(batch))
        if tissue is None and white is None:
            batch = batch[[holds_tissue(tile) for tile in batch]]
        pool = self._pool(batch, tissue, level)
        if not pool.usable:
            raise ValueError("no statistics: the tiles hold (almost) no tissue")
        return Statistics(*pool.moments(), level, pool.tissue_pixels)

    def doubts(self, statistics: Statistics) -> list[str]:
        """See `StainNormalizer.doubts`: whether bounds of density held."""
        if OD not in self._layer.config.spaces:
            return []
        (location,), (spread,) = statistics.rows((OD,))
        target = self.target
        return doubts(location, spread, target.mean[OD], target.std[OD])

    def _pool(self, tiles: UInt8, tissue: Bools | None, white: Triple) -> MomentPool:
        circular = self._layer.config.circular_hue
        if self._fused is not None:
            from wsi_norm.normalizers.fused import pool_of

            return pool_of(tiles, tissue, white, circular)
        from wsi_norm.normalizers.batches import pool_of_tensors

        return pool_of_tensors(tiles, tissue, white, circular)

    def __call__(self, tiles: UInt8, statistics: Statistics | None = None) -> UInt8:
        """Normalise tiles.

        Parameters
        ----------
        tiles
            uint8 (N, H, W, 3), RGB.
        statistics
            Of their slide; None measures every tile by itself.

        Returns
        -------
        uint8 (N, H, W, 3)
        """
        return self.normalize(tiles, statistics)[0]

    def normalize(
        self, tiles: UInt8, statistics: Statistics | None = None, white: Triple | None = None
    ) -> tuple[UInt8, Bools]:
        """See `StainNormalizer.normalize`; of tiles alone, those without tissue stay as is."""
        tiles = as_batch(tiles)
        if statistics is None and white is None:
            return without_blank(tiles, lambda tiles: self._normalize(tiles, None, None))
        return self._normalize(tiles, statistics, white)

    def _normalize(
        self, tiles: UInt8, statistics: Statistics | None, white: Triple | None
    ) -> tuple[UInt8, Bools]:
        form = self._on_tensors or self._fused
        assert form is not None
        return form.normalize(tiles, statistics, white)


def _made_again(
    layer: StainLayer | LayerState,
    device: str,
    batch_size: int | None,
    engine: Engine,
    name: str,
    digest: str | None,
) -> Normalizer:
    """A Normalizer that travelled, or a copy: memory of threads, locks and kernels are new."""
    return Normalizer(layer, device, batch_size, engine=engine, name=name, digest=digest)


def _fused(layer: StainLayer | LayerState, device: str, engine: Engine) -> FusedLayer | None:
    """The fused form if the engine asks for it, None for the torch form."""
    if engine not in get_args(Engine):
        raise ConfigError(f"engine {engine!r} is none of {', '.join(get_args(Engine))}")
    to_the_letter = layer.config.preset == REFERENCE
    if engine == "torch" or (engine == "auto" and to_the_letter):
        return None
    needed = ["numba"] if device == "cpu" else ["numba", "triton"]
    if lacking := [name for name in needed if importlib.util.find_spec(name) is None]:
        if engine == "kernel":
            raise ConfigError(f"engine 'kernel' needs {lacking[0]}: pip install {lacking[0]}")
        warnings.warn(
            f"{lacking[0]} is not installed: the layer runs in PyTorch, many times slower "
            f"(pip install {lacking[0]})",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    from wsi_norm.normalizers.fused import FusedLayer

    try:
        return FusedLayer(layer)
    except ValueError as error:
        raise ConfigError(f"{error}; use engine 'torch'") from error
