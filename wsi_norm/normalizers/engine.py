"""The learned layer at work on uint8 tiles: by kernels, on a CPU or a GPU, or by PyTorch."""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from wsi_norm.choices import StatisticsMode
from wsi_norm.colorspace import SPACES
from wsi_norm.errors import ConfigError
from wsi_norm.glass import fill_mask, white_of_tiles
from wsi_norm.lstainnorm import StainLayer, Statistics, Template
from wsi_norm.lstainnorm.background import tissue_weight
from wsi_norm.lstainnorm.checkpoint import open_checkpoint
from wsi_norm.lstainnorm.density import OD, doubts
from wsi_norm.lstainnorm.moments import MomentPool, Triple, triple
from wsi_norm.lstainnorm.reference import ReferenceLayer
from wsi_norm.machine import resolve_device
from wsi_norm.normalizers.base import Bools
from wsi_norm.normalizers.blank import holds_tissue, without_blank
from wsi_norm.normalizers.model import Model
from wsi_norm.pixels import UInt8, as_batch, to_float, to_levels

if TYPE_CHECKING:
    from wsi_norm.normalizers.fused import FusedLayer
    from wsi_norm.normalizers.gpu import GpuKernels

Engine = Literal["auto", "kernel", "torch"]
T = TypeVar("T")

BYTES_PER_PIXEL = 400
"""Peak memory of the torch form per pixel: about thirty float32 images of three channels."""


def lstainnorm(model: Model, device: str, batch_size: int | None) -> Normalizer:
    """The layer of a checkpoint, set to what the model asks for: a `Maker`."""
    checkpoint = open_checkpoint(model.path, model.template)
    try:
        checkpoint.layer.configure(model.statistics, model.background)
    except ValueError as error:
        raise ConfigError(f"{model.file}: {error}") from error
    return Normalizer(checkpoint.layer, device, batch_size, digest=checkpoint.sha256)


