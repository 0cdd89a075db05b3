"""What a layer learned: how far its target moved, and what each colour space counts for."""

from __future__ import annotations

from typing import NamedTuple

import torch

from wsi_norm.lstainnorm.base import StainLayer
from wsi_norm.lstainnorm.config import MIN_WEIGHT
from wsi_norm.lstainnorm.fusion import MeanFusion, PaperFusion, ProductFusion
from wsi_norm.spaces import CHANNELS, Space


class Move(NamedTuple):
    """How one channel's target moved in training.

    Attributes
    ----------
    space, channel
        Which.
    template_mean, target_mean
        Mean before and now, in the channel's units.
    template_std, target_std
        Standard deviation before and now.
    """

    space: Space
    channel: str
    template_mean: float
    target_mean: float
    template_std: float
    target_std: float

    @property
    def in_std(self) -> float:
        """Move of the mean in units of the template's standard deviation; 0 where that is 0."""
        return (self.target_mean - self.template_mean) / (self.template_std or 1)

    @property
    def times(self) -> float:
        """Standard deviation now, as a multiple of the template's; 1 where that is 0."""
        return self.target_std / self.template_std if self.template_std else 1.0


def moves(layer: StainLayer) -> list[Move]:
    """One Move per space and channel, in the layer's order."""
    template, target = layer.template, layer.target
    return [
        Move(
            space,
            channel,
            template.mean[space][k],
            target.mean[space][k],
            template.std[space][k],
            target.std[space][k],
        )
        for space in layer.config.spaces
        for k, channel in enumerate(CHANNELS[space])
    ]


@torch.no_grad()
def space_weights(layer: StainLayer) -> dict[Space, float]:
    """Share of every space in the result, summing to 1.

    For `paper`, where the shares differ from pixel to pixel, those at equal pixel-wise weights; for
    "reference", equal shares.
    """
    spaces, fusion = layer.config.spaces, layer.fusion
    if isinstance(fusion, MeanFusion):
        raw = fusion.weight.clamp_min(MIN_WEIGHT)
    elif isinstance(fusion, ProductFusion):
        raw = fusion.logits.softmax(0)
    elif isinstance(fusion, PaperFusion):
        raw = (fusion.scale / len(spaces) + fusion.shift).clamp_min(MIN_WEIGHT)
    else:
        raw = torch.ones(len(spaces))
    return dict(zip(spaces, (raw / raw.sum()).tolist(), strict=True))
