"""How settings are read: YAML in, one line out for whatever is wrong with it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from wsi_norm.errors import ConfigError
from wsi_norm.location import read_bounded

LARGEST_BYTES = 1 << 18
"""Of a file of settings; ten times any that people write."""
MOST_VALUES = 100_000
"""In a file of settings, with what its aliases (`*name`) stand for."""


class Group(BaseModel):
    """A frozen group of settings; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    sugar: ClassVar[Mapping[str, str]] = {}
    """Keys that say a setting in another way, and which one."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError("settings must be 'key: value' lines")
        for key in data:
            if key not in cls.model_fields:
                hint = nearest(key, [*cls.model_fields, *cls.sugar])
                raise ValueError(f"unknown key {key!r}{hint}")
        return data


G = TypeVar("G", bound=Group)


def validated(
    group: type[G], file: Path | None, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> G:
    """Settings that stand in a file; options that are not None rule over them.

    Raises
    ------
    ConfigError
        One line that names the key, and the file where the value is the file's.
    """
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return group.model_validate({**settings, **given})
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        of_file = file is not None and not (where and where[0] in given)
        raise ConfigError((f"{file}: " if of_file else "") + first_problem(error)) from error


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping; ConfigError with the file's name for anything else."""
    try:
        text = read_bounded(file, LARGEST_BYTES).decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: cannot read the file: not UTF-8 ({error.reason})") from error
    try:
        data = _constructed(text)
    except RecursionError as error:
        raise ConfigError(f"{file}: not YAML: too deeply nested") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{file}: expected 'key: value' lines")
    return data


def _constructed(text: str) -> Any:
    """What `yaml.safe_load` makes of a text, unless aliases make it endless."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node holds, aliases followed; infinity if it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        inside = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for entry in inside for part in (entry if type(entry) is tuple else (entry,)))
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def first_problem(error: ValidationError) -> str:
    """One line of the first thing that pydantic found."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def nearest(key: str, known: Collection[str]) -> str:
    """A hint at the known name that is nearest to `key`; empty where none is."""
    close = difflib.get_close_matches(str(key).replace("-", "_"), [*known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
