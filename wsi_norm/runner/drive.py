"""A run: every slide through prepare, its shards and finish, with a bounded number of tasks out."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

from wsi_norm.config import RunConfig
from wsi_norm.errors import StoreError, WsiNormError
from wsi_norm.location import write_text
from wsi_norm.machine import versions
from wsi_norm.pipeline import (
    Estimate,
    Model,
    Prepared,
    Seconds,
    ShardResult,
    SlideJob,
    estimate,
    finish,
    prepare,
    process_shard,
)
from wsi_norm.report import STAGES, RunSummary, SlideResult, profile_table, write_report
from wsi_norm.runner.checks import absolute_config, absolute_source, check_output, named_model
from wsi_norm.runner.cluster import workers
from wsi_norm.sources import SlideSource, find_slides, same_names
from wsi_norm.store import Counts

TASKS_PER_THREAD = 3
"""Tasks out at a time, per worker thread: one at work and the next ones there before it ends."""

WINDOW_SECONDS = 1.0

PACKAGES = (
    "wsi-norm",
    "torch",
    "kornia",
    "zarr",
    "dask",
    "distributed",
    "openslide-python",
    "openslide-bin",
    "tiffslide",
    "tifffile",
    "imagecodecs",
    "simplejpeg",
    "numba",
    "numpy",
    "pillow",
    "scikit-image",
)


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
    """There is no worker yet: jobs of a cluster may be queued."""


Event = WaitingForWorkers | SlidePlanned | ShardWritten | SlideResult
OnEvent = Callable[[Event], None]


def run(
    slides: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    config: RunConfig | None = None,
    on_event: OnEvent | None = None,
) -> RunSummary:
    """Normalise slides into stores: what `wsi-norm run` does.

    Worker processes import the calling script, so call this under `if __name__ == "__main__":`.

    Parameters
    ----------
    slides
        Files, folders, DICOM folders or glob patterns, in addition to those of the config.
    config
        Settings; None takes the defaults.
    on_event
        Called in this thread as slides are planned, shards written and slides finished.

    Returns
    -------
    RunSummary
        One slide's failure is in its result and never stops the others.

    Raises
    ------
    ConfigError, CheckpointError
        Before any slide is touched: nothing to do, no such device, no place to write, ...
    KeyboardInterrupt
        Interrupted; the report is written, and the same call continues.
    """
    if not isinstance(config, RunConfig | None):
        raise TypeError(f"config must be a RunConfig (see run_config), not {type(config).__name__}")
    config = absolute_config(config or RunConfig())
    slides = [slides] if isinstance(slides, str | os.PathLike) else slides
    started, clock = datetime.now(UTC), time.perf_counter()
    names = [os.fspath(slide) for slide in slides] + list(config.slides)
    sources = find_slides(names, config.slides_csv, config.recursive)
    model, facts = named_model(config)
    if not config.dry_run:
        check_output(config.output)
    drive = _Drive(config, model, sources, on_event or (lambda event: None))
    interrupted, starting = False, 0.0
    try:
        with workers(config) as client:
            starting = time.perf_counter() - clock
            drive.run(client)
    except KeyboardInterrupt:
        interrupted = True
        drive.interrupt()
    summary = RunSummary(
        slides=drive.results(),
        seconds=time.perf_counter() - clock,
        seconds_starting=starting,
        threads=drive.threads,
        peak_memory_bytes=drive.peak_memory_bytes,
        settings=config.model_dump(mode="json"),
        model=facts,
        versions=versions(PACKAGES),
        started=started.isoformat(timespec="seconds"),
        interrupted=interrupted,
    )
    if not config.dry_run:
        try:
            if config.report:
                write_report(summary, config.output)
            if config.profile:
                write_text(config.output / "profile.md", profile_table(summary))
        except OSError as error:
            raise StoreError(
                f"{config.output}: the stores are written, but not the report: {error}"
            ) from error
    if interrupted:
        raise KeyboardInterrupt
    return summary


@dataclass
class _Slide:
    """One slide's way through the run."""

    job: SlideJob
    prepared: Prepared | None = None
    open_shards: int = 0
    seconds: Seconds = field(default_factory=Seconds)
    tiles_written: int = 0
    unreadable_at: list[tuple[int, int]] = field(default_factory=list)
    read_error: str | None = None
    began: float = 0.0
    result: SlideResult | None = None


