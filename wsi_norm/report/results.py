"""SlideResult and RunSummary: what happened to a slide, and in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wsi_norm.stages import Seconds, Stage
from wsi_norm.store import IccMeta, TileFlag

Status = Literal["done", "damaged", "empty", "skipped", "failed", "interrupted", "planned"]

COUNTED = ("tiles", *(flag.key for flag in TileFlag))
"""Columns of numbers of tiles: in all, and per flag."""

TIMED = {stage: f"seconds_{stage}" for stage in Stage}
"""Columns of seconds, by stage."""


@dataclass(frozen=True)
class SlideResult:
    """What happened to one slide.

    Attributes
    ----------
    status
        "done"; "damaged": finished, but the file is damaged (see `error` for tiles that could not
        be read, `warnings` for the file); "empty": no tissue;
        "skipped": finished by an earlier run; "failed"; "interrupted"; "planned": a dry run.
    error, warnings
        One line each; `traceback` is for bug reports.
    counts
        Numbers of tiles, in all and per flag; what is missing is zero.
    unreadable_at
        (x, y) in level-0 px of the tiles that this run could not read.
    seconds
        From first to last task.
    spent
        Where they went, summed over workers.
    expected_bytes, expected_seconds
        Of a dry run; seconds of one worker.
    icc
        What becomes of its ICC profile; of a dry run, else its store says it.
    """

    name: str
    slide: str
    store: str
    status: Status
    error: str | None = None
    traceback: str | None = None
    warnings: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    unreadable_at: tuple[tuple[int, int], ...] = ()
    seconds: float = 0.0
    spent: Seconds = field(default_factory=Seconds)
    tiles_written: int = 0
    expected_bytes: int | None = None
    expected_seconds: float | None = None
    icc: IccMeta | None = None

    @property
    def tiles(self) -> int:
        """Tiles in all."""
        return self.counts.get("tiles", 0)

    @property
    def unreadable(self) -> int:
        """Tiles that could not be read."""
        return self.flagged[TileFlag.UNREADABLE]

    @property
    def flagged(self) -> dict[TileFlag, int]:
        """Tiles that carry each flag."""
        return {flag: self.counts.get(flag.key, 0) for flag in TileFlag}

    @property
    def ok(self) -> bool:
        """Whether every tile of the slide is there and was readable."""
        return self.status not in {"failed", "interrupted"} and not self.unreadable

    @property
    def tiles_per_second(self) -> float:
        """Tiles written by this run per second of its time on the slide."""
        return self.tiles_written / self.seconds if self.seconds else 0.0

    def columns(self) -> dict[str, Any]:
        """All of it by the names that it has in files: one per flag and per stage."""
        facts = dict(vars(self))
        del facts["counts"], facts["spent"]
        return {
            **facts,
            "icc": None if self.icc is None else self.icc.model_dump(),
            **{key: self.counts.get(key, 0) for key in COUNTED},
            **{column: self.spent.wall.get(stage, 0.0) for stage, column in TIMED.items()},
            "cpu_seconds": dict(self.spent.cpu),
            "tiles_per_second": self.tiles_per_second,
        }


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Attributes
    ----------
    slides
        In the order in which they were named.
    seconds, seconds_starting
        Of the whole run, and of it until there were workers.
    threads
        Tasks that could run at once, at most.
    peak_memory_bytes
        Largest resident memory of each worker that wrote a shard, by host and process.
    settings, versions
        What it was asked to do, with which packages.
    model
        What normalised the tiles: checkpoint, sha256, configuration, `target` (mean and std per
        colour space, or None) and `provenance`.
    interrupted
        It was stopped; the same command continues it.
    passed_over
        What was found where slides are and is none, a line per folder.
    """

    slides: tuple[SlideResult, ...]
    seconds: float
    seconds_starting: float
    threads: int
    peak_memory_bytes: Mapping[str, int]
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    versions: Mapping[str, str]
    started: str
    interrupted: bool = False
    passed_over: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """0: every slide is whole; 1: some is not; 130: interrupted."""
        if self.interrupted:
            return 130
        return 0 if all(slide.ok for slide in self.slides) else 1

    @property
    def tiles_written(self) -> int:
        """Tiles that this run wrote."""
        return sum(slide.tiles_written for slide in self.slides)

    @property
    def tiles_per_second(self) -> float:
        """Over the whole run, workers' start included."""
        return self.tiles_written / self.seconds if self.seconds else 0.0

    @property
    def spent(self) -> Seconds:
        """Where the time of all slides' tasks went."""
        spent = Seconds()
        for slide in self.slides:
            spent.add(slide.spent)
        return spent

    def totals(self) -> dict[str, Any]:
        """Slides per status, tiles per flag, seconds per stage."""
        statuses = [slide.status for slide in self.slides]
        wall = self.spent.wall
        return {
            "slides": {status: statuses.count(status) for status in sorted(set(statuses))},
            "tiles_written": self.tiles_written,
            **{key: sum(slide.counts.get(key, 0) for slide in self.slides) for key in COUNTED},
            **{column: round(wall.get(stage, 0.0), 3) for stage, column in TIMED.items()},
        }

    def stages(self) -> dict[str, tuple[float, float]]:
        """Wall and CPU seconds per stage over all workers, and those in which workers waited."""
        spent = self.spent
        there = self.threads * (self.seconds - self.seconds_starting)
        waiting = max(0.0, there - sum(spent.wall.values()))
        return {
            **{str(s): (spent.wall.get(s, 0.0), spent.cpu.get(s, 0.0)) for s in Stage},
            "waiting": (waiting, 0.0),
        }
