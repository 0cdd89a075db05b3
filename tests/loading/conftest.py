"""Stores with pixels, and plans of the same slides, as a run makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsi_norm import RunConfig, TileStore, run

SETTINGS: dict[str, Any] = {"tile_size": 256, "step": 128, "workers": 0, "device": "cpu"}
"""Overlapping tiles, so that a small slide has several shards."""

Make = Callable[..., Path]


def make(slide: Path, output: Path, layout: str, **settings: Any) -> Path:
    """The store of a run."""
    given = {**SETTINGS, "output": output, "layout": layout, **settings}
    summary = run(slide, RunConfig.model_validate(given))
    assert TileStore.open(output / f"{slide.stem}.zarr"), summary.slides[0].error
    return output / f"{slide.stem}.zarr"


@pytest.fixture(scope="session")
def stored(slide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the synthetic slide, with its tiles."""
    return make(slide_path, tmp_path_factory.mktemp("stored"), "tiles")


@pytest.fixture(scope="session")
def plan(slide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same slide, without."""
    return make(slide_path, tmp_path_factory.mktemp("plan"), "plan")
