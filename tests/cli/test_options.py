"""Options out of settings: each kind of field, its help, and what is handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import Field
from wsi_norm_cli.group import dashes
from wsi_norm_cli.options import SettingsCommand, joined, options_of

from wsi_norm.choices import Choices
from wsi_norm.config.fields import Chosen, Option
from wsi_norm.config.reading import Group

SHAPES = Choices("shape", round=1, square=2)


class Drawing(Group):
    needed: int = Field(description="a whole number")
    edge_px: Annotated[int, Option(("-e", "--side"), "PX")] = Field(default=0, description="edge")
    ratio: float = Field(default=1e-5, description="width by height")
    limit: Annotated[float | None, Option(metavar="X")] = Field(default=None, description="at most")
    title: str = Field(default="new", description="its name")
    file: Path | None = Field(default=None, description="where it is")
    shape: Annotated[str, Chosen(SHAPES)] = Field(default="round", description="outline")
    mode: Literal["ink", "oil"] | None = Field(default=None, description="how")
    layers: tuple[int, ...] = Field(default=(), description="which")
    loud: bool = Field(default=False, description="say more")
    frame: bool = Field(default=True, description="draw a frame")
    wipe: Annotated[bool, Option(off="--keep")] = Field(default=False, description="start anew")


@click.command(cls=SettingsCommand, context_settings={"token_normalize_func": dashes})
@options_of(Drawing, Drawing.model_fields)
@click.argument("rest", nargs=-1)
def command(**options: Any) -> None:
    """Do nothing."""


def given(*arguments: str) -> dict[str, Any]:
    """What is not None."""
    parameters = command.make_context("x", list(arguments)).params
    return {name: value for name, value in parameters.items() if value not in (None, ())}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--edge-px", "3"], {"edge_px": 3}),
        (["--edge_px", "0"], {"edge_px": 0}),
        (["-e", "3"], {"edge_px": 3}),
        (["--side", "3"], {"edge_px": 3}),
        (["--ratio", "2"], {"ratio": 2.0}),
        (["--limit", "1e3"], {"limit": 1000.0}),
        (["--title", "a b"], {"title": "a b"}),
        (["--file", "a/b"], {"file": Path("a/b")}),
        (["--shape", "square"], {"shape": "square"}),
        (["--mode", "oil"], {"mode": "oil"}),
        (["--layers", "1,2"], {"layers": (1, 2)}),
        (["--layers", "1", "2", "--loud"], {"layers": (1, 2), "loud": True}),
        (["--frame"], {"frame": True}),
        (["--no-frame"], {"frame": False}),
        (["--wipe"], {"wipe": True}),
        (["--keep"], {"wipe": False}),
    ],
    ids=" ".join,
)
def test_what_is_given_is_handed_on(arguments: list[str], expected: dict[str, Any]) -> None:
    assert given(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--edge-px", "x"], "'x' is not a valid integer"),
        (["--shape", "oval"], "'oval' is not one of 'round', 'square'"),
        (["--mode", "pen"], "'pen' is not one of 'ink', 'oil'"),
        (["--layers", "1,x"], "'1,x' is not a list of numbers"),
        (["--no-loud"], "No such option"),
    ],
)
def test_what_is_no_value(arguments: list[str], words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        given(*arguments)


@pytest.mark.parametrize(
    "line",
    [
        "--needed INTEGER a whole number --edge-px",
        "-e, --edge-px, --side PX edge [default: 0]",
        "--ratio FLOAT width by height [default: 1e-05]",
        "--limit X at most --title",
        "--title TEXT its name [default: new]",
        "--file PATH where it is --shape",
        "--shape [round|square] outline [default: round]",
        "--mode [ink|oil] how --layers",
        "--layers NUMBERS which --loud",
        "--loud say more --frame",
        "--frame / --no-frame draw a frame [default: frame]",
        "--wipe / --keep start anew [default: keep]",
    ],
)
def test_the_help(line: str) -> None:
    text = CliRunner().invoke(command, ["--help"]).output.replace("-e, ", "").split()
    assert line.replace("-e, ", "") in " ".join(text)


def test_short_names_are_in_the_help() -> None:
    assert "-e, --edge-px" in CliRunner().invoke(command, ["--help"]).output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--gpus", "0", "1", "a.svs"], ["--gpus", "0,1", "a.svs"]),
        (["--gpus", "2", "--mpp", "1"], ["--gpus", "2", "--mpp", "1"]),
        (["a.svs", "--gpus", "0", "1", "2"], ["a.svs", "--gpus", "0,1,2"]),
        (["--gpus", "0,1", "2"], ["--gpus", "0,1,2"]),
        (["--gpus", "0", "1x"], ["--gpus", "0", "1x"]),
        (["1", "2"], ["1", "2"]),
        (["--mpp", "1", "2"], ["--mpp", "1", "2"]),
    ],
)
def test_numbers_behind_a_list_are_joined(arguments: list[str], expected: list[str]) -> None:
    assert joined(arguments, {"--gpus"}) == expected


def test_a_kind_of_setting_without_options_is_named() -> None:
    class Odd(Group):
        table: dict[str, int] = {}

    with pytest.raises(TypeError, match="table: no option can be derived from"):
        options_of(Odd, ["table"])
