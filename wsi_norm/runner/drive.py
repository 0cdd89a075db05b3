"""Drive: every slide through prepare, its shards and finish, with a bounded number of tasks out."""

from __future__ import annotations

import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from wsi_norm import compiled, pipeline
from wsi_norm.config import RunConfig
from wsi_norm.errors import WsiNormError
from wsi_norm.location import clock_ns
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline import Estimate, Prepared, ShardResult, SlideJob, SomeShards, some_shards
from wsi_norm.report import SlideResult, Status
from wsi_norm.runner.checks import absolute_source
from wsi_norm.runner.events import (
    CompilingKernels,
    OnEvent,
    ShardWritten,
    SlidePlanned,
    SlidesFound,
    Stopped,
    WaitingForWorkers,
    WorkerReplaced,
)
from wsi_norm.runner.inline import Inline, is_inline
from wsi_norm.runner.processes import ResultLostError, SchedulerGoneError
from wsi_norm.slide.reach import ANSWER_SECONDS
from wsi_norm.sources import SlideSource, same_names
from wsi_norm.stages import Seconds
from wsi_norm.store import Counts, TileFlag

if TYPE_CHECKING:  # a run in its own process does without dask
    from wsi_norm.runner.cluster import Workers

TASKS_PER_THREAD = 3
"""Tasks out at a time, per worker thread: one at work and the next ones there before it ends."""

TASK_SHARDS = 8
"""Shards that a task is given, at most: a task costs dask some 4 ms, however much it does."""

WINDOW_SECONDS = 1.0
"""How often workers are counted, and asked after, at most."""

LEAVE_SECONDS = 60.0
"""How long a worker that is to end is waited for: what it were given meanwhile would be lost."""

RESULT_SECONDS = 20.0
"""How long a worker may take to hand over what it has finished: it is small, and there."""

LOOKS = 20
"""How often within `task_timeout` it is seen which tasks are at work, at most."""

DEATHS = 30
"""A run ends when so many workers died with no task done in between (ten of each, if more)."""

REMEDY = "give it more memory, or fewer --workers"
"""Where workers are lost."""

STALLS = 3
"""A slide fails on which so many workers stood still."""


@dataclass(frozen=True)
class Tasks:
    """What workers are given to do: the pipeline's functions, or others to try the drive by.

    Each is a function at the top of a module, which worker processes import.
    """

    prepare: Callable[[SlideJob], Prepared] = pipeline.prepare
    process_shard: Callable[[SlideJob, int], ShardResult] = pipeline.process_shard
    finish: Callable[[SlideJob], Counts] = pipeline.finish
    estimate: Callable[[SlideJob], Estimate] = pipeline.estimate


@dataclass(eq=False)
class _Slide:
    """One slide's way through the run; `shards` are not given away yet, open ones not written."""

    job: SlideJob
    prepared: Prepared | None = None
    shards: deque[int] = field(default_factory=deque)
    open_shards: int = 0
    spent: Seconds = field(default_factory=Seconds)
    tiles_written: int = 0
    unreadable_at: list[tuple[int, int]] = field(default_factory=list)
    read_error: str | None = None
    warnings: tuple[str, ...] = ()
    began: float = 0.0
    stalls: int = 0
    result: SlideResult | None = None


@dataclass
class _Task:
    """Something to be done for a slide or some of its shards, with nothing else out if `alone`.

    `take` gets what comes back.
    """

    slide: _Slide
    take: Callable[[_Slide, Any], None]
    do: Callable[..., Any]
    shards: tuple[int, ...] = ()
    alone: bool = False

    def by_shard(self) -> list[_Task]:
        """The same, as a task for each shard."""
        return [replace(self, shards=(shard,)) for shard in self.shards] or [self]


