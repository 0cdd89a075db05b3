"""Functions for child processes that run wsi-norm itself, or parts of it in the same layout."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.machine import Clock
from benchmarks.slides import MPP_UM
from wsi_norm.config import run_config
from wsi_norm.machine import peak_memory_bytes
from wsi_norm.normalizers.model import Model
from wsi_norm.pipeline import Prepared, ShardResult, SlideJob, estimate
from wsi_norm.pipeline.kept import kept_normalizer, kept_slide, kept_store
from wsi_norm.pipeline.tiles import read_tiles
from wsi_norm.runner import Event, ShardWritten, SlidePlanned
from wsi_norm.runner.checks import check_output, checked_model
from wsi_norm.runner.cluster import workers as workers_of
from wsi_norm.runner.drive import Drive, Tasks
from wsi_norm.sources import SlideSource, find_slides
from wsi_norm.stages import Seconds
from wsi_norm.store import Counts, TileFlag, TileStore

NOOP_SHARDS = 1_000


def normalize(
    slides: list[str],
    output: str,
    workers: int | None,
    statistics: str = "slide",
    only: str | None = None,
    device: str = "cpu",
    **settings: str,
) -> dict[str, Any]:
    """A run without its report; `only` puts "decode" or "decode_and_write" in a shard's place.

    The steady figures run from the first slide's plan to the last shard. Before that come the
    start of Python, of the workers, of the layer in each (`ready_at`), and the plan.
    """
    clock, ready = Clock(), Clock()

    def on_event(event: Event) -> None:
        if isinstance(event, SlidePlanned) and not clock.ticks:
            clock.tick()
        elif isinstance(event, ShardWritten):
            clock.tick(event.tiles)

    settings |= {"output": output, "statistics": statistics}
    config = run_config(mpp=MPP_UM, device=device, workers=workers, **settings)
    check_output(config.output)
    model, _ = checked_model(config)
    drive = Drive(config, model, find_slides(slides, None, False), on_event, TASKS[only])
    with workers_of(config) as client:
        client.run(warm_up, drive.jobs[0])
        ready.tick()
        drive.run(client)
    failed = [slide.error for slide in drive.results() if slide.status != "done"]
    if failed:
        raise RuntimeError(failed[0])
    return {
        **clock.rate(),
        "ready_at": ready.ticks[0][0],
        "later_tiles": clock.ticks[-1][1] - clock.ticks[1][1],
        "later_s": clock.ticks[-1][0] - clock.ticks[1][0],
        "peak_worker_mb": max(drive.peak_memory_bytes.values()) / 2**20,
    }


def warm_up(job: SlideJob) -> None:
    """In every worker: import everything, load and, where it is compiled, compile the layer."""
    estimate(job)
    kept_normalizer(job.model, job.config).warm_up()


def decode_and_write(job: SlideJob, shard: int) -> ShardResult:
    """A shard as it is."""
    store, tiles = _read(job, shard)
    store.write_shard(shard, tiles, np.zeros(len(tiles), np.uint8))
    return _result(shard, len(tiles))


def decode(job: SlideJob, shard: int) -> ShardResult:
    """A shard's tiles, and nothing else."""
    return _result(shard, len(_read(job, shard)[1]))


def _read(job: SlideJob, shard: int) -> tuple[TileStore, np.ndarray]:
    torch.set_num_threads(1)
    layout = kept_store(job.store)
    tiles = [layout.grid.tile_at(x, y) for x, y in layout.coords[layout.store.rows(shard)].tolist()]
    return layout.store, read_tiles(kept_slide(job, layout.store.meta), layout.grid, tiles)[0]


def _result(shard: int, tiles: int) -> ShardResult:
    return ShardResult(
        shard=shard,
        tiles=tiles,
        unreadable=(),
        first_read_error=None,
        worker=f"{platform.node()}:{os.getpid()}",
        peak_memory_bytes=peak_memory_bytes(),
    )


def finish_unchecked(job: SlideJob) -> Counts:
    """One readable tile, so that the slide is done."""
    return {"tiles": 1, TileFlag.UNREADABLE.key: 0}


def schedule(tasks: int, workers: int) -> dict[str, Any]:
    """No-op shards through a run's submission window: ms a task, memory of this process."""
    config = run_config(output=Path("nowhere"), workers=workers, device="cpu")
    slides = [SlideSource(Path(f"{i}.svs"), str(i)) for i in range(max(1, tasks // NOOP_SHARDS))]
    clock, memory, me = Clock(), [], psutil.Process()
    every = max(1, tasks // 20)
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
        drive.run(client)
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


TASKS = {
    None: Tasks(),
    "decode": Tasks(process_shard=decode, finish=finish_unchecked),
    "decode_and_write": Tasks(process_shard=decode_and_write, finish=finish_unchecked),
}


def _ms(start: tuple[float, int], end: tuple[float, int]) -> float:
    return 1e3 * (end[0] - start[0]) / (end[1] - start[1])
