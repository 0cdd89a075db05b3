"""A layer at rest: its configuration and its numbers, which is all that kernels need of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_norm.choices import Background, StatisticsMode
from wsi_norm.lstainnorm.config import GAMMA_RANGE, REFERENCE, LayerConfig
from wsi_norm.lstainnorm.moments import triple
from wsi_norm.lstainnorm.template import Template

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LayerState:
    """What a checkpoint holds, without PyTorch.

    Attributes
    ----------
    config
        What the layer is.
    arrays
        Template, offsets and weights, float32, by their names in the layer's `state_dict`.
    provenance
        How it was trained, on what, licence, figures.
    """

    config: LayerConfig
    arrays: Mapping[str, Floats]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def untrained(cls, config: LayerConfig, template: Template) -> LayerState:
        """Of a layer of one space that aims at a template."""
        mean, std = (
            np.array([moments[space] for space in config.spaces], np.float32)
            for moments in (template.mean, template.std)
        )
        offsets = np.zeros_like(mean)
        arrays = {"template_mean": mean, "template_std": std}
        arrays |= {"mean_offset": offsets, "std_offset": offsets}
        return cls(config, {f"normalization.{name}": array for name, array in arrays.items()})

    @property
    def template(self) -> Template:
        """The initial template."""
        return self._moments(self._of("template_mean"), self._of("template_std"))

    @property
    def target(self) -> Template:
        """What the layer aims at: the template moved by what was learned."""
        return self._moments(self.target_mean, self.target_std)

    @property
    def target_mean(self) -> Floats:
        """beta, (S, 3): the mean that is aimed at."""
        offset = self._of("mean_offset")
        if self.config.preset != REFERENCE:  # there, offsets are in the channels' own units
            offset = self._of("template_std") * offset
        return self._of("template_mean") + offset

    @property
    def target_std(self) -> Floats:
        """gamma, (S, 3): the std that is aimed at."""
        std, offset = self._of("template_std"), self._of("std_offset")
        if self.config.preset == REFERENCE:
            return std + offset
        least, most = GAMMA_RANGE
        times: Floats = np.clip(1 + offset, np.float32(least), np.float32(most))
        return std * times

    def configured(
        self, statistics: StatisticsMode | None = None, background: Background | None = None
    ) -> LayerState:
        """With other statistics or another background; see `StainLayer.configure`.

        Raises
        ------
        ValueError
            This form of the layer does not know them.
        """
        if background == "preserve" and self.config.preset == REFERENCE:
            raise ValueError("preset 'reference' transforms the background too")
        config = replace(
            self.config,
            statistics=statistics or self.config.statistics,
            background=background or self.config.background,
        )
        return replace(self, config=config)

    def _of(self, name: str) -> Floats:
        return self.arrays[f"normalization.{name}"]

    def _moments(self, mean: Floats, std: Floats) -> Template:
        first, second = (
            {s: triple(row) for s, row in zip(self.config.spaces, rows.tolist(), strict=True)}
            for rows in (mean, std)
        )
        return Template(first, second)


def shapes(config: LayerConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every array of such a layer; not of preset "reference"."""
    number = len(config.spaces)
    per_channel, per_space = (number, 3), (number,)
    of_attention = {
        "attention.query_weight": per_channel,
        "attention.query_bias": per_space,
        "attention.key_weight": per_channel,
        "attention.key_bias": per_space,
    }
    fusions: dict[str, dict[str, tuple[int, ...]]] = {
        "mean": {"weight": per_space},
        "product": {"logits": per_space, **of_attention},
        "paper": {"delta": per_channel, "scale": per_space, "shift": per_space, **of_attention},
    }
    fusion = fusions[config.preset] if number > 1 else {}
    names = ("template_mean", "template_std", "mean_offset", "std_offset")
    return {
        **{f"normalization.{name}": per_channel for name in names},
        **{f"fusion.{name}": shape for name, shape in fusion.items()},
    }
