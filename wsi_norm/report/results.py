"""SlideResult and RunSummary: what happened to a slide, and in a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["done", "damaged", "empty", "skipped", "failed", "interrupted", "planned"]
STAGES = ("planning", "reading", "computing", "writing")


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
    tiles, unreadable, passed_through, edge
        Numbers of tiles, in all and per flag.
    unreadable_at
        (x, y) in level-0 px of the tiles that this run could not read.
    seconds
        From first to last task; `seconds_*` are summed over workers.
    cpu_seconds
        Per stage: those of `seconds_*` in which the task itself was computing.
    expected_bytes, expected_seconds
        Of a dry run; seconds of one worker.
    """

    name: str
    slide: str
    store: str
    status: Status
    error: str | None = None
    traceback: str | None = None
    warnings: tuple[str, ...] = ()
    tiles: int = 0
    unreadable: int = 0
    passed_through: int = 0
    edge: int = 0
    unreadable_at: tuple[tuple[int, int], ...] = ()
    seconds: float = 0.0
    seconds_planning: float = 0.0
    seconds_reading: float = 0.0
    seconds_computing: float = 0.0
    seconds_writing: float = 0.0
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    tiles_written: int = 0
    expected_bytes: int | None = None
    expected_seconds: float | None = None

    @property
    def ok(self) -> bool:
        """Whether every tile of the slide is there and was readable."""
        return self.status not in {"failed", "interrupted"} and not self.unreadable

    @property
    def tiles_per_second(self) -> float:
        """Tiles written by this run per second of its time on the slide."""
        return self.tiles_written / self.seconds if self.seconds else 0.0


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
    settings, model, versions
        What it was asked to do, by which checkpoint, with which packages.
    interrupted
        It was stopped; the same command continues it.
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

    def totals(self) -> dict[str, Any]:
        """Slides per status, tiles per flag, seconds per stage."""
        fields = ("tiles", "tiles_written", "unreadable", "passed_through", "edge")
        statuses = [slide.status for slide in self.slides]
        return {
            "slides": {status: statuses.count(status) for status in sorted(set(statuses))},
            **{name: _sum(self.slides, name) for name in fields},
            **{
                f"seconds_{name}": round(_sum(self.slides, f"seconds_{name}"), 3) for name in STAGES
            },
        }

    def stages(self) -> dict[str, tuple[float, float]]:
        """Wall and CPU seconds per stage over all workers, and those in which workers waited."""
        spent = {
            stage: (
                float(_sum(self.slides, f"seconds_{stage}")),
                sum(slide.cpu_seconds.get(stage, 0.0) for slide in self.slides),
            )
            for stage in STAGES
        }
        there = self.threads * (self.seconds - self.seconds_starting)
        spent["waiting"] = max(0.0, there - sum(wall for wall, _ in spent.values())), 0.0
        return spent


def _sum(slides: Iterable[SlideResult], name: str) -> Any:
    return sum(getattr(slide, name) for slide in slides)
