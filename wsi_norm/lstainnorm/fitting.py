"""A template measured on tiles; see `Template.fit`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from wsi_norm.glass import white_of_tiles
from wsi_norm.lstainnorm.background import fill_of, tissue_weight
from wsi_norm.lstainnorm.counts import OD
from wsi_norm.lstainnorm.moments import MomentPool, Triple, triple
from wsi_norm.lstainnorm.sums import add_pixels
from wsi_norm.pixels import UInt8, as_batch
from wsi_norm.spaces import Space
from wsi_norm.tensors import to_float


def fit(
    tiles: UInt8 | Iterable[UInt8 | Sequence[UInt8]], within_tiles: bool
) -> tuple[Mapping[Space, Triple], Mapping[Space, Triple]]:
    """Mean and std per space, as `Template.fit` describes."""
    pool = MomentPool()
    own: list[MomentPool] = []
    for slide in _slides(tiles):
        white = white_of_tiles(slide)
        own.append(MomentPool(white=triple(white)))
        for tile in slide:
            pixels = to_float(tile[None])
            weight = tissue_weight(pixels, torch.from_numpy(white).float()[:, None, None])
            weight = weight.masked_fill(fill_of(pixels), 0)
            add_pixels(pool, pixels, weight)
            add_pixels(own[-1], pixels, weight)
    if not pool.usable:
        raise ValueError("cannot fit a template: the tiles hold (almost) no tissue")
    mean, std = pool.moments()
    typical_mean, typical_std = _typical(own)
    mean[OD] = typical_mean[OD]
    return mean, typical_std if within_tiles else {**std, OD: typical_std[OD]}


def _slides(tiles: UInt8 | Iterable[UInt8 | Sequence[UInt8]]) -> Iterator[Sequence[UInt8]]:
    """What is measured together: a tile, or a list of them."""
    for batch in [tiles] if isinstance(tiles, np.ndarray) else tiles:
        if isinstance(batch, np.ndarray):
            yield from ([tile] for tile in as_batch(batch))
        else:
            yield [tile for one in batch for tile in as_batch(one)]


def _typical(pools: Sequence[MomentPool]) -> tuple[dict[Space, Triple], dict[Space, Triple]]:
    """Mean of the pools' own means, root mean square of their std; weighted by their tissue."""
    pools = [pool for pool in pools if pool.usable]
    weights = np.array([pool.tissue_pixels for pool in pools], float)
    means, stds = np.array([pool.arrays() for pool in pools]).swapaxes(0, 1)
    mean = np.average(means, 0, weights)
    std = np.sqrt(np.average(np.square(stds), 0, weights))
    first, second = (
        {space: triple(row) for space, row in zip(pools[0].spaces, rows, strict=True)}
        for rows in (mean, std)
    )
    return first, second
