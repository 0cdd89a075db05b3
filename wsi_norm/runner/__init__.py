"""Many slides, many workers: the only home of dask.

The names are imported when they are first used: a fork server is started before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "entry" if name == "run" else "events"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
