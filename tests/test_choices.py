"""Registries: names, what they stand for, and that nothing is imported to list them."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest

from wsi_norm.choices import (
    CODECS,
    DEVICE,
    EXPORTS,
    NORMALIZERS,
    READERS,
    SEGMENTERS,
    Choices,
)


def test_places_are_imported_on_use() -> None:
    shapes = Choices("shape", here=3, function="math:hypot", method="fractions:Fraction.from_float")
    assert [*shapes] == ["here", "function", "method"]
    assert len(shapes) == 3
    assert shapes["here"] == 3
    assert shapes["function"](3, 4) == 5
    assert shapes["method"](0.5) == Fraction(1, 2)
    with pytest.raises(KeyError):
        shapes["nowhere"]


def test_a_choice_of_ones_own() -> None:
    shapes = Choices("shape", here=3)
    shapes.add("there", "math:pi")
    assert "there" in shapes
    assert shapes["there"] == pytest.approx(3.14159, abs=1e-5)
    shapes.remove("there")
    assert [*shapes] == ["here"]


def test_names_are_asked_without_an_import() -> None:
    shapes = Choices("shape", lost="no_such_module:thing")
    assert "lost" in shapes
    with pytest.raises(ModuleNotFoundError):
        shapes["lost"]


@pytest.mark.parametrize(
    ("choices", "name"),
    [
        (choices, name)
        for choices in (NORMALIZERS, READERS, SEGMENTERS, CODECS, EXPORTS)
        for name in choices
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_every_name_stands_for_something(choices: Choices, name: str) -> None:
    assert choices[name] is not None


def test_listing_imports_nothing() -> None:
    script = (
        "import sys\n"
        "from wsi_norm import choices\n"
        "[*choices.READERS, *choices.NORMALIZERS, *choices.SEGMENTERS, *choices.CODECS]\n"
        "ours = {name for name in sys.modules if name.startswith('wsi_norm.')}\n"
        "assert ours == {'wsi_norm.choices'}, ours\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "index"), [("auto", None), ("cpu", None), ("cuda", None), ("cuda:3", "3")]
)
def test_devices(name: str, index: str | None) -> None:
    match = DEVICE.fullmatch(name)
    assert match is not None
    assert match[1] == index
