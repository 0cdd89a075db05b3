"""Many slides, many workers: the only home of dask."""

from wsi_norm.runner.entry import run
from wsi_norm.runner.events import (
    CompilingKernels,
    Event,
    PassedOver,
    ShardWritten,
    SlidePlanned,
    SlidesFound,
    Stopped,
    WaitingForWorkers,
    WorkerReplaced,
    WorkersBounded,
)

__all__ = [
    "CompilingKernels",
    "Event",
    "PassedOver",
    "ShardWritten",
    "SlidePlanned",
    "SlidesFound",
    "Stopped",
    "WaitingForWorkers",
    "WorkerReplaced",
    "WorkersBounded",
    "run",
]
