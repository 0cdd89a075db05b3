"""Command-line options derived from settings: a field says name, type, help and default."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from wsi_norm.config.fields import Chosen, Option
from wsi_norm.config.reading import Group

from .group import FILE

F = TypeVar("F", bound=Callable[..., Any])


class Numbers(click.ParamType):  # type: ignore[type-arg] # generic only in new versions of click
    """Whole numbers with commas between them."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """A tuple of them."""
        try:
            return tuple(int(number) for number in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers", param, ctx)


TYPES: dict[Any, click.ParamType[Any]] = {
    Path: FILE,
    int: click.INT,
    float: click.FLOAT,
    str: click.STRING,
    tuple[int, ...]: Numbers(),
}


class Registered(click.Choice):  # type: ignore[type-arg] # as above
    """Names of a registry as it is when the option is parsed: one's own may have been added."""

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        super().__init__(chosen.names)

    @property
    def choices(self) -> tuple[str, ...]:
        """The names."""
        return tuple(self._chosen.names)

    @choices.setter
    def choices(self, names: Iterable[str]) -> None:
        """What click takes down when it begins is not kept."""


class SettingsCommand(click.Command):
    """A command that takes `--gpus 0 1`: other tools of the field take several numbers there."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the numbers behind an option that takes a list, before click sees them."""
        lists = {name for p in self.params if isinstance(p.type, Numbers) for name in p.opts}
        return super().parse_args(ctx, joined(args, lists))


def joined(arguments: Iterable[str], lists: Iterable[str]) -> list[str]:
    """`--gpus 0 1` as `--gpus 0,1`, for each option in `lists`."""
    result: list[str] = []
    for argument in arguments:
        in_list = len(result) >= 2 and result[-2] in lists
        if in_list and argument.isdigit() and result[-1].replace(",", "").isdigit():
            result[-1] += f",{argument}"
        else:
            result.append(argument)
    return result


def options_of(group: type[Group], names: Iterable[str]) -> Callable[[F], F]:
    """Decorator: an option per setting, in this order; None is passed where it is not given."""
    options = [_option(name, group.model_fields[name]) for name in names]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[F], F]:
    said = next((mark for mark in field.metadata if isinstance(mark, Option)), Option())
    on = flag = f"--{name.replace('_', '-')}"
    default = field.default
    kind: dict[str, Any]
    if field.annotation is bool:
        off = said.off or (f"--no-{on[2:]}" if default else None)
        flag = f"{on}/{off}" if off else on
        default, kind = (on if default else off or "")[2:], {"is_flag": True}
    else:
        kind = {"type": _type(name, field), "metavar": said.metavar}
    text = str(field.description) + _shown(default)
    return click.option(name, flag, *said.names, default=None, help=text, **kind)


def _shown(default: Any) -> str:
    if default in (None, (), "", PydanticUndefined):
        return ""
    return f" [default: {f'{default:g}' if isinstance(default, float) else default}]"


def _type(name: str, field: FieldInfo) -> click.ParamType[Any]:
    for mark in field.metadata:
        if isinstance(mark, Chosen):
            return Registered(mark)
    kind: Any = field.annotation
    if get_origin(kind) in {Union, UnionType}:
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind not in TYPES:
        raise TypeError(f"{name}: no option can be derived from {kind}")
    return TYPES[kind]
