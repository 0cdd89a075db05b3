"""Measured colour against the template's, as places on the axes of CIELAB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

AXES = (("L*", 0.0, 100.0), ("a*", -60.0, 60.0), ("b*", -60.0, 60.0))
"""Channel, and the range that is drawn: the same everywhere, so that slides can be compared."""

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


def channels(statistics: Moments | None, target: Moments | None) -> tuple[Channel, ...]:
    """L*, a* and b* of a slide beside the target; empty if the slide was not measured."""
    slide, aim = _spans(statistics), _spans(target)
    if slide is None:
        return ()
    return tuple(
        Channel(name, slide[i], aim[i] if aim else None) for i, (name, _, _) in enumerate(AXES)
    )


def strips(
    slides: Iterable[tuple[int, str, Sequence[Channel]]], target: Moments | None
) -> tuple[Strip, ...]:
    """Every measured slide (index, name, channels) on each axis; empty for fewer than two."""
    measured = [(index, name, own) for index, name, own in slides if own]
    if len(measured) < 2:
        return ()
    aim = _spans(target)
    return tuple(
        Strip(name, low, high, aim[i] if aim else None, tuple(_dots(measured, i)))
        for i, (name, low, high) in enumerate(AXES)
    )


def swatch(moments: Moments | None) -> str | None:
    """Mean colour as `#rrggbb`; None without one."""
    if not moments or "rgb" not in moments["mean"]:
        return None
    rgb = moments["mean"]["rgb"]
    return "#" + "".join(f"{round(255 * min(max(value, 0.0), 1.0)):02x}" for value in rgb)


def _dots(measured: Iterable[tuple[int, str, Sequence[Channel]]], channel: int) -> Iterable[Dot]:
    for index, name, own in measured:
        span = own[channel].slide
        yield Dot(index, name, span.mean, span.at, round(15 + 70 * (index * GOLDEN % 1), 1))


def _spans(moments: Moments | None) -> list[Span] | None:
    """One per channel; None where CIELAB was not measured."""
    if not moments or "lab" not in moments["mean"]:
        return None
    lab = moments["mean"]["lab"], moments["std"]["lab"]
    return [_span(*channel) for channel in zip(*lab, AXES, strict=True)]


def _span(mean: float, std: float, axis: tuple[str, float, float]) -> Span:
    left, at, right = (_percent(value, axis) for value in (mean - std, mean, mean + std))
    return Span(mean, std, at, left, round(right - left, 1))


def _percent(value: float, axis: tuple[str, float, float]) -> float:
    _, low, high = axis
    return round(min(max(100 * (value - low) / (high - low), 0.0), 100.0), 1)
