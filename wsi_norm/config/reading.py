"""How settings are read: YAML in, one line out for whatever is wrong with it."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from wsi_norm.errors import ConfigError


class Settings(BaseModel):
    """A frozen group of settings; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError("settings must be 'key: value' lines")
        for key in data:
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}{nearest(key, cls.model_fields)}")
        return data


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
