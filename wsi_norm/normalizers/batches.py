"""The layer on tensors, in batches: in PyTorch, or by the kernels of a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from wsi_norm.errors import ConfigError
from wsi_norm.glass import fill_mask
from wsi_norm.lstainnorm import StainLayer, Statistics
from wsi_norm.lstainnorm.background import tissue_weight
from wsi_norm.lstainnorm.moments import MomentPool, Triple
from wsi_norm.lstainnorm.sums import add_pixels
from wsi_norm.normalizers.base import Bools
from wsi_norm.pixels import UInt8
from wsi_norm.spaces import SPACES
from wsi_norm.tensors import to_float, to_levels

if TYPE_CHECKING:
    from wsi_norm.normalizers.fused import FusedLayer
    from wsi_norm.normalizers.gpu import GpuKernels

T = TypeVar("T")

BYTES_PER_PIXEL = 400
"""Peak memory of the torch form per pixel: about thirty float32 images of three channels."""


class OnTensors:
    """The layer at work on a device; threads may share it.

    Parameters
    ----------
    layer
        On the device.
    device, batch_size
        As of a `Normalizer`.
    fused
        Its coefficients, for the kernels of a GPU; None: PyTorch.
    """

    def __init__(
        self, layer: StainLayer, device: str, batch_size: int | None, fused: FusedLayer | None
    ) -> None:
        self._layer, self._device = layer, torch.device(device)
        self.batch_size = batch_size
        self._kernels: GpuKernels | None = None
        if fused is not None:
            from wsi_norm.normalizers.gpu import GpuKernels

            self._kernels = GpuKernels(fused, self._device)
        self._alone = threading.Lock()

    def normalize(
        self, tiles: UInt8, statistics: Statistics | None, white: Triple | None
    ) -> tuple[UInt8, Bools]:
        """As `StainNormalizer.normalize`."""
        if self._kernels is not None:
            return self._by_kernels(self._kernels, tiles, statistics, white)
        host = self._host(tiles)
        out, usable = np.empty(tiles.shape, np.uint8), np.ones(len(tiles), np.bool_)
        for part, done in self._batches(
            tiles, BYTES_PER_PIXEL, lambda part: self._forward(host[part], statistics, white)
        ):
            out[part], usable[part] = (values.numpy() for values in done)
        return out, usable

    @torch.inference_mode()
    def _by_kernels(
        self,
        kernels: GpuKernels,
        tiles: UInt8,
        statistics: Statistics | None,
        white: Triple | None,
    ) -> tuple[UInt8, Bools]:
        host, out = self._host(tiles), np.empty(tiles.shape, np.uint8)
        parameters, usable = kernels.parameters(host.numpy(), statistics, white)

        def work(part: slice) -> Tensor:
            own = parameters if len(parameters) == 1 else parameters[part]
            there = (x.to(self._device, non_blocking=True) for x in (host[part], own))
            return _to_host(kernels.transform(*there))

        for part, levels in self._batches(tiles, kernels.bytes_per_pixel, work):
            out[part] = levels.numpy()
        kernels.keep(host.numpy(), out, usable)
        return out, usable

    def _host(self, tiles: UInt8) -> Tensor:
        """A copy from where a GPU can fetch it."""
        host = torch.empty(tiles.shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        host.numpy()[...] = tiles
        return host

    def _batches(
        self, tiles: UInt8, bytes_per_pixel: float, work: Callable[[slice], T]
    ) -> list[tuple[slice, T]]:
        """What `work` makes of batches of the tiles; what it leaves on the host is there.

        A batch that does not fit into the GPU's memory (others use it too) is halved.
        """
        if self._device.type == "cpu":
            each = (slice(index, index + 1) for index in range(len(tiles)))
            return [(part, work(part)) for part in each]
        done: list[tuple[slice, T]] = []
        height, width = tiles.shape[1:3]
        with self._alone:  # a batch is as large as the free memory allows
            size = self.batch_size or _fitting_batch(self._device, height * width * bytes_per_pixel)
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
                            f"{self._device}; use smaller tiles, or --device cpu"
                        ) from error
                    self.batch_size = self.batch_size and size
                    torch.cuda.empty_cache()
                else:
                    start = part.stop
            torch.cuda.current_stream(self._device).synchronize()
        return done

    @torch.inference_mode()
    def _forward(
        self, tiles: Tensor, statistics: Statistics | None, white: Triple | None
    ) -> tuple[Tensor, Tensor]:
        """Bytes (N, H, W, 3) and usable (N,) on the host; those of a GPU are on their way.

        Bytes cross the bus; conversion and rounding happen behind it.
        """
        x = tiles.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        y, usable = self._layer.normalize(x, statistics, white)
        return _to_host(to_levels(y)), _to_host(usable)


def pool_of_tensors(
    tiles: UInt8, tissue: Bools | None, white: Triple, circular_hue: bool
) -> MomentPool:
    """Moments of the tissue of tiles (N, H, W, 3), in every space."""
    pool = MomentPool(SPACES, circular_hue, white)
    for index, tile in enumerate(tiles):
        pixels = to_float(tile[None])
        weight = tissue_weight(pixels, torch.tensor(white)[:, None, None])
        if tissue is not None:
            weight = weight * torch.tensor(np.ascontiguousarray(tissue[index]))
        if (fill := fill_mask(tile)) is not None:
            weight = weight * torch.tensor(~fill)
        add_pixels(pool, pixels, weight)
    return pool


def _to_host(values: Tensor) -> Tensor:
    if values.device.type == "cpu":
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def _fitting_batch(device: torch.device, bytes_per_tile: float) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return int(max(1, min(256, free // 2 // bytes_per_tile)))
