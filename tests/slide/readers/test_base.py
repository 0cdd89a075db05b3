"""Errors translated, files closed, transparency on white, and what a property means."""

import math

import numpy as np
import pytest
from PIL import Image

from wsi_norm.errors import ReadError
from wsi_norm.geometry import Box
from wsi_norm.slide.levels import StoredLevel
from wsi_norm.slide.readers.base import (
    Declined,
    Refused,
    Stated,
    StatedMpp,
    closed_on_failure,
    on_white,
    positive_number,
    translated,
)


@pytest.mark.parametrize(
    ("foreign", "words"),
    [
        (KeyError("a"), "'a'"),
        (ValueError("two\n  lines"), "two lines"),
        (IndexError(), "IndexError"),
        (StopIteration(), "StopIteration"),
    ],
)
def test_known_errors_become_ours(foreign: Exception, words: str) -> None:
    kinds = (LookupError, ValueError, StopIteration)
    with pytest.raises(ReadError) as caught, translated(ReadError, *kinds):
        raise foreign
    assert str(caught.value) == words
    assert caught.value.__cause__ is foreign


@pytest.mark.parametrize("other", [TypeError("a"), Refused("b"), Declined("c")])
def test_others_pass(other: Exception) -> None:
    with pytest.raises(type(other)) as caught, translated(ReadError, LookupError, ValueError):
        raise other
    assert caught.value is other


class File:
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_file_is_closed_on_any_failure() -> None:
    file = File()
    with closed_on_failure(file):
        pass
    assert file.closed == 0
    for error in (Refused("a"), TypeError("b"), KeyboardInterrupt()):
        with pytest.raises(type(error)), closed_on_failure(file := File()):
            raise error
        assert file.closed == 1


@pytest.mark.parametrize(
    ("value", "number"),
    [("0.5", 0.5), (20, 20.0), (None, None), ("x", None), ([], None), (0, None), ("-1", None)]
    + [(value, None) for value in ("nan", "inf", math.inf)],
)
def test_positive_numbers(value: object, number: float | None) -> None:
    assert positive_number(value) == number


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ("0.5", "0.52", (0.5, 0.52)),
        ("0.5", None, (0.5, 0.5)),
        ("x", "0.25", (0.25, 0.25)),
        (None, "nan", None),
    ],
)
def test_what_a_library_states(
    x: str | None, y: str | None, expected: tuple[float, float] | None
) -> None:
    properties = {
        "a.mpp-x": x,
        "a.mpp-y": y,
        "b.mpp-x": "7",
        "a.vendor": "v",
        "a.level[1].tile-width": "240",
        "a.level[1].tile-height": "256",
    }
    stated = Stated("a", properties, ((6, 4), (3, 2)), (1, 2.0), ("label", "macro"))
    assert stated.mpp("there") == (None if expected is None else StatedMpp(*expected, "there"))
    assert (stated.get("vendor"), stated.get("objective-power"), stated.plain) == ("v", None, False)
    assert stated.levels() == [StoredLevel(0, 6, 4, 1.0), StoredLevel(1, 3, 2, 2.0, (240, 256))]


@pytest.mark.parametrize(
    ("x", "y", "square"), [(0.5, 0.5, True), (0.5, 0.52, True), (0.5, 0.53, False)]
)
def test_square_pixels(x: float, y: float, square: bool) -> None:
    assert StatedMpp(x, y, "there").isotropic is square
    assert StatedMpp(x, y, "there").mean == pytest.approx((x + y) / 2)


def test_transparency_is_composed_on_white() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    pixels = on_white(Image.fromarray(rgba))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (9, 7, 3))
    assert np.abs(pixels - expected).max() <= 1  # Pillow rounds in integers
    opaque = np.dstack([rgba[..., :3], np.full((9, 7), 255, np.uint8)])
    np.testing.assert_array_equal(on_white(Image.fromarray(opaque)), rgba[..., :3])


@pytest.mark.parametrize(
    ("stated", "bounds"),
    [
        (("2000", "3000", "400", "500"), Box(2000, 3000, 2400, 3500)),
        (("0", "0", "400", "500"), Box(0, 0, 400, 500)),
        ((2000, 3000, 400, 500), Box(2000, 3000, 2400, 3500)),
        ((None, None, None, None), None),
        (("2000", "3000", "400", None), None),
        (("2000", "3000", "400", "high"), None),
        (("2000", "3000", "0", "500"), None),
    ],
)
def test_bounds(stated: tuple[object, ...], bounds: Box | None) -> None:
    keys = [f"openslide.bounds-{name}" for name in ("x", "y", "width", "height")]
    properties = {key: value for key, value in zip(keys, stated, strict=True) if value is not None}
    found = Stated("openslide", properties, ((6000, 4000),), (1.0,), ()).bounds
    assert found == bounds
