"""The drive with tasks that do nothing: what is given away when, and what comes of the answers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster
from distributed.scheduler import NoWorkerError

from wsi_norm import RunConfig
from wsi_norm.errors import StoreError, UnreadableSlideError
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline import Estimate, Prepared, ShardResult, SlideJob
from wsi_norm.report import SlideResult
from wsi_norm.runner import (
    CompilingKernels,
    Event,
    ShardWritten,
    SlidePlanned,
    SlidesFound,
    Stopped,
    WorkerReplaced,
    cluster,
)
from wsi_norm.runner import drive as module
from wsi_norm.runner.cluster import workers
from wsi_norm.runner.drive import TASK_SHARDS, TASKS_PER_THREAD, Drive, Tasks
from wsi_norm.runner.inline import Inline
from wsi_norm.runner.processes import ResultLostError
from wsi_norm.sources import SlideSource
from wsi_norm.stages import Seconds, Stage
from wsi_norm.store import Counts, IccMeta

CONFIG = RunConfig(output=Path("/out"), workers=0, device="cpu")
SHARDS = 4
PREPARED = Prepared(
    tiles=10 * SHARDS,
    missing=dict.fromkeys(range(SHARDS), 10),
    finished=False,
    damaged=False,
    warnings=("a warning",),
    seconds=Seconds({Stage.PLANNING: 2.0}),
)


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by other tests beside these either."""
    monkeypatch.setattr(module.compiled, "under_way", lambda: False)


@pytest.fixture(scope="module", params=["inline", "dask"])
def client(request: pytest.FixtureRequest) -> Iterator[Client | Inline]:
    """One thread of this process, without dask and as a worker of dask."""
    if request.param == "inline":
        with Inline(CONFIG) as inline:
            yield inline
        return
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        workers(CONFIG.model_copy(update={"scheduler": cluster.scheduler_address})) as client,
    ):
        yield client


def prepare(job: SlideJob) -> Prepared:
    return PREPARED


def process_shard(job: SlideJob, shard: int) -> ShardResult:
    return ShardResult(
        shard=shard,
        tiles=10,
        unreadable=(),
        first_read_error=None,
        seconds=Seconds({Stage.READING: 0.5, Stage.WRITING: 0.25}, {Stage.READING: 0.125}),
        worker=f"host:{shard % 2}",
        peak_memory_bytes=100 - shard,
    )


def finish(job: SlideJob) -> Counts:
    return {"tiles": 10 * SHARDS, "unreadable": 0, "passed_through": 3, "edge": 4}


def estimate(job: SlideJob) -> Estimate:
    return Estimate(tiles=7, bytes=1000, seconds=2.5, warnings=("another",), icc=IccMeta())


def broken(*_: object) -> Any:
    raise ZeroDivisionError("oops")


NOTHING = Tasks(prepare, process_shard, finish, broken)


def drive(
    client: Any, tasks: Tasks, slides: int = 1, config: RunConfig = CONFIG
) -> tuple[Drive, list[Event]]:
    """Slides driven to their results, and the events on the way."""
    events: list[Event] = []
    sources = [SlideSource(Path(f"/s/{index}.svs"), str(index)) for index in range(slides)]
    drive = Drive(config, Model(None, "0" * 64), sources, events.append, tasks)
    drive.begin()
    drive.run(client)
    return drive, events


def only_result(client: Client, tasks: Tasks, **settings: Any) -> SlideResult:
    """Of a single slide."""
    (result,) = drive(client, tasks, 1, CONFIG.model_copy(update=settings))[0].results()
    return result


