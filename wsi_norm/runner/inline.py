"""Work in this process, where no other is wanted: no cluster, no dask."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from wsi_norm.config import RunConfig
from wsi_norm.machine import gpu_threads, resolve_device


def is_inline(config: RunConfig) -> bool:
    """Whether a run does its work in its own process."""
    return config.workers == 0 and not (config.scheduler or config.cluster or config.gpus)


class Inline:
    """One thread of this process (with a GPU several), used as `cluster.Workers` are.

    The calling thread stays free to take an interrupt. Leaving the `with` block waits for the task
    at work, which is then whole, and drops the others.
    """

    may_queue = False

    def __init__(self, config: RunConfig) -> None:
        gpu = resolve_device(config.device) != "cpu"
        self._threads = gpu_threads(1) if gpu else 1
        self._pool = ThreadPoolExecutor(self._threads, "wsi-norm")

    def nthreads(self) -> dict[str, int]:
        """Threads of the only worker."""
        return {"inline": self._threads}

    def submit(self, task: Callable[..., Any], *arguments: Any, pure: bool = False) -> Future[Any]:
        """A task to be done; `pure` is dask's word for "twice the same is once", and not used."""
        return self._pool.submit(task, *arguments)

    def result(self, future: Future[Any], timeout_s: float) -> Any:
        """What a task that is done has returned."""
        return future.result(timeout_s)

    def given(self) -> dict[str, set[str]]:
        """None are given to another process."""
        return {}

    def restart(self, address: str) -> None:
        """There is no process to end."""

    def end_holders(self, future: Any) -> None:
        """Results are here."""

    def news(self) -> list[str]:
        """Nothing happens to worker processes."""
        return []

    def lost(self) -> str | None:
        """Never: the worker is this process."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
