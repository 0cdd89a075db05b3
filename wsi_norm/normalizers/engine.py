"""The layer at work on uint8 tiles; the only home of a device."""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsi_norm.errors import ConfigError
from wsi_norm.lstainnorm.background import tissue_weight, white_of
from wsi_norm.lstainnorm.layer import LStainNorm
from wsi_norm.lstainnorm.template import MomentPool, Statistics, Triple, as_batch, to_float, triple
from wsi_norm.machine import resolve_device

if TYPE_CHECKING:
    from wsi_norm.normalizers.fused import FusedLayer

UInt8 = npt.NDArray[np.uint8]
Engine = Literal["auto", "kernel", "torch"]

BYTES_PER_PIXEL = 400
"""Peak memory of the torch form per pixel: about thirty float32 images of three channels."""


class Normalizer:
    """uint8 tiles in, normalised uint8 tiles out.

    Parameters
    ----------
    layer
        Any LStainNorm; a copy of nothing: the layer itself is moved to the device.
    device
        "auto" (the first CUDA device, else the CPU), "cpu", "cuda" or "cuda:i".
    engine
        "kernel": the fused form, on a CPU alone; it takes the layer's parameters once, here, and
        agrees with "torch" to a rounding of the byte. "auto" is the kernel on a CPU, and torch on a
        GPU, for the preset "reference" and, with a warning, where numba is not installed.
    batch_size
        Tiles per forward pass on a GPU; None fits it to the free memory. A CPU always works tile by
        tile: it is no slower, and no byte of the result can depend on the batch.

    Raises
    ------
    ConfigError
        The device does not exist here, or the engine does not run on it.
    """

    def __init__(
        self,
        layer: LStainNorm,
        device: str = "auto",
        batch_size: int | None = None,
        *,
        engine: Engine = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self.layer = layer.to(self.device).eval()
        self.batch_size = batch_size
        self._fused = _fused(self.layer, self.device, engine)
        self._alone = threading.Lock()

    @property
    def engine(self) -> Literal["kernel", "torch"]:
        """The form that is at work."""
        return "torch" if self._fused is None else "kernel"

    def warm_up(self) -> None:
        """Compile or load the kernels, or start the device: seconds that no tile need wait for."""
        tile = np.full((1, 16, 16, 3), 128, np.uint8)
        self.normalize(tile, self.measure_with_white(tile, (1.0, 1.0, 1.0)))
        self.normalize(tile)

    def measure(self, tiles: UInt8, tissue: npt.NDArray[np.bool_] | None = None) -> Statistics:
        """Statistics of the tissue in tiles of one slide, taken together.

        Parameters
        ----------
        tiles
            uint8 (N, H, W, 3).
        tissue
            bool (N, H, W): only these pixels count (of them, what is darker than glass).

        Raises
        ------
        ValueError
            There is (almost) no tissue to measure.
        """
        batch = as_batch(tiles)
        if not len(batch):
            raise ValueError("no statistics: no tiles, hence no tissue")
        return self.measure_with_white(batch, _white_of_all(to_float(batch)), tissue)

    def measure_with_white(
        self, tiles: UInt8, white: Triple, tissue: npt.NDArray[np.bool_] | None = None
    ) -> Statistics:
        """As `measure`, with the colour of glass known from elsewhere, RGB in [0, 1]."""
        batch = as_batch(tiles)
        if tissue is not None and tissue.shape != batch.shape[:3]:
            raise ValueError(f"tissue must be bool {batch.shape[:3]}, not {tissue.shape}")
        pool = MomentPool(circular_hue=self.layer.config.circular_hue)
        if tissue is None:
            tissue = np.ones(batch.shape[:3], np.bool_)
        for tile, counted in zip(batch, tissue, strict=True):
            if self._fused is not None:
                self._fused.add_to(pool, tile, counted, white)
                continue
            pixels = to_float(tile[None])
            weight = tissue_weight(pixels, torch.tensor(white)[:, None, None])
            pool.add(pixels, weight * torch.tensor(np.ascontiguousarray(counted)))
        if not pool.usable:
            raise ValueError("no statistics: the tiles hold (almost) no tissue")
        return Statistics(*pool.moments(), white, pool.tissue_pixels)

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
    ) -> tuple[UInt8, npt.NDArray[np.bool_]]:
        """As calling it; also bool (N,): False where a tile had no usable statistics of its own."""
        tiles = as_batch(tiles)
        if self._fused is not None:
            return self._fused.normalize(tiles, statistics, white)
        host = torch.tensor(np.ascontiguousarray(tiles))

        def passes() -> list[tuple[slice, Tensor, Tensor]]:
            parts = self._batches(tiles)
            return [(part, *self._forward(host[part], statistics, white)) for part in parts]

        if self.device.type == "cpu":
            done = passes()
        else:
            host = host.pin_memory()
            with self._alone:  # a batch is as large as the free memory allows
                done = passes()
                torch.cuda.current_stream(self.device).synchronize()
        out, usable = np.empty(tiles.shape, np.uint8), np.ones(len(tiles), np.bool_)
        for part, levels, known in done:
            out[part], usable[part] = levels.numpy(), known.numpy()
        return out, usable

    def _batches(self, tiles: UInt8) -> Iterator[slice]:
        if self.device.type == "cpu":
            size = 1
        else:
            size = self.batch_size or _fitting_batch(self.device, tiles.shape[1] * tiles.shape[2])
        return (slice(start, start + size) for start in range(0, len(tiles), size))

    @torch.inference_mode()
    def _forward(
        self, tiles: Tensor, statistics: Statistics | None, white: Triple | None
    ) -> tuple[Tensor, Tensor]:
        """Bytes (N, H, W, 3) and usable (N,) on the host; those of a GPU are on their way.

        Bytes cross the bus; conversion and rounding happen behind it.
        """
        x = tiles.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        y, usable = self.layer.normalize(x, statistics, white)
        levels = (y * 255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return _to_host(levels.contiguous()), _to_host(usable)


def _to_host(values: Tensor) -> Tensor:
    if values.device.type == "cpu":
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def _fused(layer: LStainNorm, device: torch.device, engine: Engine) -> FusedLayer | None:
    """The fused form if the engine asks for it, None for the torch form."""
    if engine not in get_args(Engine):
        raise ConfigError(f"engine {engine!r} is none of {', '.join(get_args(Engine))}")
    if engine == "torch" or (engine == "auto" and (device.type != "cpu" or layer.config.literal)):
        return None
    if device.type != "cpu":
        raise ConfigError(f"engine 'kernel' runs on a CPU, not on {device}; use engine 'torch'")
    if layer.config.literal:
        raise ConfigError("preset 'reference' has no kernel; use engine 'torch'")
    if importlib.util.find_spec("numba") is None:
        if engine == "kernel":
            raise ConfigError("engine 'kernel' needs numba: pip install numba")
        warnings.warn(
            "numba is not installed: the layer runs in PyTorch, many times slower "
            "(pip install numba)",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    from wsi_norm.normalizers.fused import FusedLayer

    return FusedLayer(layer)


def _fitting_batch(device: torch.device, pixels: int) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return int(max(1, min(256, free // 2 // (pixels * BYTES_PER_PIXEL))))


def _white_of_all(pixels: Tensor) -> Triple:
    """One white level for a batch (N, 3, H, W) of one slide."""
    return triple(white_of(pixels.transpose(0, 1).flatten(1)[None, :, None]).flatten().tolist())
