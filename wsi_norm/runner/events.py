"""What a run tells as it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wsi_norm.report import SlideResult


@dataclass(frozen=True)
class PassedOver:
    """What was found where slides are and is none; `line` says what and where."""

    line: str


@dataclass(frozen=True)
class SlidesFound:
    """The run begins: so many slides are to be done."""

    slides: int


@dataclass(frozen=True)
class SlidePlanned:
    """A slide's tiles are known; `tiles` of them are still to be written."""

    name: str
    tiles: int


@dataclass(frozen=True)
class ShardWritten:
    """A shard of a slide is in its store."""

    name: str
    tiles: int


@dataclass(frozen=True)
class WaitingForWorkers:
    """There is no worker: jobs of a cluster may be queued."""


@dataclass(frozen=True)
class CompilingKernels:
    """A process of this machine compiles what all of them wait for, the first time."""


@dataclass(frozen=True)
class WorkersBounded:
    """Fewer workers than cores are started; `line` says how many, and why."""

    line: str


@dataclass(frozen=True)
class WorkerReplaced:
    """A worker ended or stood still, and another one is to take its place; `line` says how."""

    line: str


@dataclass(frozen=True)
class Stopped:
    """Something keeps the run from going on, or from its report; `line` says what."""

    line: str


Event = (
    PassedOver
    | SlidesFound
    | WaitingForWorkers
    | CompilingKernels
    | WorkersBounded
    | WorkerReplaced
    | Stopped
    | SlidePlanned
    | ShardWritten
    | SlideResult
)
OnEvent = Callable[[Event], None]
