"""What a task costs beside its work: no-op shards through the runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.machine import child, facts
from benchmarks.scale import Scale


def measure(scale: Scale, output: Path) -> dict[str, Any]:
    """ms per task, and memory of the process of client and scheduler."""
    return child(
        "benchmarks.runs:schedule", timeout_s=7200, tasks=scale.tasks, workers=facts()["cores"]
    )
