"""What a trained layer learned, and what each part of it is worth."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from wsi_norm.cohort.conditions import CONDITIONS
from wsi_norm.cohort.tiles import LabelledTiles
from wsi_norm.lstainnorm import LStainNorm, StainLayer
from wsi_norm.lstainnorm.fusion import ColourAttention, PaperFusion, ProductFusion
from wsi_norm.lstainnorm.learned import moves, space_weights
from wsi_norm.training.front import LayerFront
from wsi_norm.training.judge import judge, mean_score


def learned_facts(layer: StainLayer) -> dict[str, Any]:
    """The template's move per space and channel, and the spaces' weights, as JSON.

    Returns
    -------
    {"target": {space: {channel: {"mean": [from, to], "std": [from, to], "move": in template std}}},
    "weights": {space: share}}
    """
    target: dict[str, dict[str, Any]] = {space: {} for space in layer.config.spaces}
    for move in moves(layer):
        target[move.space][move.channel] = {
            "mean": [round(move.template_mean, 4), round(move.target_mean, 4)],
            "std": [round(move.template_std, 4), round(move.target_std, 4)],
            "move": round(move.in_std, 3),
        }
    shares = {space: round(share, 4) for space, share in space_weights(layer).items()}
    return {"target": target, "weights": shares}


def ablation(
    layer: StainLayer, network: nn.Module, tiles: LabelledTiles, seed: int
) -> dict[str, dict[str, float]]:
    """Scores of the validation split with one part of the layer taken away, network as it is.

    Returns
    -------
    {variant: {"clean": score, "simulated": score}}
    """
    scores: dict[str, dict[str, float]] = {}
    for name, variant in variants(layer).items():
        front = LayerFront(variant, engine="torch")  # what is taken away has no kernel
        scores[name] = {
            condition: round(
                mean_score(judge(front, network, tiles, strength=strength, seed=seed)), 4
            )
            for condition, strength in CONDITIONS.items()
        }
    return scores


def variants(layer: StainLayer) -> dict[str, StainLayer]:
    """The layer as it is, and copies of it that lack one thing each."""
    made = {"as trained": layer, "offsets zero": _without_offsets(layer)}
    if isinstance(layer.fusion, PaperFusion | ProductFusion):
        made["attention averaged"] = _with_mean_attention(layer)
    if len(layer.config.spaces) > 1 and isinstance(layer, LStainNorm):
        for space in layer.config.spaces:
            made[f"without {space}"] = _without_space(layer, layer.config.spaces.index(space))
    return made


class _MeanAttention(nn.Module):
    """Attention maps replaced by their mean over the image."""

    def __init__(self, attention: ColourAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, branches: Tensor) -> Tensor:
        maps: Tensor = self.attention(branches)
        return maps.mean(dim=(-2, -1), keepdim=True).expand_as(maps)


class _Dropped(nn.Module):
    """A fusion over all spaces but one."""

    def __init__(self, fusion: nn.Module, kept: list[int]) -> None:
        super().__init__()
        self.fusion, self.kept = fusion, kept

    def forward(self, branches: Tensor) -> Tensor:
        result: Tensor = self.fusion(branches[:, self.kept])
        return result


@torch.no_grad()
def _without_offsets(layer: StainLayer) -> StainLayer:
    copy = deepcopy(layer)
    for name, parameter in copy.normalization.named_parameters():
        if name.endswith("_offset"):
            parameter.zero_()
    return copy


def _with_mean_attention(layer: StainLayer) -> StainLayer:
    copy = deepcopy(layer)
    copy.fusion.attention = _MeanAttention(copy.fusion.attention)
    return copy


@torch.no_grad()
def _without_space(layer: StainLayer, dropped: int) -> StainLayer:
    copy = deepcopy(layer)
    spaces = len(layer.config.spaces)
    kept = [index for index in range(spaces) if index != dropped]
    for module in copy.fusion.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter[kept]))
    copy.fusion = _Dropped(copy.fusion, kept)
    return copy
