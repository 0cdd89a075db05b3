"""How cost grows: with the tile's area, with tiles, with slides. Log-log slopes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import commands, layer, slides
from benchmarks.machine import facts
from benchmarks.normalizers import DENSITY, KERNEL
from benchmarks.scale import Scale

CACHED_EDGE = 768
"""px. Of larger tiles what the paper's layer keeps, 36 bytes a px, with the bytes in and out does
not fit a third-level cache of 32 MB. Edges are multiples of the kernels' strips, 256 px."""

Point = tuple[float, float, str]


def measure(scale: Scale, output: Path) -> dict[str, Any]:
    """Series of (size, cost, note) by name, each with its exponent."""
    found = layer.compare([DENSITY, KERNEL], scale.growth_tile_edges, 5, output, scale)
    series: dict[str, list[Point]] = {}
    for name, edges in found["ms"].items():
        points = [(int(edge) ** 2, ms, f"{edge} px") for edge, ms in edges.items()]
        size = CACHED_EDGE**2
        within, beyond = ([p for p in points if (p[0] > size) == is_beyond] for is_beyond in (0, 1))
        what = f"ms a tile against its px, {name.split(',')[0]}"
        series[f"{what}, up to {CACHED_EDGE} px, where caches hold it"] = within
        series[f"{what}, beyond"] = beyond
    series["seconds against tiles (one slide, one worker, after the first shard)"] = [
        _tiles(slides.slide(output, edge), output, scale.growth_rounds)
        for edge in scale.growth_edges
    ]
    small, cores = slides.slide(output, scale.memory_slide_edge), facts()["cores"]
    series[f"seconds against more slides than one ({cores} workers, whole run)"] = _slides(
        small, scale.growth_slides, cores, output, scale.growth_rounds
    )
    return {
        "series": {
            name: {"points": points, "exponent": exponent(points)}
            for name, points in series.items()
        }
    }


def exponent(points: Sequence[Point]) -> float | None:
    """Slope of log cost against log size; None of fewer than two points."""
    good = [(math.log(size), math.log(cost)) for size, cost, _ in points if cost > 0]
    return float(np.polyfit(*zip(*good, strict=True), 1)[0]) if len(good) > 1 else None


def _tiles(slide: Path, output: Path, rounds: int) -> Point:
    goes = [_run([slide], 1, output) for _ in range(rounds)]
    memory = max(go["worker_mb"] for go in goes)
    seconds = statistics.median(go["steady_s"] for go in goes)
    return goes[0]["steady_tiles"], seconds, f"{memory:.0f} MB a worker"


def _slides(
    slide: Path, numbers: Sequence[int], workers: int, output: Path, rounds: int
) -> list[Point]:
    """What n slides more cost more than one: so the start, the same for all, is left out."""
    copies = slides.copies(slide, 1 + max(numbers))
    alone = statistics.median(_run([slide], workers, output)["whole_s"] for _ in range(rounds))
    goes = {number: _run(copies[: 1 + number], workers, output) for number in numbers}
    return [(n, go["whole_s"] - alone, f"{go['tiles']} tiles") for n, go in goes.items()]


def _run(paths: list[Path], workers: int, output: Path) -> dict[str, Any]:
    answer = commands.run(paths, output / "scratch", workers)
    if "failed" in answer:
        raise SystemExit(f"growth, {len(paths)} slides: {answer['failed']}")
    print(len(paths), "slides", workers, "workers", f"{answer['whole_s']:.1f} s", flush=True)
    return answer