class Normalizer:
    """LStainNorm on tiles: uint8 in, normalised uint8 out. A `StainNormalizer`.

    Parameters
    ----------
    layer
        Any form of it; a copy of nothing: the layer itself is moved to the device.
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
        layer: StainLayer,
        device: str = "auto",
        batch_size: int | None = None,
        *,
        engine: Engine = "auto",
        name: str = "lstainnorm",
        digest: str | None = None,
    ) -> None:
        self._made_with = device, batch_size, engine, name, digest
        self.device = resolve_device(device)
        self.layer = layer.to(self.device).eval()
        self.batch_size = batch_size
        self.name, self.digest = name, digest
        self._fused = _fused(self.layer, self.device, engine)
        self._on_gpu = _on_gpu(self._fused, self.device)
        self._alone = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (self.layer, *self._made_with)

    @property
    def engine(self) -> Literal["kernel", "torch"]:
        """The form that is at work."""
        return "torch" if self._fused is None else "kernel"

    @property
    def statistics(self) -> StatisticsMode:
        """Whose mean and std the layer is given."""
        return self.layer.config.statistics

    @property
    def target(self) -> Template:
        """What the layer aims at."""
        return self.layer.target

    def facts(self) -> dict[str, Any]:
        """See `StainNormalizer.facts`."""
        config = self.layer.config
        return {
            "normalizer": self.name,
            "sha256": self.digest,
            "preset": config.preset,
            "statistics": config.statistics,
            "background": config.background,
            "provenance": self.layer.provenance,
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
        if OD not in self.layer.config.spaces:
            return []
        (location,), (spread,) = statistics.rows((OD,))
        target = self.target
        return doubts(location, spread, target.mean[OD], target.std[OD])

    def _pool(self, tiles: UInt8, tissue: Bools | None, white: Triple) -> MomentPool:
        circular = self.layer.config.circular_hue
        if self._fused is not None:
            from wsi_norm.normalizers.fused import pool_of

            return pool_of(tiles, tissue, white, circular)
        pool = MomentPool(SPACES, circular, white)
        for index, tile in enumerate(tiles):
            pixels = to_float(tile[None])
            weight = tissue_weight(pixels, torch.tensor(white)[:, None, None])
            if tissue is not None:
                weight = weight * torch.tensor(np.ascontiguousarray(tissue[index]))
            if (fill := fill_mask(tile)) is not None:
                weight = weight * torch.tensor(~fill)
            pool.add(pixels, weight)
        return pool

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
        if self._on_gpu is not None:
            return self._by_gpu_kernels(self._on_gpu, tiles, statistics, white)
        if self._fused is not None:
            return self._fused.normalize(tiles, statistics, white)
        host = self._host(tiles)
        out, usable = np.empty(tiles.shape, np.uint8), np.ones(len(tiles), np.bool_)
        for part, done in self._batches(
            tiles, BYTES_PER_PIXEL, lambda part: self._forward(host[part], statistics, white)
        ):
            out[part], usable[part] = (values.numpy() for values in done)
        return out, usable

    @torch.inference_mode()
    def _by_gpu_kernels(
        self,
        on_gpu: GpuKernels,
        tiles: UInt8,
        statistics: Statistics | None,
        white: Triple | None,
    ) -> tuple[UInt8, Bools]:
        host, out = self._host(tiles), np.empty(tiles.shape, np.uint8)
        parameters, usable = on_gpu.parameters(host.numpy(), statistics, white)

        def work(part: slice) -> Tensor:
            own = parameters if len(parameters) == 1 else parameters[part]
            there = (x.to(self.device, non_blocking=True) for x in (host[part], own))
            return _to_host(on_gpu.transform(*there))

        for part, levels in self._batches(tiles, on_gpu.bytes_per_pixel, work):
            out[part] = levels.numpy()
        on_gpu.keep(host.numpy(), out, usable)
        return out, usable

    def _host(self, tiles: UInt8) -> Tensor:
        """A copy from where a GPU can fetch it."""
        host = torch.empty(tiles.shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        host.numpy()[...] = tiles
        return host

    def _batches(
        self, tiles: UInt8, bytes_per_pixel: float, work: Callable[[slice], T]
    ) -> list[tuple[slice, T]]:
        """What `work` makes of batches of the tiles; what it leaves on the host is there.

        A batch that does not fit into the GPU's memory (others use it too) is halved.
        """
        if self.device.type == "cpu":
            each = (slice(index, index + 1) for index in range(len(tiles)))
            return [(part, work(part)) for part in each]
        done: list[tuple[slice, T]] = []
        height, width = tiles.shape[1:3]
        with self._alone:  # a batch is as large as the free memory allows
            size = self.batch_size or _fitting_batch(self.device, height * width * bytes_per_pixel)
            start = 0
            while start < len(tiles):
                part = slice(start, min(start + size, len(tiles)))
                try:
                    done.append((part, work(part)))
                except torch.OutOfMemoryError as error:
                    size = (part.stop - start) // 2
                    if not size:
                        raise ConfigError(
                            f"a tile of {width} x {height} px does not fit into the free memory of "
                            f"{self.device}; use smaller tiles, or --device cpu"
                        ) from error
                    self.batch_size = self.batch_size and size
                    torch.cuda.empty_cache()
                else:
                    start = part.stop
            torch.cuda.current_stream(self.device).synchronize()
        return done

    @torch.inference_mode()
    def _forward(
        self, tiles: Tensor, statistics: Statistics | None, white: Triple | None
    ) -> tuple[Tensor, Tensor]:
        """Bytes (N, H, W, 3) and usable (N,) on the host; those of a GPU are on their way.

        Bytes cross the bus; conversion and rounding happen behind it.
        """
        x = tiles.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        y, usable = self.layer.normalize(x, statistics, white)
        return _to_host(to_levels(y)), _to_host(usable)


def _made_again(
    layer: StainLayer,
    device: str,
    batch_size: int | None,
    engine: Engine,
    name: str,
    digest: str | None,
) -> Normalizer:
    """A Normalizer that travelled, or a copy: memory of threads, locks and kernels are new."""
    return Normalizer(layer, device, batch_size, engine=engine, name=name, digest=digest)


def _to_host(values: Tensor) -> Tensor:
    if values.device.type == "cpu":
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def _fused(layer: StainLayer, device: torch.device, engine: Engine) -> FusedLayer | None:
    """The fused form if the engine asks for it, None for the torch form."""
    if engine not in get_args(Engine):
        raise ConfigError(f"engine {engine!r} is none of {', '.join(get_args(Engine))}")
    to_the_letter = isinstance(layer, ReferenceLayer)
    if engine == "torch" or (engine == "auto" and to_the_letter):
        return None
    needed = ["numba"] if device.type == "cpu" else ["numba", "triton"]
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


def _on_gpu(fused: FusedLayer | None, device: torch.device) -> GpuKernels | None:
    if fused is None or device.type == "cpu":
        return None
    from wsi_norm.normalizers.gpu import GpuKernels

    return GpuKernels(fused, device)


def _fitting_batch(device: torch.device, bytes_per_tile: float) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return int(max(1, min(256, free // 2 // bytes_per_tile)))