class Drive:
    """Submits tasks as others end, so that memory does not grow with the number of slides.

    `begin` ends the slides that need no worker, `run` the others.

    Parameters
    ----------
    config, model, sources
        The settings, with absolute paths; the checkpoint; the slides.
    on_event
        Called in the thread of `run` as slides are planned, shards written and slides finished.
    tasks
        What workers do.

    Attributes
    ----------
    jobs
        One per slide.
    threads
        Tasks that could run at once, at most.
    peak_memory_bytes
        Largest resident memory of each worker that wrote a shard, by host and process.
    """

    def __init__(
        self,
        config: RunConfig,
        model: Model,
        sources: Iterable[SlideSource],
        on_event: OnEvent | None = None,
        tasks: Tasks | None = None,
    ) -> None:
        began = clock_ns(config.output) if config.overwrite and not config.dry_run else None
        self.jobs = [
            SlideJob(
                source,
                config.output / f"{source.name}.zarr",
                config,
                model,
                apart=is_inline(config),  # no worker process would die in its place
                began_ns=began,
            )
            for source in map(absolute_source, sources)
        ]
        self.threads = 0
        self.peak_memory_bytes: dict[str, int] = {}
        self._config = config
        self._on_event = on_event or (lambda event: None)
        self._tasks = tasks or Tasks()
        self._process_shards = partial(some_shards, self._tasks.process_shard)
        self._slides = [_Slide(job) for job in self.jobs]
        self._waiting = deque(self._slides)
        self._begun: deque[_Slide] = deque()
        self._again: deque[_Task] = deque()
        self._suspects: deque[_Task] = deque()
        self._out: dict[Any, _Task] = {}
        self._window, self._window_until = 0, 0.0
        self._ask_at = self._look_at = 0.0
        self._at_work: dict[tuple[str, Any], float] = {}
        self._leaving: dict[str, float] = {}
        self._is_waiting = self._is_told_of_compiling = False
        self._deaths = 0
        self._failed = False

    def begin(self) -> bool:
        """End the slides that may not be done, or were before; whether any is left.

        The latter takes a thousandth of a second or two for each: less than a worker needs to be
        told of it.
        """
        self._on_event(SlidesFound(len(self._slides)))
        self._refuse_same_names()
        self._refuse_silent()
        if not (self._config.overwrite or self._config.dry_run):
            for slide in self._slides:
                if slide.result is None and (prepared := pipeline.finished_before(slide.job)):
                    self._planned(slide, prepared)
        if self._config.fail_fast and self._failed:
            self.interrupt()
        return any(slide.result is None for slide in self._slides)

    def run(self, client: Workers | Inline) -> None:
        """Drive every other slide to its result, with the workers of a client."""
        self._client, self._done = client, SimpleQueue[Any]()
        try:
            self._go_on()
        except SchedulerGoneError:
            self._stop("the dask scheduler is gone", "start one and run the same command again")

    def _go_on(self) -> None:
        self._say_if_waiting(self._client.nthreads())
        self._fill()
        while self._out or self._leaving:
            if (why := self._workers_lost()) is not None:
                self._stop(why)
                return
            try:
                future = self._done.get(timeout=WINDOW_SECONDS)
            except Empty:
                continue
            task = self._out.pop(future, None)
            if task is None:  # given to another worker meanwhile
                continue
            error = _failure(future)
            lost = isinstance(error, ResultLostError)
            if not (lost or _of_scheduler(error, "KilledWorker")):
                self._deaths = 0
            if task.slide.result is None:
                if error is None:
                    self._take(task, future)
                elif lost:
                    self._do_anew(task)
                elif (why := self._client.lost()) is not None:
                    self._stop(why)
                    return
                elif _of_scheduler(error, "NoWorkerError"):
                    self.interrupt()
                elif not (_of_scheduler(error, "KilledWorker") and self._put_back(task)):
                    self._fail(task.slide, error)
            if self._config.fail_fast and self._failed:
                self.interrupt()
                return
            self._fill()

    def _take(self, task: _Task, future: Any) -> None:
        """Fetch a result and see to what follows; one that is lost is computed anew.

        A result lies with the worker that has computed it until it is fetched. One that was stopped
        just then would be waited for without end; one that dies takes it along.
        """
        try:
            result = self._client.result(future, RESULT_SECONDS)
        except TimeoutError:
            self._on_event(WorkerReplaced("a worker does not answer; it is ended"))
            self._client.end_holders(future)
            self._do_anew(task)
        except ResultLostError:
            self._do_anew(task)
        else:
            task.take(task.slide, result)

    def _do_anew(self, task: _Task) -> None:
        """Give a task away once more whose result is lost with a worker: it is not to blame."""
        self._deaths += 1
        (self._suspects if task.alone else self._again).append(task)

    def _stop(self, why: str, remedy: str = REMEDY) -> None:
        """End the run, which cannot go on."""
        self._on_event(Stopped(f"{why}; the run ends: {remedy}"))
        self.interrupt()

    def interrupt(self) -> None:
        """Give every slide without a result the result "interrupted"."""
        for slide in self._slides:
            if slide.result is None:
                self._end(slide, "interrupted", error="not finished; run the command again")

    def results(self) -> tuple[SlideResult, ...]:
        """One per slide, in their order."""
        return tuple(slide.result for slide in self._slides if slide.result is not None)

    def _fill(self) -> None:
        """Submit what there is room for, shards before new slides; a suspect alone."""
        if self._leaving or any(task.alone for task in self._out.values()):
            return
        if self._suspects:
            if not self._out:
                self._give(self._suspects.popleft(), alone=True)
            return
        while len(self._out) < self._room():
            if self._again:
                if (task := self._again.popleft()).slide.result is None:
                    self._give(task)
            elif self._begun:
                slide = self._begun[0]
                if slide.result is None and (shards := self._next(slide)):
                    task = _Task(slide, self._written, self._process_shards, shards)
                    self._give(task)
                else:
                    self._begun.popleft()
            elif self._waiting:
                slide = self._waiting.popleft()
                if slide.result is None:
                    slide.began = time.perf_counter()
                    if self._config.dry_run:
                        self._give(_Task(slide, self._estimated, self._tasks.estimate))
                    else:
                        self._give(_Task(slide, self._planned, self._tasks.prepare))
            else:
                return

    def _room(self) -> int:
        """How many tasks may be out; workers come and go, so they are counted anew now and then."""
        if time.monotonic() > self._window_until:
            threads = sum(self._client.nthreads().values())
            self.threads = max(self.threads, threads)
            self._window = TASKS_PER_THREAD * max(1, threads)
            self._window_until = time.monotonic() + WINDOW_SECONDS
        return self._window

    def _next(self, slide: _Slide) -> tuple[int, ...]:
        """A slide's next shards for one task: fewer towards the run's end, so that all share it."""
        number = TASK_SHARDS
        if not self._waiting:
            left = sum(len(begun.shards) for begun in self._begun)
            number = min(number, max(1, left // (2 * max(1, self.threads))))
        return tuple(slide.shards.popleft() for _ in range(min(number, len(slide.shards))))

    def _give(self, task: _Task, *, alone: bool = False) -> None:
        task.alone = alone
        arguments = (task.shards,) if task.shards else ()
        future = self._client.submit(task.do, task.slide.job, *arguments, pure=False)
        self._out[future] = task
        future.add_done_callback(self._done.put)

    def _put_back(self, task: _Task) -> bool:
        """Whether a task whose worker died gets another try.

        A worker that dies takes all tasks with it that it was given, and which of them was its
        death cannot be known. So they are tried again, with the slide's reader apart; what is lost
        once more, of which a reader is not the cause, is tried with nothing else out.
        """
        if task.alone:
            return False
        (self._suspects if task.slide.job.apart else self._again).extend(task.by_shard())
        task.slide.job = replace(task.slide.job, apart=True)
        return True

    def _workers_lost(self) -> str | None:
        """See to the workers now and then; why there will be none any more, None if there will."""
        now = time.monotonic()
        if now < self._ask_at:
            return None
        self._ask_at = now + WINDOW_SECONDS
        if not self._is_told_of_compiling and compiled.under_way():
            self._is_told_of_compiling = True
            self._on_event(CompilingKernels())
        for line in self._client.news():
            self._deaths += 1
            self._on_event(WorkerReplaced(line))
        if self._deaths > max(DEATHS, 10 * self.threads):
            return f"{self._deaths} worker processes ended, one after the other, with nothing done"
        if (why := self._client.lost()) is not None:
            return why
        if self._leaving:
            threads = self._client.nthreads()
            self._leaving = {
                address: until
                for address, until in self._leaving.items()
                if address in threads and now < until
            }
            self._fill()
        if now > self._look_at:
            self._look_at = now + self._config.task_timeout / LOOKS
            self._look(now)
        return None

    def _look(self, now: float) -> None:
        """Find workers that stand still: what they were given is done by others."""
        threads, given = self._client.nthreads(), self._client.given()
        self._say_if_waiting(threads)
        futures = {
            address: [future for future in self._out if future.key in keys]
            for address, keys in given.items()
        }
        at_work = [
            (address, future)  # a worker takes its tasks in the order in which they were given
            for address, given_to_it in futures.items()
            for future in given_to_it[: threads.get(address, 0)]
        ]
        self._at_work = {pair: self._at_work.get(pair, now) for pair in at_work}
        limit = self._config.task_timeout
        still = [pair for pair, since in self._at_work.items() if now - since >= limit]
        for _, future in still:
            self._stalled(self._out[future].slide)
        ending = {address for address, _ in still}
        if not ending:
            return
        # Tasks that wait for a worker are taken back, too: they would be given to one that ends.
        safe = {future for address in futures.keys() - ending for future in futures[address]}
        for future in [future for future in self._out if future not in safe]:
            task = self._out.pop(future)
            (self._suspects if task.alone else self._again).append(task)
            future.cancel()
        for address in ending:
            self._client.restart(address)
            self._leaving[address] = now + LEAVE_SECONDS

    def _stalled(self, slide: _Slide) -> None:
        """Say so; one slide does not get more than a few workers, and its reader is bounded now."""
        slide.stalls += 1
        slide.job = replace(slide.job, apart=True)
        what = f"{slide.job.source.path}: no progress in {self._config.task_timeout:g} s"
        if slide.stalls < STALLS:
            self._on_event(WorkerReplaced(f"{what}; its worker is ended, and another one tries"))
        elif slide.result is None:
            error = (
                f"{what}, {STALLS} times: it is damaged, or on a disk that does not answer; leave "
                "it out, or give it more time (--task-timeout)"
            )
            self._end(slide, "failed", error=error)

    def _say_if_waiting(self, threads: dict[str, int]) -> None:
        """Once whenever all workers are gone."""
        if self._client.may_queue and not threads and not self._is_waiting:
            self._on_event(WaitingForWorkers())
        self._is_waiting = not threads

    def _estimated(self, slide: _Slide, plan: Estimate) -> None:
        slide.warnings = plan.warnings
        self._end(
            slide,
            "planned",
            counts={"tiles": plan.tiles},
            expected_bytes=plan.bytes,
            expected_seconds=plan.seconds,
            icc=plan.icc,
        )

    def _planned(self, slide: _Slide, prepared: Prepared) -> None:
        slide.prepared, slide.warnings = prepared, prepared.warnings
        slide.spent.add(prepared.seconds)
        slide.open_shards = len(prepared.missing)
        slide.job = replace(slide.job, plan=prepared.plan)
        self._on_event(SlidePlanned(slide.job.source.name, sum(prepared.missing.values())))
        slide.shards.extend(prepared.missing)
        self._begun.append(slide)
        if prepared.counts is not None:
            self._finished(slide, prepared.counts)
        else:
            self._finish_if_written(slide)

    def _written(self, slide: _Slide, done: SomeShards) -> None:
        for shard in done.results:
            slide.open_shards -= 1
            slide.spent.add(shard.seconds)
            slide.tiles_written += shard.tiles
            slide.unreadable_at += shard.unreadable
            slide.read_error = slide.read_error or shard.first_read_error
            known = self.peak_memory_bytes.get(shard.worker, 0)
            self.peak_memory_bytes[shard.worker] = max(known, shard.peak_memory_bytes)
            self._on_event(ShardWritten(slide.job.source.name, shard.tiles))
        if done.left:
            slide.shards.extendleft(reversed(done.left))
            if slide not in self._begun:
                self._begun.appendleft(slide)
        self._finish_if_written(slide)

    def _finish_if_written(self, slide: _Slide) -> None:
        if slide.open_shards == 0:
            self._give(_Task(slide, self._finished, self._tasks.finish))

    def _finished(self, slide: _Slide, counts: Counts) -> None:
        assert slide.prepared is not None
        tiles, unreadable = counts["tiles"], counts[TileFlag.UNREADABLE.key]
        status: Status
        if slide.prepared.finished:
            status = "skipped"
        elif unreadable or slide.prepared.damaged:
            status = "damaged"
        else:
            status = "done" if tiles else "empty"
        error = None
        if unreadable:
            path = slide.job.source.path
            error = f"{path}: {unreadable} of {tiles} tiles cannot be read and are white (flag 1)"
            if slide.read_error:
                error += f"; the first: {slide.read_error.removeprefix(f'{path}: ')}"
        self._end(slide, status, error=error, counts=counts)

    def _fail(self, slide: _Slide, error: BaseException) -> None:
        path = slide.job.source.path
        if isinstance(error, WsiNormError):
            message = str(error)
        elif _of_scheduler(error, "KilledWorker"):
            message = (
                f"{path}: a worker process died on it three times, at last with nothing else to "
                "do (out of memory?); give it more, or leave the slide out"
            )
        else:
            message = (
                f"{path}: unexpected {type(error).__name__}: {error} (a bug: please report it)"
            )
        trace = "".join(traceback.format_exception(error))
        self._end(slide, "failed", error=" ".join(message.split()), traceback=trace)

    def _end(self, slide: _Slide, status: Status, **facts: Any) -> None:
        slide.result = SlideResult(
            name=slide.job.source.name,
            slide=str(slide.job.source.path),
            store=str(slide.job.store),
            status=status,
            warnings=slide.warnings,
            unreadable_at=tuple(sorted(slide.unreadable_at)),
            seconds=time.perf_counter() - slide.began if slide.began else 0.0,
            spent=slide.spent,
            tiles_written=slide.tiles_written,
            **facts,
        )
        self._failed |= not slide.result.ok
        self._on_event(slide.result)

    def _refuse_same_names(self) -> None:
        clashing = same_names(job.source for job in self.jobs)
        for slide in self._slides:
            if slide.job.source.name.casefold() in clashing:
                self._end(
                    slide,
                    "failed",
                    error=f"{slide.job.source.path}: another slide of this run would also be "
                    f"written to {slide.job.store.name}; rename one, or give a column 'name' in "
                    "--slides-csv",
                )

    def _refuse_silent(self) -> None:
        for slide in self._slides:
            if slide.job.source.silent is not None and slide.result is None:
                self._end(
                    slide,
                    "failed",
                    error=f"{slide.job.source.silent}: does not answer within {ANSWER_SECONDS:g} s "
                    "(a mount that is gone?); run the same command again when it does",
                )


def _failure(future: Any) -> BaseException | None:
    """Why there is no result, of a future of dask or of concurrent.futures; None if there is.

    Dask's future that was done is so no more once the worker that kept its result has died.
    """
    status = getattr(future, "status", None)  # dask's
    if status == "finished":
        return None
    if status in {"lost", "pending"}:
        return ResultLostError()
    error: BaseException | None = future.exception()
    return RuntimeError(f"the task was {status}") if status and error is None else error


def _of_scheduler(error: BaseException | None, kind: str) -> bool:
    """Whether an error is of this kind of dask's scheduler; where dask is not loaded, none is."""
    scheduler = sys.modules.get("distributed.scheduler")
    return scheduler is not None and isinstance(error, getattr(scheduler, kind))
