"""Mean and standard deviation per colour space: of pixels, of an angle, of a group of images.

There is one way: weighted power sums, which add up exactly over pixels, tiles and shards, and one
function that turns them into mean and std. The layer, its kernels and a slide's sample share it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_norm.lstainnorm.counts import OD, density_of_counts
from wsi_norm.spaces import HUE, SPACES, Space

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


def mean_and_std(
    sums: Any, amount: Any, spaces: Sequence[Space], circular_hue: bool
) -> tuple[Any, Any]:
    """Mean and std of every channel from power sums.

    Parameters
    ----------
    sums
        (..., S, 3, 2), as `sums.power_sums` gives them, added up over what belongs together: an
        array of NumPy or a tensor of PyTorch, and so is what is returned.
    amount
        (...): sum of the weights.

    Returns
    -------
    mean, std: (..., S, 3); circular for hue, its mean in [0, 2 pi). Of tensors differentiable.
    """
    xp = namespace(sums)
    means = sums / xp.clip(amount, EPS, None)[..., None, None, None]
    first, second = means[..., 0], means[..., 1]
    pivots = [PIVOT.get(space, NO_PIVOT) for space in spaces]
    mean = first + xp.asarray(pivots, dtype=sums.dtype, device=sums.device)
    std = xp.sqrt(xp.clip(second - xp.square(first), TINY, None))
    if not (circular_hue and HUE[0] in spaces):
        return mean, std
    place = spaces.index(HUE[0]), HUE[1]
    is_hue = np.zeros((len(spaces), 3), np.bool_)
    is_hue[place] = True
    chosen = xp.asarray(is_hue, device=sums.device)
    hue_mean, hue_std = _angle(first[..., *place], second[..., *place], xp)
    return (
        xp.where(chosen, hue_mean[..., None, None], mean),
        xp.where(chosen, hue_std[..., None, None], std),
    )


def namespace(values: Any) -> ModuleType:
    """NumPy of its arrays, PyTorch of its tensors: what works on either is written once."""
    if isinstance(values, np.ndarray | np.generic):
        return np
    import torch

    return torch


class MomentPool:
    """Power sums of a stream of pixels, in float64, in several colour spaces at once.

    Parameters
    ----------
    spaces, circular_hue
        As in `mean_and_std`.
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
        self._sums = np.zeros((len(self.spaces), 3, 2))
        self._counts = np.zeros((3, 256), np.int64)
        self._weight = 0.0
        self._pixels = 0

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
            (S, 3, 2), as `sums.power_sums` gives them.
        counts
            (3, 256): how often each byte was seen in tissue; for `od`.
        weight, pixels
            Sum of the weights, and how many pixels they stand for.
        """
        self._sums += sums
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
        amount = np.array(self._weight)
        mean, std = mean_and_std(self._sums, amount, self.spaces, self.circular_hue)
        if OD in self.spaces:
            place = self.spaces.index(OD)
            assert self.white is not None
            mean[place], std[place] = density_of_counts(self._counts, self.white)
        return mean, std

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


def _angle(sine: Any, cosine: Any, xp: ModuleType) -> tuple[Any, Any]:
    """Circular mean in [0, 2 pi) and circular std of mean sine and cosine."""
    most = 1 - 4 * xp.finfo(sine.dtype).eps  # the slope of the root is infinite at 1
    resultant = xp.clip(
        xp.sqrt(xp.clip(xp.square(sine) + xp.square(cosine), TINY, None)), None, most
    )
    return xp.arctan2(sine, cosine + TINY) % math.tau, xp.sqrt(-2 * xp.log(resultant))
