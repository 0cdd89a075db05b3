"""How cost grows: with tiles, with the tile's area, with slides, with workers. Log-log slopes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import layer, slides
from benchmarks.machine import child, facts
from benchmarks.normalizers import EAGER, KERNEL
from benchmarks.scale import Scale


def measure(scale: Scale, output: Path) -> dict[str, Any]:
    """Four series, each a list of (size, seconds or ms, note) with the fitted exponent."""
    cores = facts()["cores"]
    found = layer.compare([KERNEL, EAGER], scale.growth_tile_edges, 5, output, scale)
    series = {
        f"ms a tile against its area in px, {name}": [
            (int(edge) ** 2, ms, f"{edge} px") for edge, ms in edges.items()
        ]
        for name, edges in found["ms"].items()
    }
    whole = [slides.slide(output, edge) for edge in scale.growth_edges]
    series["seconds against tiles (one slide, one worker, after the first shard)"] = [
        _point("later_tiles", _run([slide], 1, output)) for slide in whole
    ]
    small = slides.slide(output, scale.small_slide_edge)
    series[f"seconds against slides ({cores} workers)"] = [
        _point(number, _run(_copies(small, number), cores, output))
        for number in scale.growth_slides
    ]
    series["seconds against workers (tile statistics)"] = [
        _point(number, _run([whole[-1]], number, output, statistics="tile"))
        for number in sorted({1, cores})
    ]
    return {
        "series": {
            name: {"points": points, "exponent": _slope(points)} for name, points in series.items()
        }
    }


def _run(paths: list[Path], workers: int, output: Path, **options: Any) -> dict[str, Any]:
    scratch = output / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    names = [str(path) for path in paths]
    answer = child(
        "benchmarks.runs:normalize", slides=names, output=str(scratch), workers=workers, **options
    )
    shutil.rmtree(scratch, ignore_errors=True)
    print(len(paths), "slides", workers, "workers", answer.get("steady_s") or answer)
    return answer


def _point(size: str | int, answer: dict[str, Any]) -> Any:
    """(size, seconds, note); of a slide's later tiles, seconds after its first shard."""
    if "failed" in answer:
        return None, None, answer["failed"]
    seconds = answer["later_s" if size == "later_tiles" else "steady_s"]
    note = f"{answer['tiles']} tiles, largest worker {answer['peak_worker_mb']:.0f} MB"
    return answer[size] if isinstance(size, str) else size, seconds, note


def _copies(slide: Path, number: int) -> list[Path]:
    """The slide under as many names."""
    copies = [slide.with_name(f"{slide.stem}_copy_{index}.svs") for index in range(number)]
    for copy in copies:
        if not copy.exists():
            os.link(slide, copy)
    return copies


def _slope(points: list[Any]) -> float | None:
    good = [(np.log(size), np.log(cost)) for size, cost, _ in points if size]
    return float(np.polyfit(*zip(*good, strict=True), 1)[0]) if len(good) > 1 else None
