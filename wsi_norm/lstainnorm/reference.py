"""The authors' public code restated from its observed behaviour, to load their checkpoints.

It differs from the paper in many details (see docs/layer.md); nothing here is used by the other
presets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_norm.colorspace import CONVERSIONS, Space
from wsi_norm.lstainnorm.fusion import TOKEN_PX, upsample
from wsi_norm.lstainnorm.template import Template

SPACE_ORDER: tuple[Space, ...] = ("lab", "hsv", "rgb")
EPS = 1e-7


class ReferenceNormalization(nn.Module):
    """Plain moments over all pixels (unbiased std, linear hue) and `abs` in place of a clip."""

    template_mean: Tensor
    template_std: Tensor

    def __init__(self, spaces: Sequence[Space], template: Template) -> None:
        super().__init__()
        self.spaces = tuple(spaces)
        self.register_buffer("template_mean", torch.tensor([template.mean[s] for s in spaces]))
        self.register_buffer("template_std", torch.tensor([template.std[s] for s in spaces]))
        self.mean_offset = nn.Parameter(torch.zeros(len(self.spaces), 3))
        self.std_offset = nn.Parameter(torch.zeros(len(self.spaces), 3))

    @property
    def target_mean(self) -> Tensor:
        """(S, 3): offsets are in the channels' own units."""
        return self.template_mean + self.mean_offset

    @property
    def target_std(self) -> Tensor:
        """(S, 3): offsets are in the channels' own units."""
        return self.template_std + self.std_offset

    def convert(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) of every space."""
        return [CONVERSIONS[space].from_rgb(image) for space in self.spaces]

    def measure(
        self, image: Tensor, weight: Tensor, inside: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and unbiased std (B, S, 3) over all pixels; `weight` plays no part."""
        spaces = [x.flatten(-2) for x in inside or self.convert(image)]
        mean = torch.stack([x.mean(dim=-1) for x in spaces], dim=1)
        return mean, torch.stack([x.std(dim=-1) for x in spaces], dim=1)

    def forward(
        self, image: Tensor, mean: Tensor, std: Tensor, inside: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Branches (B, S, 3, H, W); CIELAB's lie in [0, 1], the others are only non-negative."""
        branches = []
        inside = inside or self.convert(image)
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
