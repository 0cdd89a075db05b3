"""Many slides, many workers: the only home of dask."""

from wsi_norm.runner.entry import run
from wsi_norm.runner.events import (
    Event,
    PassedOver,
    ShardWritten,
    SlidePlanned,
    SlidesFound,
    Stopped,
    WaitingForWorkers,
    WorkerReplaced,
)

__all__ = [
    "Event",
    "PassedOver",
    "ShardWritten",
    "SlidePlanned",
    "SlidesFound",
    "Stopped",
    "WaitingForWorkers",
    "WorkerReplaced",
    "run",
]
