"""Workers for a run: processes here, one per GPU, a running scheduler, or a described cluster."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import distributed.utils
from distributed import Client, LocalCluster, Scheduler, SpecCluster
from distributed.scheduler import KilledWorker
from distributed.security import Security

from wsi_norm.config import RunConfig, read_yaml
from wsi_norm.errors import ConfigError, WsiNormError
from wsi_norm.machine import default_workers, gpu_threads, malloc_environment, resolve_device
from wsi_norm.runner import forkserver
from wsi_norm.runner.crew import Crew, WatchedNanny, WorkerEndedError
from wsi_norm.runner.processes import ResultLostError, SchedulerGoneError
from wsi_norm.signals import deaf_thread

CONNECT_SECONDS = 30

LOOPBACK = "127.0.0.1"
"""Where what is started here listens: whoever reaches dask's ports can run code."""

PRELOAD = ["wsi_norm.runner.worker"]
"""What worker processes import as they start."""

RESTART_SECONDS = 30
"""How long a frozen worker of a scheduler elsewhere may take to end, before it is dropped."""

OURS: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 0,  # who is to blame is the drive's to find out
    "distributed.scheduler.worker-ttl": None,  # who is frozen, too
    "distributed.deploy.lost-worker-timeout": "1000 days",  # the crew replaces its workers itself
    # Nobody looks at these, which take a share of every core.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
}
"""What dask is not to decide, or watch, where workers are processes of this machine."""

SPAWN = "distributed.nanny.pre-spawn-environ"
METHOD = "distributed.worker.multiprocessing-method"


class Workers:
    """Workers as a drive needs them: a dask client, and what becomes of processes.

    Parameters
    ----------
    client
        Of their scheduler.
    crew
        The worker processes of this machine; None where others start them.

    Attributes
    ----------
    may_queue
        Whether workers may be long in coming, as jobs of a cluster are.
    """

    def __init__(self, client: Client, crew: Crew | None = None) -> None:
        self._client, self._crew = client, crew
        self.may_queue = crew is None

    def nthreads(self) -> dict[str, int]:
        """Threads of each worker, by its address."""
        with _answering():
            threads: dict[str, int] = self._client.nthreads()
        return threads

    def run(self, task: Callable[..., Any], *arguments: Any) -> None:
        """Do something once in every worker process there is."""
        self._client.run(task, *arguments)

    def submit(self, task: Callable[..., Any], *arguments: Any, pure: bool = False) -> Any:
        """A future of a task."""
        return self._client.submit(task, *arguments, pure=pure)

    def given(self) -> dict[str, set[str]]:
        """Keys of the futures whose tasks each worker was given, by its address."""
        with _answering():
            return {address: set(keys) for address, keys in self._client.processing().items()}

    def result(self, future: Any, timeout_s: float) -> Any:
        """What a task that is done has returned.

        Raises
        ------
        TimeoutError
            Its worker keeps it.
        ResultLostError
            Its worker died with it, and dask's own second try failed.
        """
        with _answering():
            try:
                return future.result(timeout=timeout_s)
            except (KilledWorker, WsiNormError) as error:
                raise ResultLostError from error

    def restart(self, address: str) -> None:
        """End a worker's process, whatever it does; another one takes its place."""
        if self._crew is None or not self._crew.restart(address):
            self._client.loop.add_callback(
                self._client.scheduler.restart_workers,
                workers=[address],
                timeout=RESTART_SECONDS,
                wait_for_workers=False,
                on_error="return",
                stimulus_id=f"wsi-norm-restart-{uuid4().hex}",
            )

    def end_holders(self, future: Any) -> None:
        """End the workers that keep the result of a future."""
        with _answering():
            holders = self._client.who_has([future]).get(future.key, ())
        for address in holders:
            self.restart(address)
        future.cancel()

    def news(self) -> list[str]:
        """What has happened to worker processes since this was last asked, a line each."""
        return self._crew.news() if self._crew is not None else []

    def lost(self) -> str | None:
        """Why there is no worker any more, nor will be; None if there may be one."""
        if self._client.status != "running":
            raise SchedulerGoneError
        return self._crew.lost() if self._crew is not None else None