class _Drive:
    """Submits tasks as others end, so that memory does not grow with the number of slides."""

    def __init__(
        self,
        config: RunConfig,
        model: Model,
        sources: list[SlideSource],
        on_event: OnEvent,
    ) -> None:
        self.config = config
        self.on_event = on_event
        self.slides = [
            _Slide(SlideJob(source, config.output / f"{source.name}.zarr", config, model))
            for source in map(absolute_source, sources)
        ]
        self.peak_memory_bytes: dict[str, int] = {}
        self._waiting = deque(self.slides)
        self._shards: deque[tuple[_Slide, int]] = deque()
        self._out: dict[Future, _Slide] = {}
        self.threads = 0
        self._window, self._window_until = 0, 0.0
        self._failed = False

    def run(self, client: Client) -> None:
        """Drive every slide to its result."""
        self._refuse_same_names()
        done = as_completed()
        if not client.nthreads():
            self.on_event(WaitingForWorkers())
        self._fill(client, done)
        for future in done:
            slide = self._out.pop(future)
            if slide.result is None:
                self._take(client, done, slide, future)
            future.release()
            if self.config.fail_fast and self._failed:
                self.interrupt()
                return
            self._fill(client, done)

    def interrupt(self) -> None:
        """Give every slide without a result the result "interrupted"."""
        for slide in self.slides:
            if slide.result is None:
                self._end(slide, "interrupted", error="not finished; run the command again")

    def results(self) -> tuple[SlideResult, ...]:
        """One per slide, in their order."""
        return tuple(slide.result for slide in self.slides if slide.result is not None)

    def _fill(self, client: Client, done: as_completed) -> None:
        while len(self._out) < self._room(client):
            if self._shards:
                slide, shard = self._shards.popleft()
                if slide.result is None:
                    self._submit(client, done, slide, process_shard, slide.job, shard)
            elif self._waiting:
                slide = self._waiting.popleft()
                if slide.result is None:
                    slide.began = time.perf_counter()
                    first = estimate if self.config.dry_run else prepare
                    self._submit(client, done, slide, first, slide.job)
            else:
                return

    def _room(self, client: Client) -> int:
        """How many tasks may be out; workers come and go, so they are counted anew now and then."""
        if time.monotonic() > self._window_until:
            threads = sum(client.nthreads().values())
            self.threads = max(self.threads, threads)
            self._window = TASKS_PER_THREAD * max(1, threads)
            self._window_until = time.monotonic() + WINDOW_SECONDS
        return self._window

    def _submit(
        self,
        client: Client,
        done: as_completed,
        slide: _Slide,
        task: Callable[..., Any],
        *arguments: Any,
    ) -> None:
        future = client.submit(task, *arguments, pure=False)
        self._out[future] = slide
        done.add(future)

    def _take(self, client: Client, done: as_completed, slide: _Slide, future: Future) -> None:
        """One task of a slide has ended: what follows from it."""
        if future.status != "finished":
            self._fail(slide, future)
            return
        match future.result():
            case Prepared() as prepared:
                slide.prepared = prepared
                slide.seconds.add(prepared.seconds)
                slide.open_shards = len(prepared.missing)
                self.on_event(SlidePlanned(slide.job.source.name, sum(prepared.missing.values())))
                self._shards.extend((slide, shard) for shard in prepared.missing)
            case ShardResult() as shard:
                self._add(slide, shard)
            case Counts() as counts:
                self._done(slide, counts)
                return
            case Estimate() as planned:
                self._end(
                    slide,
                    "planned",
                    tiles=planned.tiles,
                    warnings=planned.warnings,
                    expected_bytes=planned.bytes,
                    expected_seconds=planned.seconds,
                )
                return
        if slide.open_shards == 0:
            self._submit(client, done, slide, finish, slide.job)

    def _add(self, slide: _Slide, shard: ShardResult) -> None:
        slide.open_shards -= 1
        slide.seconds.add(shard.seconds)
        slide.tiles_written += shard.tiles
        slide.unreadable_at += shard.unreadable
        slide.read_error = slide.read_error or shard.first_read_error
        known = self.peak_memory_bytes.get(shard.worker, 0)
        self.peak_memory_bytes[shard.worker] = max(known, shard.peak_memory_bytes)
        self.on_event(ShardWritten(slide.job.source.name, shard.tiles))

    def _done(self, slide: _Slide, counts: Counts) -> None:
        assert slide.prepared is not None
        if slide.prepared.finished:
            status = "skipped"
        elif counts.unreadable or slide.prepared.damaged:
            status = "damaged"
        else:
            status = "done" if counts.tiles else "empty"
        error = None
        if counts.unreadable:
            error = (
                f"{slide.job.source.path}: {counts.unreadable} of {counts.tiles} tiles cannot be "
                "read and are white (flag 1)"
            )
            if slide.read_error:
                error += (
                    f"; the first: {slide.read_error.removeprefix(f'{slide.job.source.path}: ')}"
                )
        self._end(slide, status, error=error, **counts.model_dump())

    def _fail(self, slide: _Slide, future: Future) -> None:
        error = future.exception() or RuntimeError(f"the task was {future.status}")
        path = slide.job.source.path
        if isinstance(error, WsiNormError):
            message = str(error)
        elif isinstance(error, KilledWorker):
            message = f"{path}: a worker process died on it several times (out of memory?)"
        else:
            message = (
                f"{path}: unexpected {type(error).__name__}: {error} (a bug: please report it)"
            )
        trace = "".join(traceback.format_exception(error))
        self._end(slide, "failed", error=" ".join(message.split()), traceback=trace)

    def _end(self, slide: _Slide, status: Any, **facts: Any) -> None:
        warnings = slide.prepared.warnings if slide.prepared else ()
        slide.result = SlideResult(
            name=slide.job.source.name,
            slide=str(slide.job.source.path),
            store=str(slide.job.store),
            status=status,
            **{
                "warnings": warnings,
                "unreadable_at": tuple(sorted(slide.unreadable_at)),
                "seconds": time.perf_counter() - slide.began if slide.began else 0.0,
                **{f"seconds_{stage}": slide.seconds.wall.get(stage, 0.0) for stage in STAGES},
                "cpu_seconds": slide.seconds.cpu,
                "tiles_written": slide.tiles_written,
                **facts,
            },
        )
        self._failed |= not slide.result.ok
        self.on_event(slide.result)

    def _refuse_same_names(self) -> None:
        clashing = same_names(slide.job.source for slide in self.slides)
        for slide in self._clashing(clashing):
            self._end(
                slide,
                "failed",
                error=f"{slide.job.source.path}: another slide of this run would also be written "
                f"to {slide.job.store.name}; rename one, or give a column 'name' in --slides-csv",
            )

    def _clashing(self, names: set[str]) -> Iterator[_Slide]:
        return (slide for slide in self.slides if slide.job.source.name.casefold() in names)
