"""The route of a tile: read -> normalise -> write, one function per shard.

`prepare` decides about a slide and creates its store, `process_shard` fills one shard,
`some_shards` several, `finish` closes the store. All run anywhere, given paths and settings.
"""

from wsi_norm.pipeline.finished import finished_before
from wsi_norm.pipeline.job import Estimate, Planned, Prepared, ShardResult, SlideJob, SomeShards
from wsi_norm.pipeline.recomputed import other_tiles
from wsi_norm.pipeline.shards import process_shard, some_shards
from wsi_norm.pipeline.slides import estimate, finish, prepare

__all__ = [
    "Estimate",
    "Planned",
    "Prepared",
    "ShardResult",
    "SlideJob",
    "SomeShards",
    "estimate",
    "finish",
    "finished_before",
    "other_tiles",
    "prepare",
    "process_shard",
    "some_shards",
]
