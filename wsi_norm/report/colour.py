"""Measured colour against the target's, as places on axes: of CIELAB, or of density."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scale:
    """What is drawn of a colour space.

    Attributes
    ----------
    space
        Name in statistics and targets.
    title, mark, band
        Of the table; what a mark and the band around or beside it mean.
    axes
        Channel, and the range that is drawn: the same everywhere, so that slides can be compared.
    sign
        Between mean and std in words; a band lies on both sides of its mark, or ("+") above it.
    digits
        Of the numbers.
    """

    space: str
    title: str
    mark: str
    band: str
    axes: tuple[tuple[str, float, float], ...]
    sign: str
    digits: int


CIELAB = Scale(
    "lab",
    "Colour of the tissue in CIELAB, mean ± std",
    "mean",
    "mean ± std",
    (("L*", 0.0, 100.0), ("a*", -60.0, 60.0), ("b*", -60.0, 60.0)),
    "±",
    1,
)
DENSITY = Scale(
    "od",
    "Density of the tissue: median (stroma) + up to the 95th percentile (nuclei)",
    "median density",
    "median up to 95th percentile",
    (("R", 0.0, 2.5), ("G", 0.0, 2.5), ("B", 0.0, 2.5)),
    "+",
    2,
)

Moments = Mapping[str, Any]
"""`mean` and `std`, each per colour space: a slide's statistics, or a target."""

GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, spread evenly: dots of near values do not hide each other."""


@dataclass(frozen=True)
class Span:
    """Mean and standard deviation, and where they lie on the axis, in percent."""

    mean: float
    std: float
    at: float
    left: float
    width: float


@dataclass(frozen=True)
class Channel:
    """One channel of a slide and of the target."""

    name: str
    slide: Span
    target: Span | None


@dataclass(frozen=True)
class Dot:
    """One slide on an axis, in percent of the axis and of the row's height."""

    index: int
    name: str
    mean: float
    at: float
    height: float


@dataclass(frozen=True)
class Strip:
    """All slides on one axis, with the target."""

    name: str
    low: float
    high: float
    target: Span | None
    dots: tuple[Dot, ...]


def scale_of(target: Moments | None) -> Scale:
    """CIELAB, unless a target is of density and not of CIELAB."""
    mean = target["mean"] if target else {}
    return DENSITY if DENSITY.space in mean and CIELAB.space not in mean else CIELAB


def channels(statistics: Moments | None, target: Moments | None) -> tuple[Channel, ...]:
    """The channels of a slide beside the target; empty if the slide was not measured."""
    scale = scale_of(target)
    slide, aim = _spans(statistics, scale), _spans(target, scale)
    if slide is None:
        return ()
    return tuple(
        Channel(name, slide[i], aim[i] if aim else None)
        for i, (name, _, _) in enumerate(scale.axes)
    )


def strips(
    slides: Iterable[tuple[int, str, Sequence[Channel]]], target: Moments | None
) -> tuple[Strip, ...]:
    """Every measured slide (index, name, channels) on each axis; empty for fewer than two."""
    measured = [(index, name, own) for index, name, own in slides if own]
    if len(measured) < 2:
        return ()
    scale = scale_of(target)
    aim = _spans(target, scale)
    return tuple(
        Strip(name, low, high, aim[i] if aim else None, tuple(_dots(measured, i)))
        for i, (name, low, high) in enumerate(scale.axes)
    )


def swatch(moments: Moments | None) -> str | None:
    """Mean colour as `#rrggbb`, that of stroma where only density is known; None without one."""
    mean = moments["mean"] if moments else {}
    if "rgb" in mean:
        rgb = mean["rgb"]
    elif DENSITY.space in mean:
        rgb = [math.exp(-value) for value in mean[DENSITY.space]]
    else:
        return None
    return "#" + "".join(f"{round(255 * min(max(value, 0.0), 1.0)):02x}" for value in rgb)


def _dots(measured: Iterable[tuple[int, str, Sequence[Channel]]], channel: int) -> Iterable[Dot]:
    for index, name, own in measured:
        span = own[channel].slide
        yield Dot(index, name, span.mean, span.at, round(15 + 70 * (index * GOLDEN % 1), 1))


def _spans(moments: Moments | None, scale: Scale) -> list[Span] | None:
    """One per channel; None where the space was not measured."""
    if not moments or scale.space not in moments["mean"]:
        return None
    own = moments["mean"][scale.space], moments["std"][scale.space]
    below = scale.sign == "±"
    return [_span(*channel, below) for channel in zip(*own, scale.axes, strict=True)]


def _span(mean: float, std: float, axis: tuple[str, float, float], below: bool) -> Span:
    ends = (mean - std if below else mean, mean, mean + std)
    left, at, right = (_percent(value, axis) for value in ends)
    return Span(mean, std, at, left, round(right - left, 1))


def _percent(value: float, axis: tuple[str, float, float]) -> float:
    _, low, high = axis
    return round(min(max(100 * (value - low) / (high - low), 0.0), 100.0), 1)
