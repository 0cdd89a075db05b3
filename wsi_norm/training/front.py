"""What stands in front of the network: our layer, a classic normaliser, or nothing.

Every front is a module: RGB float (B, 3, H, W) in [0, 1] and the tiles' groups, long (B,), to
normalised RGB of the same form.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config.train import NormalizerConfig
from wsi_norm.errors import ConfigError
from wsi_norm.lstainnorm import LStainNorm, Template
from wsi_norm.lstainnorm.learned import moves, space_weights
from wsi_norm.slide import read_image

UInt8 = npt.NDArray[np.uint8]

TEMPLATE_GROUPS = 64
TEMPLATE_TILES = 32
"""The initial template is that of at most so many groups, and so many tiles of each."""


class NoFront(nn.Module):
    """No normalisation."""

    def forward(self, image: Tensor, group: Tensor) -> Tensor:
        """The image."""
        return image


class LayerFront(nn.Module):
    """LStainNorm; with statistics "slide", tiles of a group are measured together."""

    def __init__(self, layer: LStainNorm) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, image: Tensor, group: Tensor) -> Tensor:
        """Normalised tiles; a group without tissue passes through unchanged."""
        together = group if self.layer.config.statistics == "slide" else None
        return self.layer.normalize(image, group=together)[0]

    def learned(self) -> dict[str, float]:
        """What is learned, by name: "lab.L*.mean", "lab.L*.std" ... and "weight.lab" ..."""
        values = {f"weight.{space}": w for space, w in space_weights(self.layer).items()}
        for move in moves(self.layer):
            values[f"{move.space}.{move.channel}.mean"] = move.target_mean
            values[f"{move.space}.{move.channel}.std"] = move.target_std
        return values


class ClassicFront(nn.Module):
    """torchstain's Reinhard or Macenko, tile by tile, towards one target tile.

    A tile on which it raises or returns NaN passes through unchanged and is counted in `refused`.
    """

    def __init__(self, kind: str, target: UInt8) -> None:
        super().__init__()
        from torchstain.torch import normalizers
        from torchstain.torch.utils.rgb2lab import rgb2lab

        makers = {
            "reinhard": normalizers.TorchReinhardNormalizer,
            "macenko": normalizers.TorchMacenkoNormalizer,
        }
        self.kind, self.target, self._to_lab = kind, target, rgb2lab
        self.refused = 0
        self._normalizer = makers[kind]()
        try:
            self._normalizer.fit(torch.from_numpy(target.transpose(2, 0, 1).copy()))
        except (RuntimeError, IndexError, ValueError) as error:
            raise ConfigError(
                f"normalizer {kind}: cannot fit the target tile ({error}); choose another target"
            ) from error

    @torch.no_grad()
    def forward(self, image: Tensor, group: Tensor) -> Tensor:
        """Each tile normalised by itself."""
        levels = (image * 255).round().to(torch.uint8).cpu()
        return torch.stack([self._one(tile) for tile in levels]).to(image)

    def _one(self, tile: Tensor) -> Tensor:
        if self.kind == "reinhard" and self._flat(tile):
            self.refused += 1
            return tile / 255
        try:
            result = self._normalizer.normalize(tile)
        except (RuntimeError, IndexError, ValueError):  # what it raises where tissue is missing
            self.refused += 1
            return tile / 255
        pixels: Tensor = (result[0] if isinstance(result, tuple) else result).permute(2, 0, 1)
        if not bool(pixels.float().isfinite().all()):
            self.refused += 1
            return tile / 255
        return pixels.float().clamp(0, 255) / 255

    def _flat(self, tile: Tensor) -> bool:
        """Whether Reinhard divides by zero; its NaN would become some integer unseen."""
        spread: Tensor = self._to_lab(tile.float() / 255).flatten(1).std(dim=1)
        return not bool((spread > 0).all())


def build_front(config: NormalizerConfig, tiles: LabelledTiles, seed: int) -> nn.Module:
    """The front that the settings ask for, its target taken from the training tiles.

    Raises
    ------
    ConfigError
        An unknown preset or space; a target that is no image, or holds no tissue.
    """
    if config.kind == "none":
        return NoFront()
    if config.preset == "reference" and config.statistics == "slide":
        raise ConfigError("normalizer: preset 'reference' measures each tile; statistics: tile")
    target = target_tile(config, tiles, seed)
    if config.kind != "lstainnorm":
        assert target is not None
        return ClassicFront(config.kind, target)
    try:
        template = (
            cohort_template(tiles, config.statistics, seed)
            if target is None
            else Template.fit(target)
        )
        spaces: Any = config.spaces
        layer = LStainNorm(
            config.preset,
            spaces,
            template,
            statistics=config.statistics,
            background=config.background,
        )
    except ValueError as error:
        raise ConfigError(f"normalizer: {error}") from error
    return LayerFront(layer.requires_grad_(config.learn))


def target_tile(config: NormalizerConfig, tiles: LabelledTiles, seed: int) -> UInt8 | None:
    """uint8 (H, W, 3) to aim at; None for the layer's default, the whole cohort."""
    if isinstance(config.target, int):
        if not 0 <= config.target < len(tiles):
            raise ConfigError(
                f"normalizer.target {config.target}: there are {len(tiles)} training tiles"
            )
        return _tile(tiles, config.target)
    if config.target is not None:
        return read_image(config.target)
    if config.kind == "lstainnorm":
        return None
    return _tile(tiles, int(np.random.default_rng([seed, 1]).integers(len(tiles))))


def cohort_template(tiles: LabelledTiles, statistics: str, seed: int) -> Template:
    """Mean over the cohort's tissue, std within its tiles or (statistics "slide") its groups."""
    return Template.fit(_cohort(tiles, statistics, seed), within_tiles=True)


def _cohort(tiles: LabelledTiles, statistics: str, seed: int) -> Iterable[UInt8]:
    random = np.random.default_rng([seed, 2])
    groups: Sequence[int] = random.permutation(len(tiles.groups))[:TEMPLATE_GROUPS].tolist()
    for group in groups:
        own = random.permutation(np.flatnonzero(tiles.group_of == group))[:TEMPLATE_TILES]
        images = [_tile(tiles, int(position)) for position in own]
        if statistics == "slide":
            yield np.concatenate(images)
        else:
            yield from images


def _tile(tiles: LabelledTiles, position: int) -> UInt8:
    """uint8 (H, W, 3); random tiles of an image all lie at one place, which the image decides."""
    return np.ascontiguousarray(tiles[position, 0][0].numpy().transpose(1, 2, 0))
