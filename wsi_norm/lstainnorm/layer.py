"""LStainNorm: stain normalisation whose target is a parameter.

Ke et al., "Learnable color space conversion and fusion for stain normalization in pathology
images", Medical Image Analysis 101:103424, 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from wsi_norm.colorspace import SPACES, Space
from wsi_norm.lstainnorm import reference
from wsi_norm.lstainnorm.background import tissue_weight, white_of
from wsi_norm.lstainnorm.fusion import (
    AttentionForm,
    ColourAttention,
    MeanFusion,
    PaperFusion,
    ProductFusion,
    SingleFusion,
)
from wsi_norm.lstainnorm.normalization import SpaceNormalization, shared
from wsi_norm.lstainnorm.template import MIN_TISSUE_SHARE, Statistics, Template, Triple, triple

StatisticsMode = Literal["slide", "tile"]
Background = Literal["preserve", "normalize"]
PRESETS = ("paper", "product", "mean", *(f"single:{space}" for space in SPACES), "reference")


@dataclass(frozen=True)
class LayerConfig:
    """What a layer is, apart from its weights.

    Attributes
    ----------
    preset
        One of PRESETS.
    spaces
        Colour spaces in the order of the parameters.
    statistics
        Whose mean and std it was trained with: the slide's or each tile's.
    background
        "preserve": glass keeps its colour, by a soft weight, so without an edge. "normalize":
        every pixel is transformed, as in the paper.
    circular_hue
        Hue's statistics are those of an angle.
    """

    preset: str = "paper"
    spaces: tuple[Space, ...] = ("rgb", "lab", "hsv")
    statistics: StatisticsMode = "slide"
    background: Background = "preserve"
    circular_hue: bool = True

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r} (known: {', '.join(PRESETS)})")
        unknown = set(self.spaces) - set(SPACES)
        if unknown or not self.spaces or len(set(self.spaces)) != len(self.spaces):
            raise ValueError(f"spaces must be distinct ones of {SPACES}, not {self.spaces}")
        for name, known in (("statistics", StatisticsMode), ("background", Background)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} must be one of {get_args(known)}")

    @property
    def literal(self) -> bool:
        """Whether the authors' code is followed to the letter, without our safety around it."""
        return self.preset == "reference"

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "spaces": list(self.spaces)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerConfig:
        """The inverse of `to_dict`."""
        return cls(**{**data, "spaces": tuple(data["spaces"])})


