"""A few trials of every family of faults: all have to be survived, and none to go unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.families import FAMILIES, outcomes
from tests.faults.truth import Go

CHEAP = (
    "changes",
    "signals",
    "kills",
    "disks",
    "limits",
    "mutants",
    "damage",
    "layouts",
    "exports",
    "hostile",
    "soak",
)
"""Families that are tried in every go of the tests; the others need minutes of standing still."""


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Go:
    return Go(tmp_path_factory.mktemp("faults"), quick=True)


@pytest.mark.parametrize("family", CHEAP)
def test_nothing_is_lost_double_or_silent(go: Go, family: str) -> None:
    found = list(outcomes(family, go))
    assert found
    assert [f"{outcome.fault}: {outcome.why}" for outcome in found if not outcome.held] == []


def test_every_family_is_a_module() -> None:
    folder = Path(__file__).parent
    modules = [file for file in folder.glob("*.py") if not file.name.startswith("test_")]
    campaigns = {file.stem for file in modules if "def campaign(" in file.read_text()}
    assert campaigns == set(FAMILIES)
    assert set(CHEAP) <= set(FAMILIES)
