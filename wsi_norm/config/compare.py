"""Whether settings are those of before: for whatever goes on with what is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], ignore: Collection[str] = ()
) -> list[str]:
    """What differs between two nested groups of settings.

    Parameters
    ----------
    before, now
        As `model_dump` gives them, both in one mode. A setting that is missing is None.
    ignore
        Settings ("recipe.device") and groups of them ("software") that do not count.

    Returns
    -------
    "group.setting: before != now" for each, sorted by name.
    """
    old, new = _flat(before), _flat(now)
    return [
        f"{key}: {old.get(key)} != {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not any(_is_in(key, name) for name in ignore)
    ]


def _is_in(key: str, name: str) -> bool:
    return f"{key}.".startswith(f"{name}.")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"recipe.epochs": 10, ...} of nested settings; an empty group holds none."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
