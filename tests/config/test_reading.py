"""Groups of settings, and the hints at what was meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from wsi_norm.config.reading import Group, first_problem, nearest, read_yaml, validated
from wsi_norm.errors import ConfigError


class Inner(Group):
    size_px: int = Field(default=1, ge=1)


class Outer(Group):
    sugar = {"percent": "ratio"}

    inner: Inner = Inner()
    ratio: float = 0.5


def problem(data: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    return first_problem(caught.value)


def test_problems_say_where_and_what() -> None:
    assert problem({"inner": {"size_px": 0}}).startswith("inner.size_px: Input should be greater")
    assert problem({"inner": {"size": 2}}) == "inner: unknown key 'size'; did you mean 'size_px'?"
    assert problem({"ratoi": 2}) == "unknown key 'ratoi'; did you mean 'ratio'?"
    assert problem({"percnet": 2}) == "unknown key 'percnet'; did you mean 'percent'?"
    assert problem({"zzz": 2}) == "unknown key 'zzz'"
    assert problem({"inner": None}) == "inner: settings must be 'key: value' lines"
    assert problem([1]) == "settings must be 'key: value' lines"
    assert problem({"ratio": float("nan")}).startswith("ratio: ")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().ratio = 1.0  # type: ignore[misc]


def test_options_rule_and_are_not_blamed_on_the_file() -> None:
    file = Path("a.yaml")
    assert validated(Outer, file, {"ratio": 2}, {"ratio": 0, "inner": None}) == Outer(ratio=0)

    def refused(settings: dict[str, object], **options: object) -> str:
        with pytest.raises(ConfigError) as caught:
            validated(Outer, file, settings, options)
        return str(caught.value)

    assert refused({"ratio": "x"}).startswith("a.yaml: ratio: ")
    assert refused({"ratio": 1}, ratio="x").startswith("ratio: ")
    assert refused({"inner": {"size_px": 0}}, ratio=1).startswith("a.yaml: inner.size_px: ")
    assert refused({}, inner={"size_px": 0}).startswith("inner.size_px: ")
    assert refused({"zzz": 1}, ratio=1) == "a.yaml: unknown key 'zzz'"


def test_nearest() -> None:
    assert nearest("tile-size", ["tile_size", "size"]) == "; did you mean 'tile_size'?"
    assert nearest("xyz", ["tile_size"]) == ""
    assert nearest("a", []) == ""


def test_read_yaml(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: {b: [1, x]}\n")
    assert read_yaml(file) == {"a": {"b": [1, "x"]}}
    file.write_text("# nothing\n")
    assert read_yaml(file) == {}
    for text, words in (("a: [", "not YAML"), ("- a\n", "expected 'key: value' lines")):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_yaml(file)
        assert str(caught.value).startswith(f"{file}: {words}")
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read the file"):
        read_yaml(tmp_path / "none.yaml")


LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10)
)


@pytest.mark.parametrize("text", [LAUGHS, MERGED, "a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_aliases_that_stand_for_too_much_are_refused(tmp_path: Path, text: str) -> None:
    """A billion laughs, and what holds itself: merging keys (`<<`) would unfold them."""
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"s\.yaml: not YAML: its aliases stand for more than"):
        read_yaml(file)


def test_aliases_of_settings_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("base: &base {mpp: 0.5, tile_size: 256}\nfine: {<<: *base, mpp: 0.25}\n")
    assert read_yaml(file)["fine"] == {"mpp": 0.25, "tile_size": 256}


@pytest.mark.parametrize("text", ["!!int ''", "!!bool x", "!!timestamp x", "9" * 5000])
def test_values_that_are_not_of_their_tag(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"a: {text}")
    with pytest.raises(ConfigError, match="not YAML") as caught:
        read_yaml(file)
    assert "\n" not in str(caught.value)


def test_a_pipe_and_a_flood_are_no_settings(tmp_path: Path) -> None:
    """Neither is waited for, nor read to its end."""
    pipe, flood = tmp_path / "pipe", tmp_path / "flood"
    os.mkfifo(pipe)
    with flood.open("wb") as file:
        file.truncate(1 << 20)
    for path, reason in ((pipe, "a pipe or a device"), (flood, "larger than 0.25 MiB")):
        with pytest.raises(ConfigError, match=f"{path}: cannot read the file: {reason}"):
            read_yaml(path)
