"""What workers are forked from: a process that has imported what they need, and shares it.

It is multiprocessing's fork server, of which a process has one. It is started before this process
imports the same, ends with the block that started it, and with this process, however that ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from typing import Any

from wsi_norm.config import RunConfig
from wsi_norm.machine import malloc_environment
from wsi_norm.runner.processes import starts_processes
from wsi_norm.signals import changed_environment, deaf_thread

PRELOAD = ["wsi_norm.runner.preload"]
"""What it imports."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""As dask sets them for its workers; what is set already stays."""

_server: Any = forkserver._forkserver  # nothing public tells its process, or ends it
_thread: Executor | None = None
_environment: Mapping[str, str] = {}


@contextmanager
def fork_server(config: RunConfig) -> Iterator[None]:
    """A fork server for the workers of a run; inside another such block it is that one's.

    There is none where no workers are started here, on other systems than Linux, for GPUs, where
    this process has a fork server of its own already, and where none can be started: workers are
    then spawned, and say what is wrong.
    """
    global _thread, _environment
    if _thread is not None or not _suits(config):
        yield
        return
    with deaf_thread() as thread:
        try:
            with suppress(OSError, RuntimeError):
                added = {**ONE_THREAD, **malloc_environment()}
                _environment = {**added, **os.environ, **malloc_environment()}
                _thread = thread
                ensure()
            yield
        finally:
            _thread = None
            with suppress(RuntimeError):  # of a thread that could not be started
                thread.submit(_end).result()


def serves(environment: Mapping[str, str]) -> bool:
    """Whether there is a fork server whose children have such an environment."""
    is_there = _thread is not None and _server._forkserver_pid is not None
    return is_there and environment.items() <= _environment.items()


def ensure() -> None:
    """Start the fork server anew if it has ended; nothing where there is to be none."""
    if _thread is not None:
        _thread.submit(_start).result()


def kill() -> None:
    """End the fork server, whatever it does, and all that was forked from it."""
    if _thread is not None and _server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(_server._forkserver_pid, signal.SIGKILL)


def _suits(config: RunConfig) -> bool:
    on_gpu = bool(config.gpus) or config.device.startswith("cuda")
    return (
        sys.platform == "linux"
        and starts_processes(config)
        and not on_gpu
        and _server._forkserver_pid is None
    )


def _start() -> None:
    """In the thread that lives as long as the block: the server ends with the thread."""
    places = os.pathsep.join(map(os.path.abspath, sys.path))
    with changed_environment({**_environment, "PYTHONPATH": places, "PYTHONSAFEPATH": "1"}):
        forkserver.set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()


def _end() -> None:
    if (pid := _server._forkserver_pid) is not None:
        os.kill(pid, signal.SIGKILL)
        _server._stop()
