"""The fused form on a GPU: bytes there in, bytes there out.

Coefficients are those of a CPU's kernels (`fused.py`). Attention itself works on tokens, a 64th of
the pixels, and is the layer's own (`linear_attention`). What decides about a tile on the host is
done there, as on a CPU: its white, its own statistics, and what is fill.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsi_norm.lstainnorm import Statistics
from wsi_norm.lstainnorm.attention import linear_attention
from wsi_norm.lstainnorm.config import TOKEN_PX
from wsi_norm.lstainnorm.moments import Triple
from wsi_norm.normalizers import gpu_kernels, kernels
from wsi_norm.normalizers.base import Bools
from wsi_norm.normalizers.fused import TileKernels, keep_fill, own_statistics, per_white
from wsi_norm.pixels import UInt8

BLOCK, TOKENS = 1024, 16


class GpuKernels:
    """A normaliser's kernels on a GPU; threads may share it.

    Parameters
    ----------
    fused
        Its form on a CPU: whatever follows from parameters and statistics is derived there.
    device
        A CUDA device; the CPU under Triton's interpreter (TRITON_INTERPRET=1).
    block, tokens
        How much a program works on, powers of 2: pixels, and tokens of a row.
    """

    def __init__(
        self, fused: TileKernels, device: torch.device, block: int = BLOCK, tokens: int = TOKENS
    ) -> None:
        self._fused, self._device, self._block, self._tokens = fused, device, block, tokens
        kinds, self._how, weights, scores, delta, points = fused.form()
        self._spaces, self._nodes = len(kinds), len(points)
        self._kinds = sum(kind << 3 * place for place, kind in enumerate(kinds))
        self._weights, self._scores, self._delta, self._linear = (
            torch.tensor(array, device=device)
            for array in (weights, scores, delta, fused.tables[0])
        )

    @property
    def bytes_per_pixel(self) -> float:
        """Peak memory of a batch, about: bytes in and out, and tokens in float64."""
        of_token = 0 if self._how == kernels.MEAN else self._spaces * (150 + 12 * self._nodes)
        return 8 + of_token / TOKEN_PX**2

    def parameters(
        self, tiles: UInt8, statistics: Statistics | None, white: Triple | None
    ) -> tuple[Tensor, Bools]:
        """What the kernels need to know of tiles (N, H, W, 3), and whether each is usable.

        Returns
        -------
        float32 (1 or N, P) on the host, and bool (N,).
        """
        usable = np.ones(len(tiles), np.bool_)
        if statistics is not None:
            return torch.tensor(self._row(statistics, white or statistics.white)[None]), usable
        rows = np.zeros((len(tiles), 6 + self._spaces * kernels.COEFFICIENTS), np.float32)
        for index, tile in enumerate(tiles):
            own = own_statistics(self._fused, tile, white)
            if own is None:
                usable[index] = False
            else:
                rows[index] = self._row(own, own.white)
        return torch.tensor(rows), usable

    def _row(self, statistics: Statistics, white: Triple) -> npt.NDArray[np.float32]:
        coefficients = self._fused.coefficients(statistics, white)
        return np.concatenate(
            [per_white(white), self._fused.shadow(statistics), coefficients.ravel()]
        )

    def transform(self, tiles: Tensor, parameters: Tensor) -> Tensor:
        """Normalise tiles, uint8 (N, H, W, 3), contiguous and on the device, to as many bytes."""
        count, height, width, _ = tiles.shape
        out = torch.empty_like(tiles)
        if not tiles.numel():
            return out
        stride = 0 if len(parameters) == 1 else parameters.stride(0)
        common: dict[str, Any] = {
            "kinds": self._kinds,
            "spaces": self._spaces,
            "enable_fp_fusion": True,  # what is unset differs between versions of Triton
        }
        least_weight = float(self._fused.least_weight)
        blocks = count, -(-height * width // self._block)
        with _on(self._device):
            if self._how == kernels.MEAN:
                gpu_kernels.average[blocks](
                    tiles,
                    out,
                    parameters,
                    stride,
                    self._weights,
                    self._linear,
                    least_weight,
                    height * width,
                    block=self._block,
                    **common,
                )
                return out
            down, across = -(-height // TOKEN_PX), -(-width // TOKEN_PX)
            tokens = torch.empty(count, self._spaces, 5, down, across, device=self._device)
            gpu_kernels.pool[count, down * -(-across // self._tokens)](
                tiles,
                tokens,
                parameters,
                stride,
                self._scores,
                self._linear,
                height,
                width,
                down,
                across,
                count=self._tokens,
                **common,
            )
            gpu_kernels.attend[blocks](
                tiles,
                out,
                parameters,
                stride,
                self._weights,
                self._linear,
                self._maps(tokens),
                least_weight,
                height,
                width,
                down,
                across,
                paper=self._how == kernels.PAPER,
                block=self._block,
                **common,
            )
        return out

    def _maps(self, tokens: Tensor) -> Tensor:
        """Attention times delta: (N, spaces, 5, down, across) to (N, spaces, 3, down, across)."""
        count, spaces, _, down, across = tokens.shape
        sets = tokens.view(count * spaces, 5, down * across)
        attended = linear_attention(sets[:, 0], sets[:, 1], sets[:, 2:], self._nodes)
        maps = attended.clamp_min(0).view(count, spaces, 3, down, across)
        return (maps * self._delta[..., None, None]).contiguous()

    def keep(self, tiles: UInt8, out: UInt8, usable: Bools) -> None:
        """Put back what no kernel may change: tiles that are not usable, and fill."""
        out[~usable] = tiles[~usable]
        for tile, done in zip(tiles, out, strict=True):
            keep_fill(tile, done)


def _on(device: torch.device) -> Any:
    """Triton launches on the current device, which need not be that of its arguments."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
