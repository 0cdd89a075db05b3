"""The authors' public code restated from its observed behaviour, to load their checkpoints.

It differs from the paper in many details (see docs/layer.md); nothing here is used by the other
presets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_norm.choices import Background, StatisticsMode
from wsi_norm.colorspace import CONVERSIONS
from wsi_norm.lstainnorm.base import StainLayer
from wsi_norm.lstainnorm.config import REFERENCE, TOKEN_PX, LayerConfig
from wsi_norm.lstainnorm.fusion import SingleFusion, upsample
from wsi_norm.lstainnorm.moments import EPS, Triple, triple
from wsi_norm.lstainnorm.normalization import Matching
from wsi_norm.lstainnorm.template import Statistics, Template
from wsi_norm.spaces import Space

SPACE_ORDER: tuple[Space, ...] = ("lab", "hsv", "rgb")


class ReferenceNormalization(Matching):
    """Plain moments over all pixels (unbiased std, linear hue) and `abs` in place of a clip."""

    @property
    def target_mean(self) -> Tensor:
        """(S, 3): offsets are in the channels' own units."""
        return self.template_mean + self.mean_offset

    @property
    def target_std(self) -> Tensor:
        """(S, 3): offsets are in the channels' own units."""
        return self.template_std + self.std_offset

    def measure(self, inside: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and unbiased std (B, S, 3) over all pixels of every space (B, 3, H, W)."""
        flat = [x.flatten(-2) for x in inside]
        mean = torch.stack([x.mean(dim=-1) for x in flat], dim=1)
        return mean, torch.stack([x.std(dim=-1) for x in flat], dim=1)

    def forward(self, inside: Sequence[Tensor], mean: Tensor, std: Tensor) -> Tensor:
        """Branches (B, S, 3, H, W); CIELAB's lie in [0, 1], the others are only non-negative."""
        branches = []
        for index, space in enumerate(self.spaces):
            centred = inside[index] - mean[:, index, :, None, None]
            unit = centred / (std[:, index, :, None, None] + EPS)
            matched = (
                unit * self.target_std[index, :, None, None]
                + self.target_mean[index, :, None, None]
            )
            branch = CONVERSIONS[space].to_rgb(matched)
            branches.append(branch.clamp(0, 1) if space == "lab" else branch.abs())
        return torch.stack(branches, dim=1)


class ReferenceFusion(nn.Module):
    """One attention module shared by lab, hsv, rgb; its product contracts over the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Conv2d(3, 1, 1)
        self.key = nn.Conv2d(3, 1, 1)
        self.value = nn.Conv2d(3, 3, 1)
        self.gamma = nn.Parameter(torch.zeros(3, 3))
        self.scale = nn.Parameter(torch.ones(3))
        self.shift = nn.Parameter(torch.ones(3))

    def attention(self, branch: Tensor) -> Tensor:
        """The attention map (B, 3, H, W) of one branch."""
        height, width = branch.shape[-2:]
        padding = (0, -width % TOKEN_PX, 0, -height % TOKEN_PX)
        padded = F.pad(branch, padding, mode="replicate") if any(padding) else branch
        query, key, value = (
            F.max_pool2d(layer(padded), TOKEN_PX) for layer in (self.query, self.key, self.value)
        )
        attended = _attend_over_queries(query.flatten(1), key.flatten(1), value.flatten(2))
        tokens = attended.reshape(len(branch), 3, *query.shape[-2:])
        return upsample(tokens, height, width)

    def forward(self, branches: Tensor) -> Tensor:
        """(B, 3, 3, H, W) in the order lab, hsv, rgb -> (B, 3, H, W), not clipped."""
        ratios = []
        for index, branch in enumerate(branches.unbind(1)):
            amount = (1 + self.gamma[index, :, None, None]) * self.attention(branch).abs()
            ratios.append((amount + branch) / (branch + EPS))
        total = ratios[0] + ratios[1] + ratios[2] + EPS
        lab, hsv = ratios[0] / total, ratios[1] / total
        shares = torch.stack([lab, hsv, 1 - lab - hsv], dim=1)
        scale, shift = self.scale[:, None, None, None], self.shift[:, None, None, None]
        weight = scale * shares + shift
        return (branches * weight).sum(dim=1) / weight.sum(dim=1)


class ReferenceLayer(StainLayer):
    """The authors' code to the letter, without our safety around it.

    It measures every image by itself and all of its pixels, transforms the background too, and does
    not clip; with statistics of a slide it takes moments that its authors' code never did.

    Parameters
    ----------
    spaces
        All three, or only one for the authors' single-space CIELAB layer.
    template
        Initial target: mean and std per space.
    statistics, provenance
        As in LStainNorm.
    """

    def __init__(
        self,
        spaces: Sequence[Space],
        template: Template,
        *,
        statistics: StatisticsMode = "tile",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        spaces = SPACE_ORDER if len(spaces) > 1 else ("lab",)
        config = LayerConfig(REFERENCE, spaces, statistics, "normalize", circular_hue=False)
        fusion = ReferenceFusion() if len(spaces) > 1 else SingleFusion()
        super().__init__(config, ReferenceNormalization(spaces, template), fusion, provenance)

    @classmethod
    def from_state(
        cls,
        state_dict: Mapping[str, Tensor],
        template: Mapping[Space, tuple[Sequence[float], Sequence[float]]],
    ) -> ReferenceLayer:
        """The authors' checkpoint.

        Parameters
        ----------
        state_dict
            Theirs; `model.*` entries of the network behind the layer are ignored.
        template
            From their configuration: "lab", "hsv", "rgb" to (mean, std), three numbers each.

        Raises
        ------
        ValueError
            A parameter or a space of the template is missing.
        """
        try:
            spaces, state = translate(state_dict)
            mean, std = ({s: triple(template[s][moment]) for s in spaces} for moment in (0, 1))
        except LookupError as error:
            raise ValueError(
                f"not the authors' layer or its template: {error} is missing"
            ) from error
        layer = cls(spaces, Template(mean, std))
        try:
            layer.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ValueError(f"not the authors' layer: {error}") from error
        return layer

    def configure(
        self, statistics: StatisticsMode | None = None, background: Background | None = None
    ) -> None:
        """See `StainLayer.configure`; this form knows no preserved background."""
        if background == "preserve":
            raise ValueError("preset 'reference' transforms the background too")
        super().configure(statistics, background)

    def normalize(
        self,
        x: Tensor,
        statistics: Statistics | None = None,
        white: Triple | Tensor | None = None,
        group: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `StainLayer.normalize`; glass plays no part, and every image is usable."""
        if group is not None:
            raise ValueError("preset 'reference' measures every image by itself")
        inside = self.normalization.convert(x)
        if statistics is None:
            mean, std = self.normalization.measure(inside)
        else:
            mean, std, _ = self._given(x, statistics)
        y = self.fusion(self.normalization(inside, mean, std))
        return y, torch.ones(len(x), dtype=torch.bool, device=x.device)


def _attend_over_queries(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """out[c, j] = sum_i v[c, i] softmax_j(q_i k_j), in chunks of queries so that memory is flat."""
    chunk = max(1, (1 << 24) // query.numel())
    parts = zip(torch.split(query, chunk, -1), torch.split(value, chunk, -1), strict=True)
    return torch.stack(
        [v @ torch.softmax(q[:, :, None] * key[:, None, :], dim=-1) for q, v in parts]
    ).sum(dim=0)


def translate(state: Mapping[str, Tensor]) -> tuple[tuple[Space, ...], dict[str, Tensor]]:
    """The authors' state dict in our names.

    Parameters
    ----------
    state
        Their state dict; parameters of a network behind the layer (`model.*`) are ignored. Without
        `SelfAttention.*` it is their single-space CIELAB layer, whose offsets are `mu`, `sigma`.

    Returns
    -------
    The colour spaces of the layer, and parameters (without the template) for it.

    Raises
    ------
    KeyError
        A parameter of the layer is missing; its name is the message.
    """
    multi = any(name.startswith("SelfAttention.") for name in state)
    spaces: tuple[Space, ...] = SPACE_ORDER if multi else ("lab",)
    suffixes = [f"_{space}" for space in spaces] if multi else [""]
    ours = {
        "normalization.mean_offset": torch.stack([state[f"mu{suffix}"] for suffix in suffixes]),
        "normalization.std_offset": torch.stack([state[f"sigma{suffix}"] for suffix in suffixes]),
    }
    if multi:
        ours["fusion.gamma"] = torch.stack([state[f"gamma_{space}"] for space in spaces])
        ours["fusion.scale"], ours["fusion.shift"] = state["a0"], state["b0"]
        for theirs, name in (("f", "query"), ("g", "key"), ("h", "value")):
            for part in ("weight", "bias"):
                ours[f"fusion.{name}.{part}"] = state[f"SelfAttention.{theirs}.{part}"]
    return spaces, ours