class LStainNorm(nn.Module):
    """The layer: normalise in several colour spaces, fuse by attention, keep the glass.

    Parameters
    ----------
    preset
        "paper", "product", "mean", "single:rgb|lab|hsv|hed" or "reference" (see docs/layer.md).
    spaces
        Colour spaces; for "single:*" the preset names it, for "reference" they are the authors'.
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
        super().__init__()
        if template is None:
            raise ValueError(
                "LStainNorm needs a template: Template.fit(tiles), or load_checkpoint()"
            )
        if preset.startswith("single:"):
            spaces = (preset.removeprefix("single:"),)  # type: ignore[assignment]
        elif preset == "reference":
            spaces = reference.SPACE_ORDER if len(spaces) > 1 else ("lab",)
            background, circular_hue = "normalize", False
        self.config = LayerConfig(preset, tuple(spaces), statistics, background, circular_hue)
        missing = [s for s in self.config.spaces if s not in template.mean or s not in template.std]
        if missing:
            raise ValueError(f"the template lacks colour space {missing[0]!r}")
        self.provenance: dict[str, Any] = dict(provenance or {})
        self.normalization = _normalization(self.config, template)
        self.fusion = _fusion(self.config)

    @classmethod
    def from_reference(
        cls,
        state_dict: Mapping[str, Tensor],
        template: Mapping[Space, tuple[Sequence[float], Sequence[float]]],
    ) -> LStainNorm:
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
            spaces, state = reference.translate(state_dict)
            mean, std = ({s: triple(template[s][moment]) for s in spaces} for moment in (0, 1))
        except LookupError as error:
            raise ValueError(
                f"not the authors' layer or its template: {error} is missing"
            ) from error
        layer = cls("reference", spaces, Template(mean, std), statistics="tile")
        try:
            layer.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ValueError(f"not the authors' layer: {error}") from error
        return layer

    @property
    def template(self) -> Template:
        """The initial template."""
        return self._moments("template_mean", "template_std")

    @property
    def target(self) -> Template:
        """What the layer aims at now: the template moved by what was learned."""
        return self._moments("target_mean", "target_std")

    def configure(
        self, statistics: StatisticsMode | None = None, background: Background | None = None
    ) -> None:
        """Use other statistics or another background than the layer was trained with.

        Raises
        ------
        ValueError
            "reference" knows no preserved background.
        """
        if self.config.literal and background == "preserve":
            raise ValueError("preset 'reference' transforms the background too")
        self.config = replace(
            self.config,
            statistics=statistics or self.config.statistics,
            background=background or self.config.background,
        )

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
        _check(x)
        return self.normalize(x, statistics)[0]

    def normalize(
        self,
        x: Tensor,
        statistics: Statistics | None = None,
        white: Triple | None = None,
        group: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, without its check of x; also says which images had usable statistics.

        Parameters
        ----------
        white
            RGB of clear glass; None takes the statistics' or else each image's own white level.
        group
            long (B,): images with equal numbers are measured together, and share their white, as
            tiles of one slide do. None measures each image by itself, as "reference" always does.

        Returns
        -------
        y (B, 3, H, W), and bool (B,): False where an image has (almost) no tissue to measure and
        was passed through unchanged.
        """
        if statistics is not None:
            white = white or statistics.white
        if group is not None and self.config.literal:
            raise ValueError("preset 'reference' measures every image by itself")
        glass = white_of(x) if white is None else x.new_tensor(white)[:, None, None]
        if group is not None and white is None:
            glass = shared(glass, group, "amax")
        weight = tissue_weight(x, glass)
        inside = self.normalization.convert(x)
        if statistics is None:
            mean, std = self.normalization.measure(x, weight, inside)
            tissue = weight.mean(dim=(-3, -2, -1))
            if group is not None and isinstance(self.normalization, SpaceNormalization):
                mean, std = self.normalization.pool(mean, std, tissue, group)
                tissue = shared(tissue, group, "mean")
            usable = tissue >= MIN_TISSUE_SHARE
        else:
            mean, std = self._given(x, statistics.mean), self._given(x, statistics.std)
            usable = torch.ones(len(x), dtype=torch.bool, device=x.device)
        y = self.fusion(self.normalization(x, mean, std, inside))
        if self.config.literal:
            return y, torch.ones_like(usable)
        if self.config.background == "preserve":
            y = x + weight * (y - x)
        return torch.where(usable[:, None, None, None], y, x), usable

    def _given(self, x: Tensor, moments: Mapping[Space, Triple]) -> Tensor:
        return x.new_tensor([[moments[space] for space in self.config.spaces]])

    def _moments(self, mean: str, std: str) -> Template:
        values = (getattr(self.normalization, name).tolist() for name in (mean, std))
        return Template(
            *(
                {space: triple(row) for space, row in zip(self.config.spaces, rows, strict=True)}
                for rows in values
            )
        )


def _normalization(
    config: LayerConfig, template: Template
) -> SpaceNormalization | reference.ReferenceNormalization:
    if config.literal:
        return reference.ReferenceNormalization(config.spaces, template)
    return SpaceNormalization(config.spaces, template, config.circular_hue)


def _fusion(config: LayerConfig) -> nn.Module:
    if len(config.spaces) == 1:
        return SingleFusion()
    if config.literal:
        return reference.ReferenceFusion()
    kinds = {"paper": PaperFusion, "product": ProductFusion, "mean": MeanFusion}
    return kinds[config.preset](len(config.spaces))


def _check(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point() or 0 in x.shape:
        raise ValueError(f"expected float (B, 3, H, W), not {x.dtype} {tuple(x.shape)}")
    low, high = (float(value) for value in x.detach().aminmax())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise ValueError(f"expected RGB in [0, 1] without NaN, but values span {low:g} to {high:g}")
