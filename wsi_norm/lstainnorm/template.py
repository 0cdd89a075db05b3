"""Means and standard deviations per colour space: a template (aimed at), statistics (measured)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsi_norm.colorspace import CONVERSIONS, HUE, SPACES, Space
from wsi_norm.lstainnorm.background import tissue_weight, white_of

Triple = tuple[float, float, float]
UInt8 = npt.NDArray[np.uint8]

MIN_TISSUE_SHARE = 0.01
"""Fewer tissue pixels than this share of what is measured are no basis for statistics."""


@dataclass(frozen=True)
class Template:
    """What the layer aims at: mean and std of every channel of every colour space.

    Units are the channel's own: RGB, S, V in [0, 1], L* in [0, 100], a*, b* about +-128, hue in
    radians (circular mean and circular standard deviation).
    """

    mean: Mapping[Space, Triple]
    std: Mapping[Space, Triple]

    def __post_init__(self) -> None:
        for space, values in [*self.mean.items(), *self.std.items()]:
            if not np.isfinite(values).all():
                raise ValueError(f"the template of {space} holds NaN or infinity")

    @classmethod
    def fit(cls, tiles: UInt8 | Iterable[UInt8], *, within_tiles: bool = False) -> Template:
        """Mean and std over the tissue pixels of tiles, all pixels pooled.

        Parameters
        ----------
        tiles
            uint8 (N, H, W, 3), or an iterable of such arrays (or of single (H, W, 3) tiles), which
            may differ in size and are read once.
        within_tiles
            Let std be that within tiles: without the differences between them, which would make a
            target of tiles from many slides more colourful than any slide.

        Raises
        ------
        ValueError
            The tiles hold (almost) no tissue, or an array has another dtype or shape.
        """
        pool = MomentPool()
        own: list[MomentPool] = []
        for batch in [tiles] if isinstance(tiles, np.ndarray) else tiles:
            for tile in as_batch(batch):
                pixels = to_float(tile[None])
                weight = tissue_weight(pixels, white_of(pixels))
                pool.add(pixels, weight)
                if within_tiles:
                    own.append(MomentPool())
                    own[-1].add(pixels, weight)
        if not pool.usable:
            raise ValueError("cannot fit a template: the tiles hold (almost) no tissue")
        mean, std = pool.moments()
        return cls(mean, _within(own) if within_tiles else std)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: {"mean": {space: [3 numbers]}, "std": ...}."""
        return {"mean": _lists(self.mean), "std": _lists(self.std)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError if it is not of that form."""
        return cls(_triples(data, "mean"), _triples(data, "std"))


@dataclass(frozen=True)
class Statistics:
    """What a slide or a tile has: mean and std per colour space, and the colour of its glass.

    Attributes
    ----------
    mean, std
        As in `Template`, over tissue pixels.
    white
        RGB of clear glass in [0, 1]; tissue is what is darker than that.
    tissue_pixels
        How many (weighted) pixels they rest on.
    """

    mean: Mapping[Space, Triple]
    std: Mapping[Space, Triple]
    white: Triple
    tissue_pixels: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "mean": _lists(self.mean),
            "std": _lists(self.std),
            "white": list(self.white),
            "tissue_pixels": self.tissue_pixels,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError if it is not of that form."""
        try:
            white, pixels = triple(data["white"]), int(data["tissue_pixels"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not statistics: {error!r}") from error
        return cls(_triples(data, "mean"), _triples(data, "std"), white, pixels)


class MomentPool:
    """Weighted moments of a stream of pixels, in float64, in every colour space at once."""

    def __init__(self, spaces: Iterable[Space] = SPACES, circular_hue: bool = True) -> None:
        self.circular_hue = circular_hue
        self._angle = HUE if circular_hue else None
        self._sums = {space: torch.zeros(3, 2, dtype=torch.float64) for space in spaces}
        self._weight = 0.0
        self._pixels = 0

    def add(self, pixels: Tensor, weight: Tensor) -> None:
        """Take in pixels (B, 3, H, W) in [0, 1] with weights (B, 1, H, W) in [0, 1]."""
        flat = weight.double()
        for space, sums in self._sums.items():
            x = CONVERSIONS[space].from_rgb(pixels).double()
            for channel in range(3):
                sums[channel] += _channel_sums(
                    x[:, channel], flat[:, 0], (space, channel) == self._angle
                )
        self._weight += float(flat.sum())
        self._pixels += flat.numel()

    def add_sums(
        self, sums: Mapping[Space, npt.NDArray[np.float64]], weight: float, pixels: int
    ) -> None:
        """Take in what was summed elsewhere.

        Parameters
        ----------
        sums
            (3, 2) per space: of every channel x and x^2, of a circular hue sine and cosine.
        weight, pixels
            Sum of the weights, and how many pixels they stand for.
        """
        for space, own in self._sums.items():
            own += torch.tensor(sums[space])
        self._weight += weight
        self._pixels += pixels

    @property
    def tissue_pixels(self) -> int:
        """Sum of the weights, rounded."""
        return round(self._weight)

    @property
    def usable(self) -> bool:
        """Whether there is tissue enough to rely on."""
        return self._weight >= max(1.0, MIN_TISSUE_SHARE * self._pixels)

    def moments(self) -> tuple[dict[Space, Triple], dict[Space, Triple]]:
        """(mean, std) per space; circular for hue."""
        mean: dict[Space, Triple] = {}
        std: dict[Space, Triple] = {}
        for space, sums in self._sums.items():
            first, second = (sums / self._weight).T.tolist()
            pairs = [
                _finish(first[channel], second[channel], circular=(space, channel) == self._angle)
                for channel in range(3)
            ]
            mean[space] = triple([pair[0] for pair in pairs])
            std[space] = triple([pair[1] for pair in pairs])
        return mean, std


def as_batch(tiles: UInt8) -> UInt8:
    """uint8 (N, H, W, 3) of a batch or of one (H, W, 3) tile; ValueError for anything else."""
    batch = tiles[None] if tiles.ndim == 3 else tiles
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3 or 0 in batch.shape[1:]:
        raise ValueError(f"tiles must be uint8 (N, H, W, 3), not {tiles.dtype} {tiles.shape}")
    return batch


def to_float(tiles: UInt8) -> Tensor:
    """float32 (N, 3, H, W) in [0, 1] of uint8 (N, H, W, 3)."""
    return torch.tensor(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2).float() / 255


def triple(values: Iterable[float]) -> Triple:
    """Three floats; ValueError if there are not three."""
    first, second, third = (float(value) for value in values)
    return first, second, third


def _channel_sums(x: Tensor, weight: Tensor, circular: bool) -> Tensor:
    """Weighted sums of (x, x^2), or of (sin, cos) for an angle."""
    terms = (x.sin(), x.cos()) if circular else (x, x.square())
    return torch.stack([(term * weight).sum() for term in terms])


def _finish(first: float, second: float, circular: bool) -> tuple[float, float]:
    if circular:
        resultant = min(math.hypot(first, second), 1.0)
        std = math.sqrt(-2 * math.log(max(resultant, 1e-12)))
        return math.atan2(first, second) % (2 * math.pi), std
    return first, math.sqrt(max(second - first * first, 0.0))


def _within(pools: Sequence[MomentPool]) -> dict[Space, Triple]:
    """Root mean square of the pools' own std, weighted by their tissue."""
    pools = [pool for pool in pools if pool.usable]
    weights = np.array([pool.tissue_pixels for pool in pools], float)
    stds = [pool.moments()[1] for pool in pools]
    return {
        space: triple(np.sqrt(np.average([np.square(std[space]) for std in stds], 0, weights)))
        for space in stds[0]
    }


def _lists(moments: Mapping[Space, Triple]) -> dict[str, list[float]]:
    return {space: list(values) for space, values in moments.items()}


def _triples(data: Mapping[str, Any], key: str) -> dict[Space, Triple]:
    try:
        moments = {space: triple(values) for space, values in data[key].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no three numbers per colour space under {key!r}: {error!r}") from error
    unknown = set(moments) - set(SPACES)
    if unknown:
        raise ValueError(f"unknown colour space {min(unknown)!r} (known: {', '.join(SPACES)})")
    return moments
