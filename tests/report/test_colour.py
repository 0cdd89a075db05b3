"""Where means and standard deviations lie on the axes."""

from typing import Any

import pytest

from wsi_norm.report.colour import channels, scale_of, strips, swatch

STATISTICS: dict[str, Any] = {
    "mean": {"lab": [50.0, 30.0, -70.0], "rgb": [0.5, -0.1, 1.2]},
    "std": {"lab": [10.0, 6.0, 30.0], "rgb": [0.1, 0.1, 0.1]},
}
TARGET = {"mean": {"lab": [60.0, 0.0, -60.0]}, "std": {"lab": [20.0, 12.0, 6.0]}}


def test_spans_are_in_percent_of_the_axis_and_stay_on_it() -> None:
    lightness, red, blue = channels(STATISTICS, TARGET)
    assert [channel.name for channel in (lightness, red, blue)] == ["L*", "a*", "b*"]
    assert lightness.target is not None
    assert red.target is not None
    assert (lightness.slide.left, lightness.slide.at, lightness.slide.width) == (40, 50, 20)
    assert (lightness.target.left, lightness.target.width) == (40, 40)
    assert (red.target.left, red.target.at, red.target.width) == (40, 50, 20)
    assert (blue.slide.mean, blue.slide.at, blue.slide.left) == (-70, 0, 0)
    assert blue.slide.width == pytest.approx(16.7)


def test_without_measurement_or_target() -> None:
    assert channels(None, TARGET) == ()
    assert channels({"mean": {}, "std": {}}, TARGET) == ()
    assert [channel.target for channel in channels(STATISTICS, None)] == [None] * 3
    other = {"mean": {"rgb": [0, 0, 0]}, "std": {"rgb": [1, 1, 1]}}
    assert [channel.target for channel in channels(STATISTICS, other)] == [None] * 3


def test_strips_hold_every_measured_slide() -> None:
    own = channels(STATISTICS, TARGET)
    assert strips([(1, "a", own), (2, "b", ())], TARGET) == ()
    drawn = strips([(1, "a", own), (2, "b", ()), (3, "c", own)], TARGET)
    assert [(strip.name, strip.low, strip.high) for strip in drawn] == [
        ("L*", 0, 100),
        ("a*", -60, 60),
        ("b*", -60, 60),
    ]
    assert [(dot.index, dot.name, dot.at) for dot in drawn[1].dots] == [(1, "a", 75), (3, "c", 75)]
    first, second = drawn[0].dots
    assert abs(first.height - second.height) > 5
    assert all(15 <= dot.height <= 85 for dot in drawn[0].dots)


def test_swatch() -> None:
    assert swatch(STATISTICS) == "#8000ff"
    assert swatch({"mean": {"rgb": [1, 0, 0]}, "std": {"rgb": [1, 1, 1]}}) == "#ff0000"
    assert swatch(TARGET) is None
    assert swatch(None) is None


def test_a_target_of_density_is_drawn_as_density() -> None:
    """From the median up: its band does not lie around the mark."""
    target = {"mean": {"od": [0.25, 0.75, 0.5]}, "std": {"od": [0.5, 0.75, 3.0]}}
    own = {"mean": {"od": [0.5, 1.0, 0.5]}, "std": {"od": [1.0, 1.0, 0.5]}}
    slide = {key: {**STATISTICS[key], **own[key]} for key in ("mean", "std")}
    assert scale_of(target).space == "od"
    assert scale_of(TARGET).space == scale_of(None).space == "lab"
    red, green, blue = channels(slide, target)
    assert (red.name, red.slide.left, red.slide.at, red.slide.width) == ("R", 20, 20, 40)
    assert green.target is not None
    assert (green.target.left, green.target.width) == (30, 30)
    assert blue.target is not None
    assert (blue.target.left, blue.target.width) == (20, 80)
    assert channels(STATISTICS, target) == ()
    drawn = strips([(1, "a", (red, green, blue)), (2, "b", (red, green, blue))], target)
    assert [(strip.low, strip.high) for strip in drawn] == [(0, 2.5)] * 3
    assert swatch(target) == "#c7789b"
