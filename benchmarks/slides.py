"""Generated slides and their tissue tiles, kept in the output folder between goes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import child

MPP_UM = 0.25


def slide(output: Path, edge: int) -> Path:
    """A synthetic H&E slide of edge x edge px at 0.25 um/px."""
    path = output / "slides" / f"{edge}.svs"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        _asked("benchmarks.slides:draw", path=str(path), edge=edge)
    return path


def sample(output: Path, edge: int, tile_edge: int) -> np.ndarray:
    """Four tissue tiles of a slide, uint8 (4, T, T, 3)."""
    path = output / "slides" / f"{edge}_tiles_{tile_edge}.npy"
    if not path.exists():
        at = str(slide(output, edge))
        _asked("benchmarks.slides:cut", slide=at, tile_edge=tile_edge, into=str(path))
    return np.load(path)


def tissue(output: Path, edge: int, mpp_um: float = MPP_UM) -> list[list[int]]:
    """Level-0 corners of the 256 px tiles that wsi-norm keeps of a slide, in its order."""
    path = output / "slides" / f"{edge}_tissue_{mpp_um:g}.json"
    if not path.exists():
        asked = _asked("benchmarks.slides:plan", slide=str(slide(output, edge)), mpp_um=mpp_um)
        path.write_text(json.dumps(asked["corners"]))
    return json.loads(path.read_text())


def copies(slide: Path, number: int) -> list[Path]:
    """A slide under as many names."""
    named = [slide.with_name(f"{slide.stem}_copy_{index}.svs") for index in range(number)]
    for copy in named:
        if not copy.exists():
            os.link(slide, copy)
    return named


def draw(path: str, edge: int) -> dict[str, Any]:
    from wsi_norm.synthetic import write_synthetic_slide

    draft = write_synthetic_slide(Path(path).with_suffix(".draft"), width=edge, height=edge)
    draft.rename(path)
    return {}


def cut(slide: str, tile_edge: int, into: str) -> dict[str, Any]:
    from wsi_norm.pipeline.tiles import read_tiles, spread

    opened, planned = _planned(slide, tile_edge, min_tissue=0.5)
    np.save(into, read_tiles(opened, planned.grid, spread(planned.tiles, 4))[0])
    return {}


def plan(slide: str, mpp_um: float) -> dict[str, Any]:
    return {"corners": _planned(slide, 256, mpp=mpp_um)[1].coords.tolist()}


def _planned(path: str, tile_edge: int, **options: Any) -> tuple[Any, Any]:
    from wsi_norm.config import run_config
    from wsi_norm.plan import plan_slide
    from wsi_norm.slide import open_slide
    from wsi_norm.sources import SlideSource

    config = run_config(tile_size=tile_edge, **{"mpp": MPP_UM, **options})
    opened = open_slide(path)
    return opened, plan_slide(opened, SlideSource(Path(path), "slide"), config)


def _asked(function: str, **arguments: Any) -> dict[str, Any]:
    answer = child(function, timeout_s=1800, **arguments)
    if "failed" in answer:
        raise SystemExit(f"{function}: {answer['failed']}")
    return answer
