"""Many slides, many workers: the only home of dask."""

from wsi_norm.runner.drive import Event, ShardWritten, SlidePlanned, run

__all__ = ["Event", "ShardWritten", "SlidePlanned", "run"]
