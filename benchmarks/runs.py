"""The runner with tasks that do nothing, for child processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import Clock
from wsi_norm.config import run_config
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline import Prepared, ShardResult, SlideJob
from wsi_norm.runner import Event, ShardWritten
from wsi_norm.runner import drive as module
from wsi_norm.runner.cluster import workers as workers_of
from wsi_norm.runner.drive import Drive, Tasks
from wsi_norm.sources import SlideSource
from wsi_norm.stages import Seconds
from wsi_norm.store import Counts, TileFlag

NOOP_SHARDS = 1_000


def finish_unchecked(job: SlideJob) -> Counts:
    """One readable tile, so that the slide is done."""
    return {"tiles": 1, TileFlag.UNREADABLE.key: 0}


def schedule(shards: int, per_task: int, workers: int) -> dict[str, Any]:
    """No-op shards through a run's submission window: ms a shard, memory of this process."""
    module.TASK_SHARDS = per_task
    config = run_config(output=Path("nowhere"), workers=workers, device="cpu")
    slides = [SlideSource(Path(f"{i}.svs"), str(i)) for i in range(max(1, shards // NOOP_SHARDS))]
    clock, memory, me = Clock(), [], psutil.Process()
    every = max(1, shards // 20)
    done = 0

    def on_event(event: Event) -> None:
        nonlocal done
        done += isinstance(event, ShardWritten)
        if isinstance(event, ShardWritten) and done % every == 0:
            clock.tick(every)
            memory.append(me.memory_info().rss / 2**20)

    noops = Tasks(noop_prepare, noop_shard, finish_unchecked)
    drive = Drive(config, Model(), slides, on_event, noops)
    with workers_of(config) as client:
        cpu_s = sum(me.cpu_times()[:2])
        drive.run(client)
    times, cpu_s = clock.ticks, sum(me.cpu_times()[:2]) - cpu_s
    middle = len(times) // 2
    return {
        "shards": done,
        "per_task": per_task,
        "ms": _ms(times[0], times[-1]),
        "ms_first_half": _ms(times[0], times[middle]),
        "ms_second_half": _ms(times[middle], times[-1]),
        "cpu_ms": 1e3 * cpu_s / done,
        "rss_mb": [memory[0], memory[middle], memory[-1]],
    }


def noop_prepare(job: SlideJob) -> Prepared:
    return Prepared(
        tiles=64 * NOOP_SHARDS,
        missing=dict.fromkeys(range(NOOP_SHARDS), 64),
        finished=False,
        damaged=False,
        warnings=(),
        seconds=Seconds(),
    )


def noop_shard(job: SlideJob, shard: int) -> ShardResult:
    return ShardResult(shard=shard, tiles=64, unreadable=(), first_read_error=None)


def _ms(start: tuple[float, int], end: tuple[float, int]) -> float:
    return 1e3 * (end[0] - start[0]) / (end[1] - start[1])
