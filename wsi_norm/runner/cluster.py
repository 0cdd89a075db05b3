"""Workers for a run: processes here, one per GPU, a running scheduler, or a described cluster."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster, Status
from distributed.security import Security

from wsi_norm.config import RunConfig, read_yaml
from wsi_norm.errors import ConfigError
from wsi_norm.machine import (
    available_cores,
    deaf_to_interrupts,
    gpu_threads,
    malloc_environment,
    resolve_device,
)
from wsi_norm.runner.processes import ended

CONNECT_SECONDS = 30

LOOPBACK = "127.0.0.1"
"""Where what is started here listens: whoever reaches dask's ports can run code."""

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
        The scheduler does not answer, the cluster's description is wrong, a GPU is not there, or no
        worker process can be started.
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
            with deaf_to_interrupts(), _start_errors():
                address = stack.enter_context(gpu_cluster(config.gpus))
        else:
            with deaf_to_interrupts(), _start_errors():
                address = stack.enter_context(local_cluster(config))
        try:
            client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS))
        except (OSError, ValueError, TypeError) as error:  # TypeError: no certificate is set
            raise ConfigError(f"{address}: no dask scheduler answers there: {error}") from error
        yield client


class WorkerEndedError(RuntimeError):
    """A worker process ended while it started; `status` is its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(ended(status))
        self.status = status


class WatchedNanny(Nanny):  # type: ignore[misc] # dask's
    """A nanny that tells how its worker process ended, where dask says that it did not start."""

    ended_with: int | None = None

    async def instantiate(self) -> Status:
        """Start the worker process; WorkerEndedError where it ends instead."""
        status = await super().instantiate()
        if status != Status.running and self.ended_with is not None:
            raise WorkerEndedError(self.ended_with)
        return status

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        self.ended_with = exitcode
        super()._on_worker_exit_sync(exitcode)


@contextmanager
def _start_errors() -> Iterator[None]:
    """What dask raises where workers do not start, as ConfigError without dask's hundred lines."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        causes = list(_chain(error))
        known = [str(cause) for cause in causes if isinstance(cause, WorkerEndedError)]
        said = known[0] if known else f"worker processes cannot be started: {causes[-1]}"
        raise ConfigError(said) from None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def local_cluster(config: RunConfig) -> LocalCluster:
    """Processes on this machine: one per core, or one with threads where there is a GPU."""
    gpu = resolve_device(config.device).type == "cuda"
    number = config.workers
    if number is None:
        number = 1 if gpu else available_cores()
    return LocalCluster(
        n_workers=number,
        threads_per_worker=gpu_threads(1) if gpu else 1,
        worker_class=WatchedNanny,
        dashboard_address=f"{LOOPBACK}:0",
        silence_logs=logging.CRITICAL,
        preload=PRELOAD,
    )


def gpu_cluster(gpus: tuple[int, ...]) -> SpecCluster:
    """One worker process per GPU, which sees that GPU alone."""
    protocol = "tls" if Security().require_encryption else "tcp"
    return SpecCluster(
        workers={
            f"gpu-{index}": {
                "cls": WatchedNanny,
                "options": {
                    "nthreads": gpu_threads(len(gpus)),
                    "host": LOOPBACK,
                    "protocol": protocol,
                    "env": {"CUDA_VISIBLE_DEVICES": str(index)},
                    "dashboard": False,
                    "silence_logs": logging.CRITICAL,
                    "preload": PRELOAD,
                },
            }
            for index in gpus
        },
        scheduler={
            "cls": Scheduler,
            "options": {
                "host": LOOPBACK,
                "protocol": protocol,
                "dashboard_address": f"{LOOPBACK}:0",
            },
        },
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
