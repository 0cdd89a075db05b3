"""What a user sees of a run: a bar or a line per slide, a line per mishap, a summary."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from wsi_norm.location import free_bytes
from wsi_norm.report import RunSummary, SlideResult, words
from wsi_norm.report.words import duration
from wsi_norm.runner import (
    CompilingKernels,
    Event,
    PassedOver,
    ShardWritten,
    SlidePlanned,
    SlidesFound,
    Stopped,
    WaitingForWorkers,
    WorkerReplaced,
    WorkersBounded,
)
from wsi_norm.stages import Stage
from wsi_norm.text import shown

from .output import on_terminal, say


class Progress:
    """Shows a run's events on stderr: a bar on a terminal, elsewhere a line per slide that ends."""

    def __init__(self, quiet: bool, verbose: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._lines = not (quiet or on_terminal())
        self._slides = self._ended = self._worked_on = 0
        self._began = time.monotonic()
        self._bar = tqdm(
            total=0,
            unit="tile",
            desc="planning",
            disable=quiet or not on_terminal(),
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case PassedOver(line=line):
                if not self._quiet:
                    self._line(f"warning: {line}")
            case SlidesFound(slides=slides):
                self._slides = slides
            case WaitingForWorkers():
                self._line("waiting for a worker (see the scheduler, or the queue of jobs)")
            case CompilingKernels():
                if not self._quiet:
                    done = f"[{self._ended}/{self._slides}]"
                    self._line(f"{done} compiling kernels, once per machine (some seconds)")
            case WorkersBounded(line=line):
                if not self._quiet:
                    self._line(line)
            case WorkerReplaced(line=line):
                if not self._quiet:
                    self._line(f"warning: {line}")
            case Stopped(line=line):
                self._line(f"error: {line}")
            case SlidePlanned(name=name, tiles=tiles):
                self._bar.total = (self._bar.total or 0) + tiles
                self._bar.set_description_str(shown(name), refresh=True)
            case ShardWritten(name=name, tiles=tiles):
                self._bar.set_description_str(shown(name), refresh=False)
                self._bar.update(tiles)
            case SlideResult() as slide:
                self._slide(slide)

    def _slide(self, slide: SlideResult) -> None:
        if slide.error and slide.status != "interrupted":
            self._line(f"error: {slide.error}")
        if self._verbose and slide.traceback:
            for line in slide.traceback.splitlines():
                self._line(line)
        if not self._quiet:
            for warning in slide.warnings:
                self._line(f"warning: {slide.slide}: {warning}")
        if self._lines and slide.status != "interrupted":
            self._account(slide)

    def _account(self, slide: SlideResult) -> None:
        """A line on a slide that has ended, with what is still to come."""
        self._ended += 1
        self._worked_on += slide.status != "skipped"
        left = ""
        if self._worked_on and self._ended < self._slides:
            each = (time.monotonic() - self._began) / self._worked_on
            left = f"; about {duration(each * (self._slides - self._ended))} left"
        what = f"{slide.name}: {slide.status}, {slide.tiles} tiles"
        self._line(f"[{self._ended}/{self._slides}] {what}{left}")

    def _line(self, text: str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            say(text, err=True)


def print_summary(summary: RunSummary, output: Path) -> None:
    """A line per slide and a line for the run, on stdout."""
    width = max(len(shown(slide.name)) for slide in summary.slides)
    for slide in summary.slides:
        notes = ", ".join(f"{tiles} {flag.label}" for flag, tiles in slide.flagged.items() if tiles)
        detail = f" ({notes})" if notes else ""
        rate = f", {slide.tiles_per_second:.1f} tiles/s" if slide.tiles_written else ""
        say(f"{shown(slide.name):{width}}  {slide.status:8} {slide.tiles:>7} tiles{detail}{rate}")
    wall = summary.spent.wall
    stages = ", ".join(f"{stage} {wall.get(stage, 0.0):.1f} s" for stage in Stage)
    say(
        f"{summary.tiles_written} tiles in {summary.seconds:.1f} s "
        f"({summary.tiles_per_second:.1f} tiles/s; over all workers: {stages})"
    )
    layout = summary.settings.get("layout", "tiles")
    say(f"stores{'' if layout == 'tiles' else f' (layout {layout})'} and report: {output}")


def print_plan(summary: RunSummary, output: Path) -> None:
    """What a run would do, per slide and in all, against the free disk space."""
    width = max(len(shown(slide.name)) for slide in summary.slides)
    for slide in summary.slides:
        if slide.status == "planned":
            said = words.icc(slide.icc)
            say(
                f"{shown(slide.name):{width}}  {slide.tiles:>7} tiles  "
                f"{(slide.expected_bytes or 0) / 1e6:>9.1f} MB  "
                f"{slide.expected_seconds or 0:>7.0f} s of one worker"
                + (f"  ICC profile {shown(said)}" if said else "")
            )
    size = sum(slide.expected_bytes or 0 for slide in summary.slides)
    free = free_bytes(output)
    verdict = "fits" if size < free else "DOES NOT FIT"
    say(
        f"{sum(slide.tiles for slide in summary.slides)} tiles, about {size / 1e9:.2f} GB; "
        f"{free / 1e9:.2f} GB free at {output}: {verdict}"
    )
