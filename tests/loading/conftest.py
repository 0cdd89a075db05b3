"""Stores with pixels, and plans of the same slides, as a run makes them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_norm import RunConfig, TileStore, run

SETTINGS: dict[str, Any] = {"tile_size": 256, "step": 128, "workers": 0, "device": "cpu"}
"""Overlapping tiles, so that a small slide has several shards."""


def make(slide: Path, output: Path, layout: str, **settings: Any) -> Path:
    """The store of a run."""
    given = {**SETTINGS, "output": output, "layout": layout, **settings}
    summary = run(slide, RunConfig.model_validate(given))
    assert TileStore.open(output / f"{slide.stem}.zarr"), summary.slides[0].error
    return output / f"{slide.stem}.zarr"


def pixels_of(samples: Any) -> np.ndarray:
    """uint8 (N, T, T, 3) of tensors (3, T, T)."""
    return torch.stack(list(samples)).permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="session")
def stored(slide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the synthetic slide, with its tiles."""
    return make(slide_path, tmp_path_factory.mktemp("stored"), "tiles")


@pytest.fixture(scope="session")
def plan(slide_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same slide, without."""
    return make(slide_path, tmp_path_factory.mktemp("plan"), "plan")


@dataclass(frozen=True)
class Moved:
    """A plan beside its run.json, and its slide, which lies elsewhere by now."""

    plan: Path
    slide: Path


@pytest.fixture
def moved(slide_path: Path, plan: Path, tmp_path: Path) -> Moved:
    """Nothing is where run.json says."""
    shutil.copytree(plan.parent, tmp_path / "out")
    run = tmp_path / "out" / "run.json"
    document = json.loads(run.read_text())
    document["slides"][0]["slide"] = str(tmp_path / "gone" / slide_path.name)
    run.write_text(json.dumps(document))
    (tmp_path / "archive" / "deep").mkdir(parents=True)
    slide = Path(shutil.copy(slide_path, tmp_path / "archive" / "deep"))
    return Moved(tmp_path / "out" / plan.name, slide)
