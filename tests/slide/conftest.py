"""Fixtures: slides by name, and where the damaged one is damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import CMU, TCGA


@pytest.fixture
def slides(slide_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """A slide by name; the real ones skip where there is no shared data."""

    def path(name: str) -> Path:
        if name == "synthetic":
            return slide_path
        return request.getfixturevalue("data_dir") / {"cmu": CMU, "tcga": TCGA}[name]

    return path


@pytest.fixture(scope="session")
def rectangles(faulty: Path) -> list[tuple[int, int, int, int]]:
    """left, top, right, bottom of what is zeroed in zeroed_tiles.svs, in level-0 px."""
    stated = json.loads((faulty / "faults.json").read_text())["zeroed_tiles.svs"]
    found = [(x, y, x + width, y + height) for x, y, width, height in stated["damaged_xywh"]]
    assert len(found) == 2
    return found