@contextmanager
def _answering() -> Iterator[None]:
    """SchedulerGoneError where the scheduler does not answer any more."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:  # dask's CommClosedError is one
        raise SchedulerGoneError from error


@contextmanager
def workers(config: RunConfig) -> Iterator[Workers]:
    """The workers that a run asks for; what was started here is stopped at the end.

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
        # The run says what there is to say; `silence_logs` does not hold while a cluster closes.
        for name in ("distributed", "distributed.client"):  # dask sets a level of each
            logging.getLogger(name).setLevel(logging.CRITICAL)
        crew: Crew | None = None
        if config.scheduler is not None:
            address: Any = config.scheduler
        elif config.cluster is not None:
            address = stack.enter_context(described_cluster(config.cluster))
        else:
            for index in config.gpus:
                resolve_device(f"cuda:{index}")
            stack.enter_context(dask.config.set({**OURS, METHOD: _method(config)}))
            crew = Crew(config.task_timeout)
            address = stack.enter_context(_started(config, crew))
        try:
            client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS))
        except (OSError, ValueError, TypeError) as error:  # TypeError: no certificate is set
            raise ConfigError(f"{address}: no dask scheduler answers there: {error}") from error
        yield Workers(client, crew)


def _method(config: RunConfig) -> str:
    """How worker processes come to be: forked, where there is a fork server that suits."""
    variables = dask.config.get(SPAWN).items()
    environment = {name: os.environ.get(name, str(value)) for name, value in variables}
    on_cpu = not config.gpus and resolve_device(config.device) == "cpu"
    if not (on_cpu and forkserver.serves(environment)):
        return "spawn"
    distributed.utils._forkserver_preload_set = True  # else dask sets, and imports, its own
    return "forkserver"


@contextmanager
def _started(config: RunConfig, crew: Crew) -> Iterator[SpecCluster]:
    """A cluster of processes here, whose start can be interrupted; an error ends it at once."""

    def start() -> SpecCluster:
        multiprocessing.get_context("spawn").Lock()  # the first thing that a full /dev/shm refuses
        if config.gpus:
            return gpu_cluster(config.gpus, crew)
        return local_cluster(config, crew)

    def close(cluster: Future[SpecCluster]) -> None:
        if cluster.exception() is None:
            with suppress(TimeoutError):  # of a process that even SIGKILL does not end
                cluster.result().close()

    with deaf_thread() as thread:  # which ends last: whatever is started later is deaf, too
        starting = thread.submit(start)
        try:
            with _start_errors():
                cluster = starting.result()
            yield cluster
        except BaseException:
            crew.end()
            raise
        finally:
            thread.submit(close, starting).result()


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
        error = error.__cause__ or error.__context__


def local_cluster(config: RunConfig, crew: Crew) -> LocalCluster:
    """Processes on this machine: one per core that memory allows, or one with threads and a GPU."""
    gpu = resolve_device(config.device) != "cpu"
    number = config.workers
    if number is None:
        number = 1 if gpu else default_workers()[0]
    return LocalCluster(
        n_workers=number,
        threads_per_worker=gpu_threads(1) if gpu else 1,
        worker_class=WatchedNanny,
        dashboard_address=f"{LOOPBACK}:0",
        scheduler_kwargs={"dashboard": False},
        crew=crew,
        silence_logs=logging.CRITICAL,
        preload=PRELOAD,
    )


def gpu_cluster(gpus: tuple[int, ...], crew: Crew) -> SpecCluster:
    """One worker process per GPU, which sees that GPU alone."""
    protocol = "tls" if Security().require_encryption else "tcp"
    return SpecCluster(
        workers={
            f"gpu-{index}": {
                "cls": WatchedNanny,
                "options": {
                    "crew": crew,
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
                "dashboard": False,
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
