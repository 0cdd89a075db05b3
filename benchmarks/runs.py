"""Functions for child processes that run wsi-norm itself, or parts of it in the same layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
from distributed import Client

from benchmarks.machine import Clock
from benchmarks.slides import MPP_UM
from wsi_norm.config import run_config
from wsi_norm.lstainnorm.checkpoint import sha256_of
from wsi_norm.pipeline import (
    Model,
    Prepared,
    Seconds,
    ShardResult,
    SlideJob,
    estimate,
    process_shard,
    shards,
)
from wsi_norm.pipeline.kept import kept_normalizer
from wsi_norm.runner import drive
from wsi_norm.sources import SlideSource
from wsi_norm.store import Counts, TileStore

NOOP_SHARDS = 1_000


def normalize(
    slides: list[str],
    output: str,
    workers: int,
    statistics: str = "slide",
    only: str | None = None,
    **settings: str,
) -> dict[str, Any]:
    """`wsi_norm.run`; `only` puts "decode" or "decode_and_write" in place of a shard's whole work.

    The steady figures run from the first slide's plan to the last shard. Before that come the
    start of Python, of the workers, of the layer in each (`ready_at`), and the plan.
    """
    clock, ready = Clock(), Clock()
    if only is not None:
        drive.process_shard = {"decode": decode, "decode_and_write": decode_and_write}[only]
        drive.finish = finish_unchecked
    start = drive._Drive.run

    def with_warm_workers(self: Any, client: Client) -> None:
        client.run(warm_up, self.slides[0].job)
        ready.tick()
        start(self, client)

    def on_event(event: drive.Event) -> None:
        if isinstance(event, drive.SlidePlanned) and not clock.ticks:
            clock.tick()
        elif isinstance(event, drive.ShardWritten):
            clock.tick(event.tiles)

    drive._Drive.run = with_warm_workers
    settings |= {"output": output, "statistics": statistics}
    config = run_config(mpp=MPP_UM, device="cpu", report=False, workers=workers, **settings)
    summary = drive.run(slides, config, on_event)
    failed = [slide.error for slide in summary.slides if slide.status != "done"]
    if failed:
        raise RuntimeError(failed[0])
    return {
        **clock.rate(),
        "ready_at": ready.ticks[0][0],
        "later_tiles": clock.ticks[-1][1] - clock.ticks[1][1],
        "later_s": clock.ticks[-1][0] - clock.ticks[1][0],
        "peak_worker_mb": max(summary.peak_memory_bytes.values()) / 2**20,
    }


def warm_up(job: SlideJob) -> None:
    """In every worker: import everything, load and, where it is compiled, compile the layer."""
    estimate(job)
    tile = np.random.default_rng(0).integers(90, 250, (1, 256, 256, 3), dtype=np.uint8)
    normalizer = kept_normalizer(job.model, job.config)
    normalizer.normalize(tile, normalizer.measure(tile))


class Identity:
    """In place of a Normalizer."""

    def normalize(self, tiles: np.ndarray, *_: object) -> tuple[np.ndarray, np.ndarray]:
        """Leave the tiles as they are."""
        return tiles, np.ones(len(tiles), np.bool_)


def decode_and_write(job: SlideJob, shard: int) -> ShardResult:
    shards.kept_normalizer = lambda *_: Identity()
    return process_shard(job, shard)


def decode(job: SlideJob, shard: int) -> ShardResult:
    TileStore.write_shard = lambda *_: None
    return decode_and_write(job, shard)


def finish_unchecked(job: SlideJob) -> Counts:
    return Counts(tiles=1, unreadable=0, passed_through=0, edge=0)


def schedule(tasks: int, workers: int) -> dict[str, Any]:
    """No-op shards through a run's submission window: ms a task, memory of this process."""
    drive.prepare, drive.process_shard, drive.finish = noop_prepare, noop_shard, finish_unchecked
    config = run_config(output=Path("nowhere"), workers=workers, device="cpu")
    slides = [SlideSource(Path(f"{i}.svs"), str(i)) for i in range(max(1, tasks // NOOP_SHARDS))]
    clock, memory, me = Clock(), [], psutil.Process()
    every = max(1, tasks // 20)
    done = 0

    def on_event(event: drive.Event) -> None:
        nonlocal done
        done += isinstance(event, drive.ShardWritten)
        if isinstance(event, drive.ShardWritten) and done % every == 0:
            clock.tick(every)
            memory.append(me.memory_info().rss / 2**20)

    run = drive._Drive(config, Model(None, sha256_of(None)), slides, on_event)
    with drive.workers(config) as client:
        run.run(client)
    times = clock.ticks
    middle = len(times) // 2
    return {
        "tasks": done,
        "ms_per_task": _ms(times[0], times[-1]),
        "ms_per_task_first_half": _ms(times[0], times[middle]),
        "ms_per_task_second_half": _ms(times[middle], times[-1]),
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
