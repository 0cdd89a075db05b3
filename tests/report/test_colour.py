"""Where means and standard deviations lie on the axes."""

from typing import Any

import pytest

from wsi_norm.report.colour import channels, strips, swatch

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
