"""What travels between processes: paths, settings and small results. Never pixels or handles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wsi_norm.config import RunConfig
from wsi_norm.normalizers.model import Model
from wsi_norm.slide import SlideFiles
from wsi_norm.sources import SlideSource
from wsi_norm.stages import Seconds
from wsi_norm.store import Counts, IccMeta


@dataclass(frozen=True)
class Planned:
    """What the shards of a slide rely on: the store's identity, and the slide's files."""

    identity: str
    files: SlideFiles


@dataclass(frozen=True)
class SlideJob:
    """One slide on its way: small, picklable, enough to do any part of the work anywhere.

    `apart` lets its reader work in a process of its own, so that a crash of it does no more harm.
    `plan` is what its store and its files were when it was planned; None before. `began_ns` is when
    the run began, by the clock of the stores' disk: with `overwrite`, stores made since are not its
    to replace.
    """

    source: SlideSource
    store: Path
    config: RunConfig
    model: Model
    apart: bool = False
    plan: Planned | None = None
    began_ns: int | None = None


@dataclass(frozen=True)
class Prepared:
    """What `prepare` found out about a slide.

    Attributes
    ----------
    tiles, missing
        Tiles in the store, and how many tiles each shard that is still to be written holds.
    finished
        The store was complete before.
    damaged
        The slide's file is, as far as it is known.
    warnings
        A line each.
    seconds
        Spent on planning and statistics.
    counts
        Those of a store that is finished and needs nothing; else None.
    plan
        What its shards are to rely on; None where there are none to be written.
    """

    tiles: int
    missing: Mapping[int, int]
    finished: bool
    damaged: bool
    warnings: tuple[str, ...]
    seconds: Seconds
    counts: Counts | None = None
    plan: Planned | None = None


@dataclass(frozen=True)
class ShardResult:
    """What happened to one shard.

    Attributes
    ----------
    unreadable
        (x, y) in level-0 px of the tiles that could not be decoded.
    first_read_error
        The reader's words on the first of them.
    worker
        Host and process that did it.
    """

    shard: int
    tiles: int
    unreadable: tuple[tuple[int, int], ...]
    first_read_error: str | None
    seconds: Seconds = field(default_factory=Seconds)
    worker: str = ""
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class SomeShards:
    """What happened to those of a task's shards that it began in time, and the others."""

    results: tuple[ShardResult, ...]
    left: tuple[int, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """What a run would do to a slide (`--dry-run`); `seconds` of one worker.

    `icc` is what becomes of its ICC profile.
    """

    tiles: int
    bytes: int
    seconds: float
    warnings: tuple[str, ...]
    icc: IccMeta
