"""What a field says of itself: names out of a registry, devices."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import ValidationError

from wsi_norm.choices import Choices
from wsi_norm.config.fields import Chosen, Device
from wsi_norm.config.reading import Group, first_problem

SHAPES = Choices("shape", round=1, square=2, secret=3)


class Drawing(Group):
    shape: Annotated[str, Chosen(SHAPES, also=("any",), but=("secret",))] = "any"
    other: Annotated[str, Chosen(SHAPES)] | None = None
    device: Device = "auto"


def problem(**data: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(data)
    return first_problem(caught.value)


@pytest.mark.parametrize("name", ["any", "round", "square"])
def test_names_of_the_registry(name: str) -> None:
    assert Drawing(shape=name).shape == name


def test_other_names_are_refused_in_one_line() -> None:
    assert problem(shape="sqare") == (
        "shape: 'sqare' is none of any, round, square; did you mean 'square'?"
    )
    assert problem(shape="secret").startswith("shape: 'secret' is none of any, round, square")
    assert problem(shape="xyz") == "shape: 'xyz' is none of any, round, square"
    assert problem(shape=["round"]) == "shape: Input should be a valid string"
    assert "'any' is none of round, square, secret" in problem(other="any")


def test_what_is_added_later_can_be_chosen() -> None:
    SHAPES.add("oval", 4)
    try:
        assert Drawing(shape="oval", other="oval").other == "oval"
    finally:
        SHAPES.remove("oval")
    assert "'oval' is none of" in problem(shape="oval")


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices(name: str) -> None:
    assert Drawing(device=name).device == name


@pytest.mark.parametrize("name", ["", "tpu", "mps", "cuda:", "cuda:-1", "cuda:0 ", "CPU"])
def test_unknown_devices(name: str) -> None:
    assert problem(device=name).startswith(f"device: {name!r} is none of auto, cpu, cuda")
