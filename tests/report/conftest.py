"""Summaries of made-up slides, and a store with pictures for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import create_store, store_meta
from wsi_norm.report import RunSummary, SlideResult
from wsi_norm.stages import Seconds, Stage
from wsi_norm.store import TileFlag

GOOD = SlideResult(
    name='a, "b"\nä',
    slide="/s/a.svs",
    store="/o/a.zarr",
    status="done",
    warnings=("one", "two; three"),
    counts={"tiles": 100, "unreadable": 0, "passed_through": 3, "edge": 10},
    seconds=4.0,
    spent=Seconds(
        wall=dict(zip(Stage, (0.25, 1.23456, 2.0, 0.5), strict=True)),
        cpu=dict(zip(Stage, (0.2, 1.0, 1.9, 0.25), strict=True)),
    ),
    tiles_written=60,
)
DAMAGED = SlideResult(
    name="c",
    slide="/s/c.svs",
    store="/o/c.zarr",
    status="damaged",
    error="/s/c.svs: 2 of 50 tiles cannot be read",
    counts={"tiles": 50, "unreadable": 2, "passed_through": 0, "edge": 0},
    unreadable_at=((960, 1440), (1200, 1440)),
    seconds=1.0,
    spent=Seconds({Stage.READING: 1.0}),
    tiles_written=50,
)
FAILED = SlideResult(
    name="d",
    slide="/s/d.svs",
    store="/o/d.zarr",
    status="failed",
    error="/s/d.svs: the file is empty; copy it again",
    traceback="Traceback\n  ...",
)


def make_summary(*slides: SlideResult, **changes: Any) -> RunSummary:
    facts: dict[str, Any] = {
        "seconds": 10.0004,
        "seconds_starting": 1.5,
        "threads": 2,
        "peak_memory_bytes": {"host:1": 1000},
        "settings": {"output": Path("/o"), "mpp": 0.5},
        "model": {"sha256": "1" * 64},
        "versions": {"numpy": "2"},
        "started": "2026-01-02T03:04:05+00:00",
    }
    return RunSummary(slides=slides, **(facts | changes))


@pytest.fixture
def good() -> SlideResult:
    """Done."""
    return GOOD


@pytest.fixture
def damaged() -> SlideResult:
    """Two tiles were unreadable."""
    return DAMAGED


@pytest.fixture
def failed() -> SlideResult:
    """Not a slide."""
    return FAILED


@pytest.fixture(name="make_summary")
def make_summary_fixture() -> Callable[..., RunSummary]:
    """RunSummary of slides, by the facts above or others."""
    return make_summary


META = store_meta(
    slide={
        "size_bytes": 5_000_000,
        "width_px": 6400,
        "height_px": 4800,
        "mpp_um": 0.2525,
        "mpp_source": "default",
    },
    tiling={
        "downsample": 2.0,
        "level_width_px": 6400,
        "level_height_px": 4800,
        "tiles_per_shard": 64,
    },
    model={"sha256": "2" * 64, "provenance": {"training": "none: from a store"}},
    software={},
    statistics={
        "mean": {"rgb": [0.5, 0.25, 1.0], "lab": [50.0, 30.0, -15.0]},
        "std": {"rgb": [0.1, 0.1, 0.1], "lab": [10.0, 6.0, 3.0]},
        "white": [0.95, 0.95, 0.95],
        "tissue_pixels": 1000,
    },
)
"""Of a slide of 6400 x 4800 px with tiles of 16 px, normalised by a checkpoint."""


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """A complete store: 30 tiles, 25 of them unreadable, tissue in the left half, grey after."""
    number = 30
    rng = np.random.default_rng(1)
    tissue = np.zeros((30, 40), bool)
    tissue[5:25, 5:20] = True
    store = create_store(
        tmp_path / "case.zarr",
        number,
        META,
        coords=np.array([(32 * row, 4000) for row in range(number)], np.int64),
        tissue_fraction=np.ones(number, np.float32),
        tissue_mask=tissue,
        mask_downsample=(160.0, 160.0),
        thumbnail=rng.integers(0, 256, (300, 400, 3), np.uint8),
        thumbnail_normalized=np.full((300, 400, 3), 128, np.uint8),
    )
    flags = np.where(np.arange(number) < 25, TileFlag.UNREADABLE, TileFlag.EDGE).astype(np.uint8)
    store.write_shard(0, np.zeros((number, 16, 16, 3), np.uint8), flags)
    store.finish()
    return store.path


@pytest.fixture
def stored(store_path: Path) -> SlideResult:
    """The result of that store."""
    return SlideResult(
        name="case",
        slide="/s/case.svs",
        store=str(store_path),
        status="damaged",
        error="/s/case.svs: 25 of 30 tiles cannot be read",
        counts={"tiles": 30, "unreadable": 25, "passed_through": 0, "edge": 5},
        unreadable_at=((0, 4000),),
        seconds=2.0,
        spent=Seconds({Stage.PLANNING: 1.0}),
        tiles_written=30,
    )


@pytest.fixture
def trained() -> dict[str, Any]:
    """What a summary says of a checkpoint."""
    return {
        "checkpoint": "/m/model.safetensors",
        "sha256": "2" * 64,
        "preset": "paper",
        "target": {
            "mean": {"rgb": [0.7, 0.5, 0.6], "lab": [61.5, 29.25, -14.5]},
            "std": {"rgb": [0.1, 0.1, 0.1], "lab": [14.5, 7.75, 6.25]},
        },
        "provenance": {"training": "5 epochs", "licence": "CC0"},
    }
