"""Many slides, many workers: the only home of dask."""

from wsi_norm.runner.run import Event, ShardWritten, SlidePlanned, run

__all__ = ["Event", "ShardWritten", "SlidePlanned", "run"]
