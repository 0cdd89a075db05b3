"""The worker processes that a run starts here: watched, replaced when they end, ended together."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Nanny, Status

from wsi_norm.runner import forkserver
from wsi_norm.runner.processes import ended, how_it_ended

STARTS = 3
"""How often in a row a worker process may end while it starts, before it is given up."""

CLOSE_SECONDS = 0.5
"""How long a worker process that has nothing to do any more may take to end."""

LEAST_CLOSE_SECONDS = 30
"""How long one that was killed may take to be gone: dask raises an error where it is not."""

START_SECONDS = 120
"""How long a start may take at least, before it counts as frozen."""

LOOK_SECONDS = 0.05


class WorkerEndedError(RuntimeError):
    """A worker process ended while it started."""


class Crew:
    """What is known of a run's worker processes, each of which has a nanny.

    Parameters
    ----------
    start_s
        Seconds after which a worker process that is still starting counts as frozen, if these are
        more than START_SECONDS.
    """

    def __init__(self, start_s: float = START_SECONDS) -> None:
        self.start_s = max(start_s, START_SECONDS)
        self.nannies: list[WatchedNanny] = []
        self.is_ending = False
        self._news: SimpleQueue[str] = SimpleQueue()
        self._lost: list[str] = []

    def news(self) -> list[str]:
        """What has happened since this was last asked, a line each."""
        lines = []
        with suppress(Empty):
            while True:
                lines.append(self._news.get_nowait())
        return lines

    def lost(self) -> str | None:
        """Why no worker process is left, nor will be; None if there is one, or one starts."""
        return self._lost[-1] if len(self._lost) == len(self.nannies) else None

    def say(self, line: str) -> None:
        """Add to the news."""
        self._news.put(line)

    def give_up(self, why: str) -> None:
        """A worker process is gone for good."""
        self._lost.append(why)
        if left := len(self.nannies) - len(self._lost):
            self.say(f"{why}; the run goes on with {left} of {len(self.nannies)} worker processes")

    def restart(self, address: str) -> bool:
        """Whether there was a worker at an address, whose process is now ended for another one."""
        for nanny in self.nannies:
            if nanny.worker_address == address:
                nanny.was_told = True
                nanny.kill_process()
                return True
        return False

    def end(self) -> None:
        """End all worker processes at once, those that are starting, too; start none any more."""
        self.is_ending = True
        for nanny in self.nannies:
            nanny.kill_process()


class WatchedNanny(Nanny):  # type: ignore[misc] # dask's
    """A nanny that tells its crew how its worker process ended, and does not try for ever."""

    def __init__(self, *arguments: Any, crew: Crew, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.was_told = False
        self._crew = crew
        self._is_up = self._is_late = False
        self._ended_with: int | None = None
        self._failed_starts = 0
        self._is_given_up = False
        crew.nannies.append(self)

    def kill_process(self) -> None:
        """End the worker process, if there is one just now."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def instantiate(self) -> Status:
        """Start the worker process; WorkerEndedError where it ends instead."""
        self._is_late = False
        forkserver.ensure()
        guard = asyncio.create_task(self._guard_start())
        try:
            status = await super().instantiate()
        except EOFError as error:
            self._give_up(why := self._why())
            raise WorkerEndedError(why) from error
        except Exception as error:
            self._give_up(f"a worker process cannot be started: {error}")
            raise
        finally:
            guard.cancel()
        if status != Status.running:
            raise WorkerEndedError(self._why())
        self._is_up, self._failed_starts = True, 0
        return status

    async def close(self, timeout: float = CLOSE_SECONDS, reason: str = "nanny-close") -> Any:
        """End it with its worker process, which is killed if it takes its time."""
        killing = asyncio.create_task(self._kill_late())
        try:
            return await super().close(max(timeout, LEAST_CLOSE_SECONDS), reason)
        finally:
            killing.cancel()

    async def _kill_late(self) -> None:
        await asyncio.sleep(CLOSE_SECONDS)
        while True:
            self.kill_process()
            await asyncio.sleep(LOOK_SECONDS)

    async def _guard_start(self) -> None:
        """End a process that starts for too long, or is not wanted any more."""
        late = time.monotonic() + self._crew.start_s
        while not self._crew.is_ending and time.monotonic() < late:
            await asyncio.sleep(LOOK_SECONDS)
        self._is_late = not self._crew.is_ending
        if self._is_late and self.pid is None:
            forkserver.kill()  # which does not fork
        while True:
            self.kill_process()
            await asyncio.sleep(LOOK_SECONDS)

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        """Let another one be started, which dask does while the nanny itself runs."""
        was_up, self._is_up, self._ended_with = self._is_up, False, exitcode
        was_told, self.was_told = self.was_told, False
        if self._crew.is_ending:
            return
        if self.status == Status.running:
            self._failed_starts = 0 if was_up else self._failed_starts + 1
            if self._failed_starts == STARTS:
                self._give_up(self._why())
                return
            if not was_told:
                when = "" if was_up else " while it started"
                self._crew.say(
                    f"a worker process {how_it_ended(exitcode)}{when}; another one is started"
                )
        elif was_up and self.status in {Status.init, Status.starting}:
            self._give_up(self._why())
        super()._on_worker_exit_sync(exitcode)

    def _why(self) -> str:
        """Of a start that failed."""
        if self._is_late:
            return f"a worker process did not start within {self._crew.start_s:g} s"
        return ended(self._ended_with)

    def _give_up(self, why: str) -> None:
        if not (self._is_given_up or self._crew.is_ending):
            self._is_given_up = True
            self._crew.give_up(why)
