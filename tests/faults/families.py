"""The catalogue: every family of faults by its name."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator

from tests.faults.outcomes import Outcome
from tests.faults.truth import Go

FAMILIES = (
    "kills",
    "freezes",
    "signals",
    "disks",
    "changes",
    "together",
    "limits",
    "mutants",
    "damage",
    "layouts",
    "exports",
    "hostile",
    "soak",
)
"""Modules of this folder with a function `campaign(go)`, in the order of a whole go."""


def outcomes(name: str, go: Go) -> Iterator[Outcome]:
    """What comes of a family; where the campaign itself breaks, that is an outcome, too."""
    campaign = importlib.import_module(f"tests.faults.{name}").campaign
    try:
        yield from campaign(go)
    except Exception:  # noqa: BLE001 the other families go on
        yield Outcome(f"{name}: the campaign itself", survived=False, why=traceback.format_exc())
