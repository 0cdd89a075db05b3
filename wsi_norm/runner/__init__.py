"""Many slides, many workers: the only home of dask."""

from wsi_norm.runner.events import Event, ShardWritten, SlidePlanned, WaitingForWorkers
from wsi_norm.runner.run import run

__all__ = ["Event", "ShardWritten", "SlidePlanned", "WaitingForWorkers", "run"]
