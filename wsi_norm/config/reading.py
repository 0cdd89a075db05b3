"""How settings are read: YAML in, one line out for whatever is wrong with it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from wsi_norm.errors import ConfigError


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
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot read the file: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{file}: expected 'key: value' lines")
    return data


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
