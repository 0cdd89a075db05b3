"""What every form of the layer is as a module of PyTorch: its target, how it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsi_norm.choices import Background, StatisticsMode
from wsi_norm.lstainnorm.config import LayerConfig
from wsi_norm.lstainnorm.moments import Triple, triple
from wsi_norm.lstainnorm.state import LayerState
from wsi_norm.lstainnorm.template import Statistics, Template


class StainLayer(nn.Module):
    """A form of the layer: a normalisation (steps 1, 2) and a fusion (steps 3, 4).

    Parameters
    ----------
    config
        What it is.
    normalization
        Has `target_mean`, `target_std` and their template, (S, 3) each.
    fusion
        Branches (B, S, 3, H, W) to an image (B, 3, H, W).
    provenance
        How it was trained, on what, licence, figures; empty for an untrained layer.
    """

    def __init__(
        self,
        config: LayerConfig,
        normalization: nn.Module,
        fusion: nn.Module,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.provenance: dict[str, Any] = dict(provenance or {})
        self.normalization: Any = normalization
        self.fusion: Any = fusion

    @property
    def template(self) -> Template:
        """The initial template."""
        return self._moments("template_mean", "template_std")

    @property
    def target(self) -> Template:
        """What the layer aims at now: the template moved by what was learned."""
        return self._moments("target_mean", "target_std")

    def state(self) -> LayerState:
        """What it is now, in numbers."""
        arrays = {
            name: np.array(value.detach().float().cpu().numpy(), order="C")
            for name, value in self.state_dict().items()
        }
        return LayerState(self.config, arrays, self.provenance)

    def configure(
        self, statistics: StatisticsMode | None = None, background: Background | None = None
    ) -> None:
        """Use other statistics or another background than the layer was trained with.

        Raises
        ------
        ValueError
            This form of the layer does not know them.
        """
        self.config = replace(
            self.config,
            statistics=statistics or self.config.statistics,
            background=background or self.config.background,
        )

    def forward(self, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Normalise a batch.

        Parameters
        ----------
        x
            float (B, 3, H, W), RGB in [0, 1].
        statistics
            Of the slide that the batch comes from; None measures every image by itself.

        Returns
        -------
        float (B, 3, H, W), RGB in [0, 1] ("reference" does not clip).

        Raises
        ------
        ValueError
            x has another shape, is not float, leaves [0, 1] or holds NaN.
        """
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if tracing or torch.compiler.is_exporting():
            raise ValueError(
                "the layer cannot be traced or exported: its white, fill and number of nodes "
                "follow from the images; run it in Python, and export the network behind it"
            )
        _check(x)
        return self.normalize(x, statistics)[0]

    def normalize(
        self,
        x: Tensor,
        statistics: Statistics | None = None,
        white: Triple | Tensor | None = None,
        group: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, without its check of x; also says which images had usable statistics.

        Parameters
        ----------
        white
            RGB of clear glass, or (B, 3, 1, 1) of each image's; None takes the statistics' or else
            estimates it.
        group
            long (B,): images with equal numbers are measured together, and share their white, as
            tiles of one slide do. None measures each image by itself.

        Returns
        -------
        y (B, 3, H, W), and bool (B,): False where an image has (almost) no tissue to measure and
        was passed through unchanged.
        """
        raise NotImplementedError

    def _given(self, x: Tensor, statistics: Statistics) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and std (1, S, 3) of known statistics; bool (B,), usable as they are."""
        mean, std = (x.new_tensor([rows]) for rows in statistics.rows(self.config.spaces))
        return mean, std, torch.ones(len(x), dtype=torch.bool, device=x.device)

    def _moments(self, mean: str, std: str) -> Template:
        values = (getattr(self.normalization, name).tolist() for name in (mean, std))
        return Template(
            *(
                {space: triple(row) for space, row in zip(self.config.spaces, rows, strict=True)}
                for rows in values
            )
        )


def _check(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point() or 0 in x.shape:
        raise ValueError(f"expected float (B, 3, H, W), not {x.dtype} {tuple(x.shape)}")
    low, high = (float(value) for value in x.detach().aminmax())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise ValueError(f"expected RGB in [0, 1] without NaN, but values span {low:g} to {high:g}")
