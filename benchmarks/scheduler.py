"""What a shard costs beside its work: no-op shards through the runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.machine import child, facts
from benchmarks.scale import Scale

PER_TASK = (1, 4)
"""Shards a task: of slow ones; of the default job's, of which half a second begins five."""


def measure(scale: Scale, output: Path) -> dict[str, Any]:
    """ms per shard, and memory of the process of client and scheduler."""
    return {
        f"per_task_{number}": child(
            "benchmarks.runs:schedule",
            timeout_s=7200,
            shards=scale.shards,
            per_task=number,
            workers=facts()["cores"],
        )
        for number in PER_TASK
    }
