"""Memory of worker processes, few and many: the default job over copies of a small slide."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks import commands, slides
from benchmarks.scale import Scale


def measure(scale: Scale, output: Path) -> dict[str, Any]:
    """Proportional set size in MB of workers (median, largest), and of all other processes."""
    slide = slides.slide(output, scale.memory_slide_edge)
    rows, failed = {}, {}
    for workers in scale.memory_workers:
        copies = slides.copies(slide, max(8, 2 * workers))
        answer = commands.run(copies, output / "scratch", workers, look_s=0.5)
        if "failed" in answer:
            failed[f"{workers} workers"] = answer["failed"]
            continue
        found = answer["workers_mb"]
        rows[str(workers)] = {
            "seen": len(found),
            "median_mb": statistics.median(found),
            "largest_mb": found[-1],
            "other_mb": answer["other_mb"],
            "tiles": answer["tiles"],
        }
        print(workers, "workers:", rows[str(workers)], flush=True)
    return {"rows": rows, "missing": failed}