def test_a_result_holds_what_the_tasks_answered(client: Client) -> None:
    driven, events = drive(client, NOTHING)
    (result,) = driven.results()
    assert (result.name, result.slide, result.store) == ("0", "/s/0.svs", "/out/0.zarr")
    assert (result.status, result.error, result.warnings) == ("done", None, ("a warning",))
    assert result.counts == finish(driven.jobs[0])
    assert result.tiles_written == 40
    assert result.spent.wall == {Stage.PLANNING: 2.0, Stage.READING: 2.0, Stage.WRITING: 1.0}
    assert result.spent.cpu == {Stage.READING: 0.5}
    assert driven.peak_memory_bytes == {"host:0": 100, "host:1": 99}
    assert driven.threads == 1
    assert events == [
        SlidesFound(1),
        SlidePlanned("0", 40),
        *[ShardWritten("0", 10)] * SHARDS,
        result,
    ]


def test_that_kernels_are_compiled_is_told_once(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOW_SECONDS", 0.0)  # it looks whenever a task is done
    monkeypatch.setattr(module.compiled, "under_way", lambda: True)
    assert drive(client, NOTHING)[1].count(CompilingKernels()) == 1


class Counting:
    """A client that counts what is submitted, and what is out at once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._out: list[Any] = []
        self.most = 0
        self.submitted: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def submit(self, *arguments: Any, **options: Any) -> Any:
        future = self._client.submit(*arguments, **options)
        self.submitted.append(arguments)
        self._out = [*(other for other in self._out if not other.done()), future]
        self.most = max(self.most, len(self._out))
        return future


def test_few_tasks_are_out_and_slides_are_ended_before_others_are_begun(client: Client) -> None:
    """So that memory does not grow with the number of slides."""
    counting = Counting(client)
    driven, events = drive(counting, NOTHING, slides=20)
    assert [result.name for result in driven.results()] == [str(index) for index in range(20)]
    assert {result.status for result in driven.results()} == {"done"}
    assert 1 < counting.most <= TASKS_PER_THREAD
    open_slides = most_open = 0
    for event in events:
        open_slides += isinstance(event, SlidePlanned) - isinstance(event, SlideResult)
        most_open = max(most_open, open_slides)
    assert most_open <= TASKS_PER_THREAD + 1


DONE: list[tuple[str, int]] = []
MANY = 41


def prepare_many(job: SlideJob) -> Prepared:
    return replace(PREPARED, tiles=10 * MANY, missing=dict.fromkeys(range(MANY), 10))


def noted(job: SlideJob, shard: int) -> ShardResult:
    DONE.append((job.source.name, shard))
    return process_shard(job, shard)


@pytest.mark.parametrize("seconds", [-1.0, 60.0])
def test_every_shard_is_done_once_by_few_tasks_or_many(
    client: Client, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Where a shard takes as long as a task may, each is a task; else a task takes several."""
    monkeypatch.setattr("wsi_norm.pipeline.shards.TASK_SECONDS", seconds)
    DONE.clear()
    counting = Counting(client)
    tasks = Tasks(prepare_many, noted, finish, broken)
    driven, events = drive(counting, tasks, slides=3)
    assert {result.status for result in driven.results()} == {"done"}
    assert [result.tiles_written for result in driven.results()] == [10 * MANY] * 3
    assert events.count(ShardWritten("1", 10)) == MANY
    assert sorted(DONE) == sorted(
        (str(slide), shard) for slide in range(3) for shard in range(MANY)
    )
    given = [(job.source.name, shards) for _, job, *rest in counting.submitted for shards in rest]
    if seconds < 0:
        assert len(given) == 3 * MANY
    else:
        for slide in "012":  # dask may do tasks in another order than that in which it gets them
            assert [n for name, shards in given if name == slide for n in shards] == [*range(MANY)]
        assert max(len(shards) for _, shards in given) == TASK_SHARDS
        assert len(given) < MANY  # fewer of them a task where a slide, or the run, ends


def finished(job: SlideJob) -> Prepared:
    return replace(PREPARED, finished=True, missing={})


def damaged(job: SlideJob) -> Prepared:
    return replace(PREPARED, damaged=True)


def skipped(job: SlideJob) -> Prepared:
    return replace(finished(job), counts=empty(job) | {"tiles": 7})


def test_what_is_finished_needs_no_other_task(client: Client) -> None:
    result = only_result(client, Tasks(skipped, broken, broken, broken))
    assert (result.status, result.tiles, result.ok) == ("skipped", 7, True)


def empty(job: SlideJob) -> Counts:
    return dict.fromkeys(("tiles", "unreadable", "passed_through", "edge"), 0)


def unreadable(job: SlideJob) -> Counts:
    return finish(job) | {"unreadable": 6}


@pytest.mark.parametrize(
    ("tasks", "status", "ok"),
    [
        ({}, "done", True),
        ({"prepare": damaged}, "damaged", True),
        ({"finish": unreadable}, "damaged", False),
        ({"finish": empty}, "empty", True),
        ({"prepare": finished}, "skipped", True),
        ({"prepare": finished, "finish": unreadable}, "skipped", False),
    ],
)
def test_the_status_of_a_slide(
    client: Client, tasks: dict[str, Any], status: str, ok: bool
) -> None:
    result = only_result(client, replace(NOTHING, **tasks))
    assert (result.status, result.ok) == (status, ok)


def half_read(job: SlideJob, shard: int) -> ShardResult:
    corner, error = (1000 - shard, 2), f"/s/0.svs: cannot read shard {shard}"
    done = process_shard(job, shard)
    return replace(done, unreadable=(corner,), first_read_error=error) if shard > 1 else done


def test_unreadable_tiles_are_told_with_the_first_of_their_errors(client: Client) -> None:
    result = only_result(client, replace(NOTHING, process_shard=half_read, finish=unreadable))
    assert result.error == (
        "/s/0.svs: 6 of 40 tiles cannot be read and are white (flag 1); "
        "the first: cannot read shard 2"
    )
    assert result.unreadable_at == ((997, 2), (998, 2))


def test_a_dry_run_estimates_and_does_nothing_else(client: Client) -> None:
    tasks = Tasks(broken, broken, broken, estimate)
    result = only_result(client, tasks, dry_run=True)
    assert (result.status, result.tiles, result.warnings) == ("planned", 7, ("another",))
    assert (result.expected_bytes, result.expected_seconds) == (1000, 2.5)


def refused(job: SlideJob) -> Counts:
    raise StoreError(f"{job.store}: two\n lines")


def test_an_error_is_one_line(client: Client) -> None:
    result = only_result(client, replace(NOTHING, finish=refused))
    assert (result.status, result.error) == ("failed", r"/out/0.zarr: two\n lines")
    assert result.tiles_written == 40


@pytest.mark.parametrize("task", ["prepare", "process_shard", "finish"])
def test_a_bug_in_a_task_is_one_slides_failure(client: Client, task: str) -> None:
    result = only_result(client, replace(NOTHING, **{task: broken}))
    assert result.status == "failed"
    assert "/s/0.svs: unexpected ZeroDivisionError: oops" in (result.error or "")
    assert "ZeroDivisionError" in (result.traceback or "")


# --- workers that die


def deadly(job: SlideJob, shard: int) -> ShardResult:
    """Out of memory, say, on the second slide."""
    if job.source.name == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return process_shard(job, shard)


def deadly_unless_apart(job: SlideJob) -> Prepared:
    """A reader's crash on the first slide, as far as a worker is concerned."""
    if job.source.name == "0":
        if not job.apart:
            os.kill(os.getpid(), signal.SIGSEGV)
        raise UnreadableSlideError(f"{job.source.path}: its reader crashed")
    return PREPARED


@pytest.fixture
def for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let worker processes find this file's functions: they have no package `tests` of ours."""
    name = Path(__file__).stem
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setitem(sys.modules, name, sys.modules[__name__])
    for task in (prepare, process_shard, finish, deadly, deadly_unless_apart, death):
        monkeypatch.setattr(task, "__module__", name)


@pytest.mark.usefixtures("for_workers")
def test_the_slide_that_kills_workers_fails_and_no_other() -> None:
    """All tasks that a dead worker was given come back; only its killer is to blame."""
    tasks = Tasks(deadly_unless_apart, deadly, finish, broken)
    config = CONFIG.model_copy(update={"workers": 1})
    with workers(config) as client:
        results = drive(client, tasks, 4, config)[0].results()
    assert [result.status for result in results] == ["failed", "failed", "done", "done"]
    assert results[0].error == "/s/0.svs: its reader crashed"
    assert "/s/1.svs: a worker process died on it three times" in (results[1].error or "")


class NoWorkers(Counting):
    """A client whose workers are gone for good, as dask tells it."""

    def submit(self, task: Any, *arguments: Any, **options: Any) -> Any:
        return super().submit(no_worker, **options)


def no_worker() -> None:
    raise NoWorkerError("prepare-1", 300.0)


def test_a_run_without_workers_ends(client: Client) -> None:
    driven, _ = drive(NoWorkers(client), NOTHING, slides=3)
    assert {result.status for result in driven.results()} == {"interrupted"}


# --- workers that stand still, and that do not come back


class StandStill:
    """One worker without a process: what is asked of some slides never ends there.

    `stuck` says how often for each slide.
    """

    may_queue = False

    def __init__(self, stuck: dict[str, int], mishaps: int = 0) -> None:
        self.stuck, self.mishaps = stuck, mishaps
        self.restarted = self._name = 0
        self._queue: dict[Any, Any] = {}

    def nthreads(self) -> dict[str, int]:
        """A worker that is to end is there for a while."""
        present, self._name = self._name, self.restarted
        return {f"w{present}": 1}

    def submit(self, do: Any, job: SlideJob, *arguments: Any, **_: Any) -> Any:
        assert self._name == self.restarted, "a task is given to a worker that is to end"
        future = Future[Any]()
        future.key = object()  # type: ignore[attr-defined] # dask's have it
        self._queue[future] = do, job, arguments
        return future

    def result(self, future: Any, timeout_s: float) -> Any:
        return future.result(timeout_s)

    def given(self) -> dict[str, set[Any]]:
        """Do what comes before the first task that stands still, and say what is left."""
        for future, (do, job, arguments) in list(self._queue.items()):
            if self.stuck.get(job.source.name, 0):
                break
            del self._queue[future]
            if future.set_running_or_notify_cancel():
                future.set_result(do(job, *arguments))
        return {f"w{self._name}": {future.key for future in self._queue}}

    def restart(self, address: str) -> None:
        self.restarted += 1
        (_, job, _), *_ = self._queue.values()
        self.stuck[job.source.name] -= 1
        self._queue.clear()

    def news(self) -> list[str]:
        self.mishaps -= 1
        return ["a worker process was ended"] if self.mishaps >= 0 else []

    def lost(self) -> str | None:
        return None


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Settings of a run that looks often and waits for little."""
    monkeypatch.setattr(module, "WINDOW_SECONDS", 0.001)
    return CONFIG.model_copy(update={"task_timeout": 0.02})


def test_a_task_that_stands_still_is_done_by_another_worker(soon: RunConfig) -> None:
    """The tasks behind it, too; and its slide has one more worker left."""
    client = StandStill({"1": 2})
    driven, events = drive(client, NOTHING, 3, soon)
    assert [result.status for result in driven.results()] == ["done"] * 3
    assert client.restarted == 2
    lines = [event.line for event in events if isinstance(event, WorkerReplaced)]
    assert (
        lines == ["/s/1.svs: no progress in 0.02 s; its worker is ended, and another one tries"] * 2
    )


def test_a_slide_on_which_three_workers_stand_still_fails_and_no_other(soon: RunConfig) -> None:
    client = StandStill({"1": 99})
    results = drive(client, NOTHING, 3, soon)[0].results()
    assert [result.status for result in results] == ["done", "failed", "done"]
    assert "/s/1.svs: no progress in 0.02 s, 3 times" in (results[1].error or "")
    assert "--task-timeout" in (results[1].error or "")
    assert client.restarted == 3


def test_a_run_whose_workers_die_of_nothing_ends(soon: RunConfig) -> None:
    """Of too little memory for all, say: thousands of slides would fail, three deaths each."""
    driven, events = drive(StandStill({"0": 99}, mishaps=10**6), NOTHING, 3, CONFIG)
    assert {result.status for result in driven.results()} == {"interrupted"}
    (stopped,) = [event for event in events if isinstance(event, Stopped)]
    assert "31 worker processes ended, one after the other, with nothing done" in stopped.line


class Keeper(StandStill):
    """Its worker stands still as it has done the third task, whose result lies with it."""

    def __init__(self) -> None:
        super().__init__({})
        self.given_away = self.ended = 0

    def submit(self, do: Any, job: SlideJob, *arguments: Any, **_: Any) -> Any:
        future = super().submit(do, job, *arguments)
        self.given_away += 1
        if self.given_away == 3:
            future.result = self._late
        return future

    @staticmethod
    def _late(timeout: float | None = None) -> Any:
        assert timeout is not None, "waited for without end"
        raise TimeoutError

    def end_holders(self, future: Any) -> None:
        self.ended += 1


def test_a_result_that_its_worker_keeps_is_computed_anew(soon: RunConfig) -> None:
    client = Keeper()
    driven, events = drive(client, NOTHING, 3, soon)
    assert [result.status for result in driven.results()] == ["done"] * 3
    assert client.ended == 1
    lines = [event.line for event in events if isinstance(event, WorkerReplaced)]
    assert lines == ["a worker does not answer; it is ended"]


class Loser(Keeper):
    """The same, but it dies, and the result with it."""

    @staticmethod
    def _late(timeout: float | None = None) -> Any:
        raise ResultLostError


def test_a_result_that_dies_with_its_worker_is_computed_anew(soon: RunConfig) -> None:
    client = Loser()
    driven, _ = drive(client, NOTHING, 3, soon)
    assert [result.status for result in driven.results()] == ["done"] * 3
    assert client.ended == 0


class Forgetter(Keeper):
    """It dies before the drive has looked at the third task that was done: dask begins it anew."""

    def __init__(self, status: str) -> None:
        super().__init__()
        self._status = status

    def submit(self, do: Any, job: SlideJob, *arguments: Any, **_: Any) -> Any:
        future = super().submit(do, job, *arguments)
        if self.given_away == 3:
            future.status = self._status
            future.exception = self._late
        return future


@pytest.mark.parametrize("status", ["lost", "pending"])
def test_a_result_that_was_there_is_computed_anew(soon: RunConfig, status: str) -> None:
    client = Forgetter(status)
    driven, events = drive(client, NOTHING, 3, soon)
    assert [result.status for result in driven.results()] == ["done"] * 3
    assert not [event for event in events if isinstance(event, WorkerReplaced)]


def death(job: SlideJob) -> Prepared:
    """From here on no worker process gets up."""
    (job.config.output / "no more").touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.usefixtures("for_workers")
def test_a_run_ends_when_no_worker_can_be_started_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends.py").write_text(
        f"import os\nif os.path.exists({str(tmp_path / 'no more')!r}): os._exit(7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cluster, "PRELOAD", ["ends"])
    config = CONFIG.model_copy(update={"workers": 1, "output": tmp_path})
    with workers(config) as client:
        driven, events = drive(client, replace(NOTHING, prepare=death), 2, config)
    assert {result.status for result in driven.results()} == {"interrupted"}
    assert [event.line for event in events if isinstance(event, WorkerReplaced)] == [
        "a worker process was ended by SIGKILL (out of memory?); another one is started",
        *["a worker process ended with exit status 7 while it started; another one is started"] * 2,
    ]
    (stopped,) = [event for event in events if isinstance(event, Stopped)]
    assert "ended with exit status 7 while it started" in stopped.line
