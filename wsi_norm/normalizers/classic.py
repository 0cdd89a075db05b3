"""The classic normalisers behind the same door, measured per slide: Macenko, Reinhard, none.

Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009,
1107-1110. Reinhard et al., "Color transfer between images", IEEE CG&A 21(5):34-41, 2001, here in
CIELAB as is usual for H&E: that is LStainNorm in one space with a target that nobody trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_norm.choices import Background, StatisticsMode
from wsi_norm.errors import ConfigError
from wsi_norm.glass import fill_mask, white_of_tiles
from wsi_norm.lstainnorm import LayerConfig, LayerState, Statistics, Template
from wsi_norm.lstainnorm.checkpoint import read_checkpoint
from wsi_norm.lstainnorm.config import MAX_GAIN
from wsi_norm.lstainnorm.moments import Triple, least_tissue, triple
from wsi_norm.normalizers import kernels
from wsi_norm.normalizers.base import Bools
from wsi_norm.normalizers.blank import holds_tissue, without_blank
from wsi_norm.normalizers.engine import Normalizer
from wsi_norm.normalizers.fused import Coefficients, TileKernels, mean_fusion, pool_of
from wsi_norm.normalizers.model import Model
from wsi_norm.pixels import UInt8, as_batch

Floats = npt.NDArray[np.float64]

REFERENCE_STAINS = ((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581))
REFERENCE_STRONGEST = (1.9705, 1.0308)
"""Densities (R, G, B) of haematoxylin and eosin and their 99th percentiles, as Macenko et al.'s
own implementation has them: the usual target where no image is given."""

LEAST_DENSITY = 0.15
"""Pixels paler than this (natural log) in some channel are too close to glass to show a stain."""
ANGLE_PERCENTILE = 1.0
"""The stains' directions are this far from the ends of the pixels' angles: robust extremes."""
STRONGEST_PERCENTILE = 99.0
LEAST_ANGLE_SINE = 0.05
"""Stains closer than 3 degrees cannot be told apart."""
MOST_PIXELS = 1 << 20
"""Of more pixels every n-th is taken: eigenvectors and percentiles need no more."""

_LOG2_BYTE = np.log2(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
_TABLES = np.stack([np.zeros(256, np.float32), _LOG2_BYTE])


def macenko(model: Model, device: str, batch_size: int | None) -> Macenko:
    """Macenko towards the model's target image, or the usual values: a `Maker`. On the CPU."""
    stains, strongest = np.array(REFERENCE_STAINS), np.array(REFERENCE_STRONGEST)
    if (target := model.target_pixels()) is not None:
        image = target[None]
        density = _densities(image, None, triple(white_of_tiles(image)))
        try:
            stains, strongest = stain_vectors(density, image[..., 0].size)
        except ValueError as error:
            raise ConfigError(f"{model.file}: cannot be a target: {error}") from error
    return Macenko(stains, strongest, model.statistics or "slide", model.background or "preserve")


def reinhard(model: Model, device: str, batch_size: int | None) -> Normalizer:
    """Mean and std in CIELAB towards the target image or the checkpoint's template: a `Maker`."""
    if (target := model.target_pixels()) is not None:
        try:
            template = Template.fit(target)
        except ValueError as error:
            raise ConfigError(f"{model.file}: cannot be a target: {error}") from error
    else:
        template = read_checkpoint(model.path or "paper", model.template).state.template
        if "lab" not in template.mean:
            raise ConfigError(f"{model.file}: its template has no CIELAB; give --target")
    config = LayerConfig.of(
        "single:lab",
        statistics=model.statistics or "slide",
        background=model.background or "preserve",
    )
    aim = {"mean": list(template.mean["lab"]), "std": list(template.std["lab"])}
    layer = LayerState.untrained(config, template)
    return Normalizer(layer, device, batch_size, name="reinhard", digest=_digest(aim))


def none(model: Model, device: str, batch_size: int | None) -> Unchanged:
    """Tiles as they are: a `Maker`."""
    return Unchanged()


