"""Mean and standard deviation per colour space: of pixels, of an angle, of a group of images.

There is one way: weighted power sums, which add up exactly over pixels, tiles and shards, and one
function that turns them into mean and std. The layer, its kernels and a slide's sample share it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsi_norm.colorspace import CONVERSIONS, HUE, SPACES, Space
from wsi_norm.lstainnorm.density import OD, counts_of, density_of_counts
from wsi_norm.pixels import to_bytes

Triple = tuple[float, float, float]


def triple(values: Iterable[float]) -> Triple:
    """Three floats; ValueError if there are not three."""
    first, second, third = (float(value) for value in values)
    return first, second, third


PIVOT: Mapping[Space, Triple] = {
    "rgb": triple(np.array([0.6, 0.5, 0.6], np.float32)),
    "lab": (60.0, 20.0, -10.0),
    "hsv": triple(np.array([0.0, 0.3, 0.7], np.float32)),
}
"""Near the mean of H&E, exact in float32: float32 sums of squares about it keep their digits."""

NO_PIVOT = (0.0, 0.0, 0.0)
"""Of the other spaces."""

MIN_TISSUE_SHARE = 0.01
"""Fewer tissue pixels than this share of what is measured are no basis for statistics."""

TINY = 1e-12
"""Least value under a root, whose slope at 0 is infinite."""

EPS = 1e-7


def power_sums(
    inside: Sequence[Tensor], weight: Tensor, spaces: Sequence[Space], circular_hue: bool
) -> Tensor:
    """Weighted sums over each image: of every channel's distance from its pivot, and its square.

    Parameters
    ----------
    inside
        (B, 3, H, W) of every space.
    weight
        (B, 1, H, W).
    circular_hue
        Hue's two sums are those of sine and cosine.

    Returns
    -------
    (B, S, 3, 2); differentiable.
    """
    sums = []
    for space, channels in zip(spaces, inside, strict=True):
        x = channels - channels.new_tensor(PIVOT.get(space, NO_PIVOT))[:, None, None]
        first, second = x, x.square()
        if circular_hue and space == HUE[0]:
            angle = channels[:, HUE[1]]
            first = _with_channel(first, HUE[1], angle.sin())
            second = _with_channel(second, HUE[1], angle.cos())
        sums.append(torch.stack([(weight * p).sum(dim=(-2, -1)) for p in (first, second)], dim=-1))
    return torch.stack(sums, dim=1)


def mean_and_std(
    sums: Tensor, amount: Tensor, spaces: Sequence[Space], circular_hue: bool
) -> tuple[Tensor, Tensor]:
    """Mean and std of every channel from power sums.

    Parameters
    ----------
    sums
        (..., S, 3, 2), as `power_sums` gives them, added up over what belongs together.
    amount
        (...): sum of the weights.

    Returns
    -------
    mean, std: (..., S, 3); circular for hue, its mean in [0, 2 pi). Differentiable.
    """
    first, second = (sums / amount[..., None, None, None].clamp_min(EPS)).unbind(-1)
    pivots = [PIVOT.get(space, NO_PIVOT) for space in spaces]
    mean = first + sums.new_tensor(pivots)
    std = (second - first.square()).clamp_min(TINY).sqrt()
    if not (circular_hue and HUE[0] in spaces):
        return mean, std
    place = spaces.index(HUE[0]), HUE[1]
    is_hue = torch.zeros(len(spaces), 3, dtype=torch.bool, device=sums.device)
    is_hue[place] = True
    hue_mean, hue_std = _angle(first[..., *place], second[..., *place])
    return (
        torch.where(is_hue, hue_mean[..., None, None], mean),
        torch.where(is_hue, hue_std[..., None, None], std),
    )


class MomentPool:
    """Power sums of a stream of pixels, in float64, in several colour spaces at once.

    Parameters
    ----------
    spaces, circular_hue
        As in `power_sums`.
    white
        RGB of clear glass in [0, 1], which density is relative to; None leaves out the space `od`,
        whose median and spread come from how often each byte was seen.
    """

    def __init__(
        self,
        spaces: Iterable[Space] = SPACES,
        circular_hue: bool = True,
        white: Triple | None = None,
    ) -> None:
        self.spaces = tuple(space for space in spaces if space != OD or white is not None)
        self.circular_hue = circular_hue
        self.white = white
        self._sums = torch.zeros(len(self.spaces), 3, 2, dtype=torch.float64)
        self._counts = np.zeros((3, 256), np.int64)
        self._weight = 0.0
        self._pixels = 0

    def add(self, pixels: Tensor, weight: Tensor) -> None:
        """Take in pixels (B, 3, H, W) in [0, 1] with weights (B, 1, H, W) in [0, 1]."""
        inside = [CONVERSIONS[space].from_rgb(pixels).double() for space in self.spaces]
        sums = power_sums(inside, weight.double(), self.spaces, self.circular_hue)
        counts = np.zeros_like(self._counts)
        if OD in self.spaces:
            seen = to_bytes(pixels)[(weight > 0)[:, 0].cpu().numpy()]
            counts = counts_of(seen, self._white())
        total = float(weight.double().sum())
        self.add_sums(sums.sum(dim=0).cpu().numpy(), counts, total, weight.numel())

    def add_sums(
        self,
        sums: npt.NDArray[np.float64],
        counts: npt.NDArray[np.int64],
        weight: float,
        pixels: int,
    ) -> None:
        """Take in what was summed elsewhere.

        Parameters
        ----------
        sums
            (S, 3, 2), as `power_sums` gives them.
        counts
            (3, 256): how often each byte was seen in tissue; for `od`.
        weight, pixels
            Sum of the weights, and how many pixels they stand for.
        """
        self._sums += torch.from_numpy(sums)
        self._counts += counts
        self._weight += weight
        self._pixels += pixels

    @property
    def tissue_pixels(self) -> int:
        """Sum of the weights, rounded."""
        return round(self._weight)

    @property
    def usable(self) -> bool:
        """Whether there is tissue enough to rely on."""
        return self._weight >= least_tissue(self._pixels)

    def arrays(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(mean, std), (S, 3) each."""
        amount = torch.tensor(self._weight, dtype=torch.float64)
        moments = mean_and_std(self._sums, amount, self.spaces, self.circular_hue)
        mean, std = (moment.numpy() for moment in moments)
        if OD in self.spaces:
            place = self.spaces.index(OD)
            mean[place], std[place] = density_of_counts(self._counts, self._white())
        return mean, std

    def _white(self) -> Triple:
        assert self.white is not None
        return self.white

    def moments(self) -> tuple[dict[Space, Triple], dict[Space, Triple]]:
        """(mean, std) per space."""
        mean, std = (
            {space: triple(row) for space, row in zip(self.spaces, rows.tolist(), strict=True)}
            for rows in self.arrays()
        )
        return mean, std


