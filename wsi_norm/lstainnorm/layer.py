"""LStainNorm: stain normalisation whose target is a parameter.

Ke et al., "Learnable color space conversion and fusion for stain normalization in pathology
images", Medical Image Analysis 101:103424, 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from wsi_norm.choices import Background, StatisticsMode
from wsi_norm.lstainnorm.background import bounded, fill_of, tissue_weight, white_of
from wsi_norm.lstainnorm.base import StainLayer
from wsi_norm.lstainnorm.config import REFERENCE, LayerConfig
from wsi_norm.lstainnorm.counts import OD
from wsi_norm.lstainnorm.fusion import (
    AttentionForm,
    ColourAttention,
    MeanFusion,
    PaperFusion,
    ProductFusion,
    SingleFusion,
)
from wsi_norm.lstainnorm.moments import Triple
from wsi_norm.lstainnorm.normalization import SpaceNormalization
from wsi_norm.lstainnorm.reference import ReferenceLayer
from wsi_norm.lstainnorm.shadow import shadow_of, shadow_range
from wsi_norm.lstainnorm.state import LayerState
from wsi_norm.lstainnorm.template import Statistics, Template
from wsi_norm.spaces import Space


class LStainNorm(StainLayer):
    """The layer: normalise in several colour spaces, fuse by attention, keep the glass.

    Parameters
    ----------
    preset
        "paper", "product", "mean" or "single:rgb|lab|hsv|hed|od" (see docs/layer.md); the authors'
        own code is `from_reference`.
    spaces
        Colour spaces; for "single:*" the preset names it.
    template
        Initial target: mean and std per space.
    statistics, background, circular_hue
        See LayerConfig.
    provenance
        How it was trained, on what, licence, figures; empty for an untrained layer.

    Notes
    -----
    Any H and W; any device; differentiable in the image, the parameters and, where they are
    measured on the image, through the statistics.
    """

    def __init__(
        self,
        preset: str = "paper",
        spaces: Sequence[Space] = ("rgb", "lab", "hsv"),
        template: Template | None = None,
        *,
        statistics: StatisticsMode = "slide",
        background: Background = "preserve",
        circular_hue: bool = True,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if template is None:
            raise ValueError(
                "LStainNorm needs a template: Template.fit(tiles), or load_checkpoint()"
            )
        if preset == REFERENCE:
            raise ValueError("preset 'reference' is made by LStainNorm.from_reference")
        config = LayerConfig.of(
            preset,
            spaces,
            statistics=statistics,
            background=background,
            circular_hue=circular_hue,
        )
        normalization = SpaceNormalization(config.spaces, template, circular_hue)
        super().__init__(config, normalization, _fusion(config), provenance)

    @staticmethod
    def from_reference(
        state_dict: Mapping[str, Tensor],
        template: Mapping[Space, tuple[Sequence[float], Sequence[float]]],
    ) -> ReferenceLayer:
        """The authors' checkpoint; see `ReferenceLayer.from_state`."""
        return ReferenceLayer.from_state(state_dict, template)

    @property
    def attention_form(self) -> AttentionForm:
        """How attention is computed: "auto", "direct" or "linear" (equal to 1e-5)."""
        attention = getattr(self.fusion, "attention", None)
        return attention.form if isinstance(attention, ColourAttention) else "direct"

    @attention_form.setter
    def attention_form(self, form: AttentionForm) -> None:
        if form not in get_args(AttentionForm):
            raise ValueError(
                f"attention_form must be one of {get_args(AttentionForm)}, not {form!r}"
            )
        attention = getattr(self.fusion, "attention", None)
        if isinstance(attention, ColourAttention):
            attention.form = form

    def normalize(
        self,
        x: Tensor,
        statistics: Statistics | None = None,
        white: Triple | Tensor | None = None,
        group: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `StainLayer.normalize`."""
        if white is None:
            white = white_of(x, group) if statistics is None else statistics.white
        glass = white if isinstance(white, Tensor) else x.new_tensor(white)[:, None, None]
        fill = fill_of(x)
        weight = tissue_weight(x, glass).masked_fill(fill, 0)
        inside = self.normalization.convert(x)
        if statistics is None:
            mean, std, usable = self.normalization.measure(x, weight, inside, group, glass)
        else:
            mean, std, usable = self._given(x, statistics)
        y = self.fusion(self.normalization(x, mean, std, inside, glass))
        if self.config.spaces != (OD,):  # which has bounds of its own
            if statistics is None:
                start, slope = shadow_range(*self.normalization.measure_rgb(x, weight, group))
            else:
                start, slope = (x.new_tensor([value]) for value in shadow_of(statistics))
            y = bounded(x, y, start, slope)
        if self.config.background == "preserve":
            y = x + weight * (y - x)
        return torch.where(usable[:, None, None, None] & ~fill, y, x), usable


def make_layer(
    config: LayerConfig, template: Template, provenance: Mapping[str, Any] | None = None
) -> StainLayer:
    """The untrained layer of a configuration, in whichever form its preset asks for.

    Raises
    ------
    ValueError
        The template lacks a colour space, or the preset does not know a setting.
    """
    if config.preset == REFERENCE:
        return ReferenceLayer(
            config.spaces, template, statistics=config.statistics, provenance=provenance
        )
    return LStainNorm(
        config.preset,
        config.spaces,
        template,
        statistics=config.statistics,
        background=config.background,
        circular_hue=config.circular_hue,
        provenance=provenance,
    )


def layer_of(state: LayerState) -> StainLayer:
    """The layer in PyTorch, in evaluation mode on the CPU; ValueError as `make_layer`."""
    layer = make_layer(state.config, state.template, state.provenance)
    layer.load_state_dict({name: torch.tensor(x) for name, x in state.arrays.items()})
    return layer.eval()


def _fusion(config: LayerConfig) -> nn.Module:
    if len(config.spaces) == 1:
        return SingleFusion()
    kinds = {"paper": PaperFusion, "product": ProductFusion, "mean": MeanFusion}
    return kinds[config.preset](len(config.spaces))
