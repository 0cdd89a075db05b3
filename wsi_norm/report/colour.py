"""Measured colour against the template's, as places on the axes of CIELAB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsi_norm.lstainnorm import Template

AXES = (("L*", 0.0, 100.0), ("a*", -60.0, 60.0), ("b*", -60.0, 60.0))
"""Channel, and the range that is drawn: the same everywhere, so that slides can be compared."""

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
    slide: Span | None
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


def channels(statistics: Mapping[str, Any] | None, target: Template | None) -> tuple[Channel, ...]:
    """L*, a* and b* of a slide beside the target; empty if the slide was not measured."""
    if not statistics or "lab" not in statistics["mean"]:
        return ()
    slide = _spans(statistics["mean"]["lab"], statistics["std"]["lab"])
    aim = _target(target)
    return tuple(Channel(AXES[i][0], slide[i], aim[i]) for i in range(3))


def strips(
    slides: Iterable[tuple[int, str, Sequence[Channel]]], target: Template | None
) -> tuple[Strip, ...]:
    """Every measured slide (index, name, channels) on each axis; empty for fewer than two."""
    measured = [(index, name, own) for index, name, own in slides if own]
    if len(measured) < 2:
        return ()
    aim = _target(target)
    return tuple(
        Strip(name, low, high, aim[i], tuple(_dots(measured, i)))
        for i, (name, low, high) in enumerate(AXES)
    )


def swatch(moments: Mapping[str, Any] | Template | None) -> str | None:
    """Mean colour as `#rrggbb`; None without one."""
    mean = moments.mean if isinstance(moments, Template) else (moments or {}).get("mean", {})
    if "rgb" not in mean:
        return None
    return "#" + "".join(f"{round(255 * min(max(value, 0.0), 1.0)):02x}" for value in mean["rgb"])


def _dots(measured: Iterable[tuple[int, str, Sequence[Channel]]], channel: int) -> Iterable[Dot]:
    for index, name, own in measured:
        span = own[channel].slide
        assert span is not None
        yield Dot(index, name, span.mean, span.at, round(15 + 70 * (index * GOLDEN % 1), 1))


def _target(target: Template | None) -> Sequence[Span | None]:
    if target is None or "lab" not in target.mean:
        return (None, None, None)
    return _spans(target.mean["lab"], target.std["lab"])


def _spans(mean: Sequence[float], std: Sequence[float]) -> list[Span]:
    return [_span(*moments) for moments in zip(mean, std, AXES, strict=True)]


def _span(mean: float, std: float, axis: tuple[str, float, float]) -> Span:
    left, at, right = (_percent(value, axis) for value in (mean - std, mean, mean + std))
    return Span(mean, std, at, left, round(right - left, 1))


def _percent(value: float, axis: tuple[str, float, float]) -> float:
    _, low, high = axis
    return round(min(max(100 * (value - low) / (high - low), 0.0), 100.0), 1)