def least_tissue(pixels: int) -> float:
    """The sum of weights below which so many pixels are no basis for statistics."""
    return max(1.0, MIN_TISSUE_SHARE * pixels)


def numbered(group: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of group (B,), sorted, and the place of each row's value among them."""
    values, place = torch.unique(group, return_inverse=True)
    return values, place


def shared(x: Tensor, group: Tensor, how: Literal["sum", "mean"]) -> Tensor:
    """x (B, ...) with every row replaced by the sum or mean over its group's rows."""
    _, number = numbered(group.to(x.device))
    index = number.view(-1, *[1] * (x.ndim - 1)).expand_as(x)
    pooled = x.new_zeros(int(number.max()) + 1, *x.shape[1:])
    return pooled.scatter_reduce(0, index, x, how, include_self=False).gather(0, index)


def _with_channel(x: Tensor, channel: int, values: Tensor) -> Tensor:
    """x (B, 3, H, W) with one channel replaced by (B, H, W), out of place."""
    planes = list(x.unbind(1))
    planes[channel] = values
    return torch.stack(planes, dim=1)


def _angle(sine: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
    """Circular mean in [0, 2 pi) and circular std of mean sine and cosine."""
    most = 1 - 4 * torch.finfo(sine.dtype).eps  # the slope of the root is infinite at 1
    resultant = (sine.square() + cosine.square()).clamp_min(TINY).sqrt().clamp_max(most)
    return torch.atan2(sine, cosine + TINY) % math.tau, (-2 * resultant.log()).sqrt()