class Macenko(TileKernels):
    """Stain vectors of a slide (or of each tile), brought to the target's. A `StainNormalizer`.

    Two vectors span the plane of a slide's densities; a pixel's amounts of the two stains are kept
    in proportion, the vectors and the strongest amounts become the target's. In the logarithm of
    RGB all this is one matrix, so the kernels do it in one pass.

    Parameters
    ----------
    stains, strongest
        The target: (2, 3) densities of haematoxylin and eosin; the amounts, (2,), that 1 % exceed.
    statistics, background
        As for the layer.
    """

    name = "macenko"
    target = None

    def __init__(
        self,
        stains: Floats,
        strongest: Floats,
        statistics: StatisticsMode = "slide",
        background: Background = "preserve",
    ) -> None:
        super().__init__((kernels.HED,), mean_fusion(np.ones(1)), _TABLES)
        self._stains, self._strongest = np.asarray(stains), np.asarray(strongest)
        self.statistics: StatisticsMode = statistics
        self.background = background
        self.digest = _digest(self._aim())

    def measure(
        self, tiles: UInt8, tissue: Bools | None = None, white: Triple | None = None
    ) -> Statistics:
        """See `StainNormalizer.measure`; the stain vectors stand under `own`."""
        batch = as_batch(tiles)
        level = white or triple(white_of_tiles(batch))
        if tissue is None and white is None:
            batch = batch[[holds_tissue(tile) for tile in batch]]
        white = level
        stains, strongest = stain_vectors(_densities(batch, tissue, white), batch[..., 0].size)
        pool = pool_of(batch, tissue, white)
        own = {"stains": stains.tolist(), "strongest": strongest.tolist()}
        return Statistics(*pool.moments(), white, pool.tissue_pixels, own)

    def doubts(self, statistics: Statistics) -> list[str]:
        """None."""
        return []

    def normalize(
        self, tiles: UInt8, statistics: Statistics | None = None, white: Triple | None = None
    ) -> tuple[UInt8, Bools]:
        """See `StainNormalizer.normalize`."""
        tiles = as_batch(tiles)
        if statistics is None and white is None:
            return without_blank(tiles, super().normalize)
        return super().normalize(tiles, statistics, white)

    def measure_tile(self, tile: UInt8, white: Triple) -> Statistics | None:
        """See `TileKernels`."""
        try:
            return self.measure(tile[None], None, white)
        except ValueError:
            return None

    def coefficients(self, statistics: Statistics, white: Triple) -> Coefficients:
        """See `TileKernels`: log2 RGB -> densities -> amounts -> the target's densities."""
        own = np.array(statistics.own["stains"]), np.array(statistics.own["strongest"])
        gain = np.minimum(self._strongest / np.maximum(own[1], 1e-6), MAX_GAIN)
        change = self._stains.T @ np.diag(gain) @ np.linalg.pinv(own[0].T)
        clear = np.log2(white)
        row = np.zeros((1, kernels.COEFFICIENTS))
        row[0, :9], row[0, 9:12] = change.ravel(), clear - change @ clear
        return row.astype(np.float32)

    def warm_up(self) -> None:
        """Compile or load the kernels."""
        rng = np.random.default_rng(0)
        tile = rng.integers(40, 200, (1, 16, 16, 3), dtype=np.uint8)
        self.normalize(tile)

    def facts(self) -> dict[str, Any]:
        """See `StainNormalizer.facts`."""
        return {
            "normalizer": self.name,
            "sha256": self.digest,
            "preset": None,
            "statistics": self.statistics,
            "background": self.background,
            "provenance": {"target": self._aim()},
        }

    def _aim(self) -> dict[str, Any]:
        return {"stains": self._stains.tolist(), "strongest": self._strongest.tolist()}


class Unchanged:
    """Leaves tiles as they are. A `StainNormalizer`."""

    name = "none"
    digest = None
    statistics = "none"
    target = None

    def measure(
        self, tiles: UInt8, tissue: Bools | None = None, white: Triple | None = None
    ) -> Statistics:
        """Nothing is measured: ValueError."""
        raise ValueError("normalizer 'none' measures nothing")

    def doubts(self, statistics: Statistics) -> list[str]:
        """None."""
        return []

    def normalize(
        self, tiles: UInt8, statistics: Statistics | None = None, white: Triple | None = None
    ) -> tuple[UInt8, Bools]:
        """The tiles."""
        return as_batch(tiles), np.ones(len(as_batch(tiles)), np.bool_)

    def warm_up(self) -> None:
        """Nothing to do."""

    def facts(self) -> dict[str, Any]:
        """See `StainNormalizer.facts`."""
        return {
            "normalizer": self.name,
            "sha256": None,
            "preset": None,
            "statistics": self.statistics,
            "background": "preserve",
            "provenance": {},
        }


def stain_vectors(density: Floats, pixels: int) -> tuple[Floats, Floats]:
    """Haematoxylin's and eosin's densities, unit vectors (2, 3), and their strong amounts (2,).

    Parameters
    ----------
    density
        (n, 3), natural log, of tissue.
    pixels
        How many were looked at.

    Raises
    ------
    ValueError
        There is (almost) no stained pixel, or only one stain.
    """
    stained = density[(density >= LEAST_DENSITY).all(axis=1)]
    if len(stained) < least_tissue(pixels):
        raise ValueError("no statistics: the tiles hold (almost) no tissue")
    plane = np.linalg.eigh(np.cov(stained.T))[1][:, :0:-1]  # the two widest directions
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    angles = np.arctan2(*(stained @ plane).T[::-1])
    ends = np.percentile(angles, [ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE])
    stains = np.array([plane @ (np.cos(end), np.sin(end)) for end in ends])
    stains = stains[np.argsort(-stains[:, 0])]  # haematoxylin absorbs more red
    if np.linalg.norm(np.cross(*stains)) < LEAST_ANGLE_SINE:
        raise ValueError("no statistics: two stains cannot be told apart in the tiles")
    tissue = density[(density >= LEAST_DENSITY).any(axis=1)]
    amounts = tissue @ np.linalg.pinv(stains)
    return stains, np.percentile(amounts, STRONGEST_PERCENTILE, axis=0)


def _densities(tiles: UInt8, tissue: Bools | None, white: Triple) -> Floats:
    """Densities (n, 3) relative to white, natural log, of at most MOST_PIXELS pixels."""
    counted = np.ones(tiles.shape[:3], np.bool_) if tissue is None else tissue.copy()
    for own, tile in zip(counted, tiles, strict=True):
        if (fill := fill_mask(tile)) is not None:
            own &= ~fill
    pixels = tiles[counted]
    pixels = pixels[:: max(1, -(-len(pixels) // MOST_PIXELS))]
    logs = np.log(np.maximum(np.arange(256), 1) / 255)[pixels]
    return np.asarray(np.log(white) - logs, np.float64)


def _digest(aim: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(aim, sort_keys=True).encode()).hexdigest()
