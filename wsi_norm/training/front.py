"""What stands in front of the network: a normaliser, by the door that a run uses.

A front is a module: RGB float (B, 3, H, W) in [0, 1] and the tiles' groups, long (B,), to
normalised RGB of the same form. Tiles go through it as a run's do: as bytes, with the white and the
statistics of their group. Only a layer that learns differs while it learns (`train`): there it is
PyTorch's form on floats, with gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from wsi_norm.choices import NORMALIZERS
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.config.train import NormalizerConfig
from wsi_norm.errors import ConfigError
from wsi_norm.glass import white_of_tiles
from wsi_norm.lstainnorm import LayerConfig, StainLayer, Template, load_checkpoint, make_layer
from wsi_norm.lstainnorm.background import white_of
from wsi_norm.lstainnorm.learned import moves, space_weights
from wsi_norm.lstainnorm.moments import triple
from wsi_norm.normalizers.base import Bools, StainNormalizer
from wsi_norm.normalizers.engine import Engine, Normalizer
from wsi_norm.normalizers.model import Model
from wsi_norm.pixels import UInt8
from wsi_norm.slide import read_image
from wsi_norm.tensors import to_bytes, to_float

LAYER = "lstainnorm"

TEMPLATE_GROUPS = 64
TEMPLATE_TILES = 32
"""The initial template is that of at most so many groups, and so many tiles of each."""


class Front(nn.Module):
    """A normaliser that does not learn; its tiles without usable statistics are as they were.

    Attributes
    ----------
    passed_through
        How many tiles those were so far.
    """

    def __init__(self, normalizer: StainNormalizer) -> None:
        super().__init__()
        self.normalizer = normalizer
        self.passed_through = 0

    @property
    def per_group(self) -> bool:
        """Whether tiles of a group are measured together."""
        return self.normalizer.statistics == "slide"

    def forward(self, image: Tensor, group: Tensor) -> Tensor:
        """Normalised tiles."""
        return self.work(self.normalizer, image, group)

    @torch.no_grad()
    def work(self, normalizer: StainNormalizer, image: Tensor, group: Tensor) -> Tensor:
        """What a run would make of the images, group by group."""
        tiles, groups = to_bytes(image), group.cpu().numpy()
        out, usable = np.empty_like(tiles), np.zeros(len(tiles), np.bool_)
        for number in np.unique(groups):
            own = groups == number
            out[own], usable[own] = normalize_slide(normalizer, tiles[own])
        self.passed_through += int(np.count_nonzero(~usable))
        return to_float(out).to(image)


class LayerFront(Front):
    """LStainNorm, which may learn.

    Parameters
    ----------
    layer
        Any form of it.
    engine
        How it works when it is judged; see `Normalizer`.
    """

    def __init__(self, layer: StainLayer, engine: Engine = "auto") -> None:
        nn.Module.__init__(self)
        self.layer, self.engine = layer, engine
        self.passed_through = 0

    @property
    def per_group(self) -> bool:
        """Whether tiles of a group are measured together."""
        return self.layer.config.statistics == "slide"

    def forward(self, image: Tensor, group: Tensor) -> Tensor:
        """Normalised tiles."""
        if not (self.training and self.learns):
            normalizer = Normalizer(self.layer, str(image.device), engine=self.engine)
            return self.work(normalizer, image, group)
        together = group if self.per_group else None
        return self.layer.normalize(image, white=white_of(image, group), group=together)[0]

    @property
    def learns(self) -> bool:
        """Whether any parameter of the layer may move."""
        return any(parameter.requires_grad for parameter in self.layer.parameters())

    def learned(self) -> dict[str, float]:
        """What is learned, by name: "lab.L*.mean", "lab.L*.std" ... and "weight.lab" ..."""
        values = {f"weight.{space}": w for space, w in space_weights(self.layer).items()}
        for move in moves(self.layer):
            values[f"{move.space}.{move.channel}.mean"] = move.target_mean
            values[f"{move.space}.{move.channel}.std"] = move.target_std
        return values


def normalize_slide(normalizer: StainNormalizer, tiles: UInt8) -> tuple[UInt8, Bools]:
    """Tiles of one slide, uint8 (N, H, W, 3), with its white and, where needed, its statistics."""
    if normalizer.statistics == "none":
        return normalizer.normalize(tiles)
    white = triple(white_of_tiles(tiles))
    if normalizer.statistics != "slide":
        return normalizer.normalize(tiles, None, white)
    try:
        statistics = normalizer.measure(tiles, None, white)
    except ValueError:  # nothing to measure
        return tiles, np.zeros(len(tiles), np.bool_)
    return normalizer.normalize(tiles, statistics, white)


def build_front(config: NormalizerConfig, tiles: LabelledTiles, seed: int) -> Front:
    """The front that the settings ask for, its target taken from the training tiles.

    Raises
    ------
    ConfigError
        An unknown preset or space; a target that is no image, or holds no tissue.
    CheckpointError
        `normalizer.start` is no checkpoint.
    """
    if config.kind == LAYER and config.start is not None:
        layer = load_checkpoint(config.start)
        return LayerFront(layer.train().requires_grad_(config.learn))
    target = target_tile(config, tiles, seed)
    if config.kind != LAYER:
        model = Model(
            config.kind, target=target, statistics=config.statistics, background=config.background
        )
        return Front(NORMALIZERS[config.kind](model, "cpu", None))
    layer = untrained_layer(
        config,
        lambda: (
            cohort_template(tiles, config.statistics, seed)
            if target is None
            else Template.fit(target)
        ),
    )
    return LayerFront(layer.requires_grad_(config.learn))


def untrained_layer(config: NormalizerConfig, fitted: Callable[[], Template]) -> StainLayer:
    """The layer that the settings describe, aiming at what `fitted` gives.

    Raises
    ------
    ConfigError
        An unknown preset or space; no template can be fitted.
    """
    if config.preset == "reference" and config.statistics == "slide":
        raise ConfigError("normalizer: preset 'reference' measures each tile; statistics: tile")
    try:
        layer = LayerConfig.of(
            config.preset,
            config.spaces,
            statistics=config.statistics,
            background=config.background,
        )
        return make_layer(layer, fitted())
    except ValueError as error:
        raise ConfigError(f"normalizer: {error}") from error


def target_tile(config: NormalizerConfig, tiles: LabelledTiles, seed: int) -> UInt8 | None:
    """uint8 (H, W, 3) to aim at; None for the layer (the cohort is its default) and for none."""
    if isinstance(config.target, int):
        if not 0 <= config.target < len(tiles):
            raise ConfigError(
                f"normalizer.target {config.target}: there are {len(tiles)} training tiles"
            )
        return _tile(tiles, config.target)
    if config.target == "seen":
        raise ConfigError(
            "normalizer.target 'seen': there is no other method whose network saw something; "
            "in a training, let normalizer.start name a checkpoint of 'wsi-norm fit-template'"
        )
    if config.target is not None:
        return read_image(config.target, tiles.data.icc)
    if config.kind in (LAYER, "none"):
        return None
    return _tile(tiles, int(np.random.default_rng([seed, 1]).integers(len(tiles))))


def cohort_template(
    tiles: LabelledTiles, statistics: str, seed: int, front: Front | None = None
) -> Template:
    """Mean over the cohort's tissue, std within its tiles or (statistics "slide") its groups.

    Behind a front it is that of the tiles as the front leaves them: what a network behind it saw.
    """
    return Template.fit(_cohort(tiles, statistics, seed, front), within_tiles=True)


def _cohort(
    tiles: LabelledTiles, statistics: str, seed: int, front: Front | None
) -> Iterable[UInt8 | list[UInt8]]:
    random = np.random.default_rng([seed, 2])
    groups: Sequence[int] = random.permutation(len(tiles.groups))[:TEMPLATE_GROUPS].tolist()
    for group in groups:
        own = random.permutation(np.flatnonzero(tiles.group_of == group))[:TEMPLATE_TILES]
        images = [_tile(tiles, int(position), int(position)) for position in own]
        if front is not None:
            batch = to_float(np.stack(images))
            images = list(to_bytes(front.eval()(batch, torch.zeros(len(images), dtype=torch.long))))
        if statistics == "slide":
            yield images
        else:
            yield from images


def _tile(tiles: LabelledTiles, position: int, draw: int = 0) -> UInt8:
    """uint8 (H, W, 3); where a random tile lies is the draw's."""
    return np.ascontiguousarray(tiles[position, draw][0].numpy().transpose(1, 2, 0))
