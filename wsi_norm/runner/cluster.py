"""Workers for a run: processes here, one per GPU, a running scheduler, or a described cluster."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster

from wsi_norm.config import RunConfig, read_yaml
from wsi_norm.errors import ConfigError
from wsi_norm.machine import (
    available_cores,
    deaf_to_interrupts,
    malloc_environment,
    resolve_device,
)

MIN_GPU_THREADS, MAX_GPU_THREADS = 4, 32

CONNECT_SECONDS = 30

PRELOAD = ["wsi_norm.pipeline"]
"""What worker processes import as they start: seconds that all of them take at the same time."""

LOST_WORKER = {
    "distributed.scheduler.allowed-failures": 0,  # who is to blame is the drive's to find out
    "distributed.scheduler.no-workers-timeout": "5 minutes",
    "distributed.deploy.lost-worker-timeout": "1 hour",  # a new one may need long to start
}
"""What becomes of a worker process that dies: its nanny starts another one."""

SPAWN = "distributed.nanny.pre-spawn-environ"


@contextmanager
def workers(config: RunConfig) -> Iterator[Client]:
    """A client of the workers that a run asks for; what was started here is stopped at the end.

    Raises
    ------
    ConfigError
        The scheduler does not answer, the cluster's description is wrong, or a GPU is not there.
    """
    with ExitStack() as stack:
        stack.enter_context(
            dask.config.set({SPAWN: {**dask.config.get(SPAWN), **malloc_environment()}})
        )
        if config.scheduler is None and config.cluster is None:
            stack.enter_context(dask.config.set(LOST_WORKER))
        if config.scheduler is not None:
            address: Any = config.scheduler
        elif config.cluster is not None:
            address = stack.enter_context(described_cluster(config.cluster))
        elif config.gpus:
            for index in config.gpus:
                resolve_device(f"cuda:{index}")
            with deaf_to_interrupts():
                address = stack.enter_context(gpu_cluster(config.gpus))
        else:
            with deaf_to_interrupts():
                address = stack.enter_context(local_cluster(config))
        try:
            client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{address}: no dask scheduler answers there: {error}") from error
        yield client


def local_cluster(config: RunConfig) -> LocalCluster:
    """Processes on this machine: one per core, or one with threads where there is a GPU.

    `workers: 0` is one thread of this process.
    """
    gpu = resolve_device(config.device).type == "cuda"
    number = config.workers
    if number is None:
        number = 1 if gpu else available_cores()
    return LocalCluster(
        n_workers=max(1, number),
        threads_per_worker=gpu_threads(1) if gpu else 1,
        processes=number > 0,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
        **({"preload": PRELOAD} if number > 0 else {}),
    )


def gpu_cluster(gpus: tuple[int, ...]) -> SpecCluster:
    """One worker process per GPU, which sees that GPU alone."""
    return SpecCluster(
        workers={
            f"gpu-{index}": {
                "cls": Nanny,
                "options": {
                    "nthreads": gpu_threads(len(gpus)),
                    "env": {"CUDA_VISIBLE_DEVICES": str(index)},
                    "dashboard": False,
                    "silence_logs": logging.CRITICAL,
                    "preload": PRELOAD,
                },
            }
            for index in gpus
        },
        scheduler={"cls": Scheduler, "options": {"dashboard_address": ":0"}},
        silence_logs=logging.CRITICAL,
    )


def described_cluster(file: Path) -> Any:
    """A cluster from a YAML file, such as dask-jobqueue's.

    The file has `class` (for example `dask_jobqueue.SLURMCluster`), `arguments` for it, and `jobs`:
    how many jobs to submit.
    """
    description = read_yaml(file)
    unknown = set(description) - {"class", "arguments", "jobs"}
    if unknown:
        raise ConfigError(f"{file}: unknown key {sorted(unknown)[0]!r} (class, arguments, jobs)")
    module, _, name = str(description.get("class", "")).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{file}: class {module}.{name} cannot be imported: {error}") from error
    try:
        cluster = kind(**(description.get("arguments") or {}))
        if description.get("jobs") is not None:
            cluster.scale(jobs=int(description["jobs"]))
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"{file}: {name} cannot be started: {error}") from error
    return cluster


def gpu_threads(gpus: int) -> int:
    """Threads of a GPU's worker: twice its share of the cores.

    While one waits for the device, the others keep every core at decoding and encoding.
    """
    return min(max(2 * available_cores() // gpus, MIN_GPU_THREADS), MAX_GPU_THREADS)
