"""The stages of a run, and where the time of tasks went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum


class Stage(StrEnum):
    """What a task does; reports, tables and the terminal name these, in this order."""

    PLANNING = "planning"
    READING = "reading"
    COMPUTING = "computing"
    WRITING = "writing"


@dataclass
class Seconds:
    """Where the time of tasks went, by stage.

    Attributes
    ----------
    wall, cpu
        Seconds on the clock, and of them those that the task's own thread was computing: the rest
        it waited for a disk, a device or another process.
    """

    wall: dict[Stage, float] = field(default_factory=dict)
    cpu: dict[Stage, float] = field(default_factory=dict)

    @contextmanager
    def spent(self, stage: Stage) -> Iterator[None]:
        """Add the time of a `with` block to a stage."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            spent = time.perf_counter() - wall, time.thread_time() - cpu
            self.add(Seconds({stage: spent[0]}, {stage: spent[1]}))

    def add(self, other: Seconds) -> None:
        """Add other tasks' seconds."""
        for own, more in ((self.wall, other.wall), (self.cpu, other.cpu)):
            for stage, spent in more.items():
                own[stage] = own.get(stage, 0.0) + spent
