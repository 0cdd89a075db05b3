"""Many slides, many workers: the only home of dask."""

from wsi_norm.runner.drive import Event, ShardWritten, SlidePlanned, WaitingForWorkers, run

__all__ = ["Event", "ShardWritten", "SlidePlanned", "WaitingForWorkers", "run"]
