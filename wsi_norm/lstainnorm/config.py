"""What a layer is, apart from its weights: its configuration, and bounds of every form of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, cast, get_args

from wsi_norm.choices import Background, StatisticsMode
from wsi_norm.spaces import SPACES, Space

MAX_GAIN = 4.0
"""Contrast is raised at most this much: the floor of sigma is the target's std over it."""

GAMMA_RANGE = (0.2, 3.0)
"""Bounds of the learned std, in units of the template's."""

TOKEN_PX = 8
"""Edge of the square of pixels that is pooled into one token (p in the paper)."""

MIN_WEIGHT = 1e-3
"""Lower bound of a space's weight R_s: the denominator of eq. 14 stays positive in training."""

_SINGLE = "single:"
REFERENCE = "reference"
PRESETS = ("paper", "product", "mean", *(f"{_SINGLE}{space}" for space in SPACES), REFERENCE)


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

    @classmethod
    def of(cls, preset: str, spaces: Sequence[str] = ("rgb", "lab", "hsv"), **rest: Any) -> Self:
        """A configuration whose spaces are those that a preset "single:*" names, else `spaces`."""
        if preset.startswith(_SINGLE):
            spaces = (preset.removeprefix(_SINGLE),)
        return cls(preset, cast("tuple[Space, ...]", tuple(spaces)), **rest)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "spaces": list(self.spaces)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerConfig:
        """The inverse of `to_dict`."""
        return cls(**{**data, "spaces": tuple(data["spaces"])})
