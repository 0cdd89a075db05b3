"""Commands in processes of their own: started, watched, disturbed, and all gone at the end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import uuid4

T = TypeVar("T")

MARK = "WSI_NORM_FAULTS"
"""A variable that all processes of a command inherit, whatever sessions and groups they are in."""

LIMIT = 120.0
"""Seconds in which whatever is waited for has to come, on a machine that others use, too."""

POLL = 0.002
PROGRAM = ("-c", "from wsi_norm_cli.main import main; main()")
WORKER, READER = "spawn_main", "wsi_norm.slide.apart"
HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

Limits = Mapping[int, int]


def wait_for(event: Callable[[], T], limit: float = LIMIT) -> T | None:
    """What an event gives once it is true; None where it was not within the limit."""
    until = time.monotonic() + limit
    while not (there := event()):
        if time.monotonic() > until:
            return None
        time.sleep(POLL)
    return there


class Command:
    """`wsi-norm` with some arguments (or any other program), in a session of its own.

    Leaving the `with` block kills whatever of it is left.
    """

    def __init__(
        self,
        *arguments: object,
        folder: Path,
        program: tuple[str, ...] = PROGRAM,
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        stdout: Path | None = None,
    ) -> None:
        self._mark = f"{MARK}={uuid4().hex}"
        self._said = folder / f"{uuid4().hex}.stderr"
        key, _, value = self._mark.partition("=")
        with self._said.open("wb") as err, Path(stdout or os.devnull).open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, *program, *map(str, arguments)],
                cwd=folder,
                env={**os.environ, key: value, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=partial(_begin, dict(limits or {})),
            )

    @property
    def main(self) -> int:
        """Process ID of the command itself."""
        return self._process.pid

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    @property
    def lines(self) -> list[str]:
        """What it said on stderr, but for progress."""
        said = self._said.read_text(errors="replace").splitlines()
        return [line for line in said if not line.startswith("[")]

    def wait_for(self, event: Callable[[], T], limit: float = LIMIT) -> T | None:
        """What an event gives; None where the command ended, or the limit came, before."""
        seen: T | None = None

        def happened() -> bool:
            nonlocal seen
            seen = event() or None
            return seen is not None or self.is_over

        wait_for(happened, limit)
        return seen

    def status(self, limit: float = LIMIT) -> int | None:
        """Exit status; None where it does not end within the limit."""
        try:
            return self._process.wait(limit)
        except subprocess.TimeoutExpired:
            return None

    def fork_servers(self) -> list[int]:
        """What its workers are forked from."""
        return self.processes("multiprocessing.forkserver")

    def processes(self, role: str = "") -> list[int]:
        """Its processes that live, those of a role (WORKER, READER) alone."""
        mark = self._mark.encode()
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                marked = mark in place.joinpath("environ").read_bytes()
                of_role = role.encode() in place.joinpath("cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if marked and of_role:
                found.append(int(place.name))
        return found

    def send(self, number: int, processes: list[int] | None = None) -> None:
        """A signal to some of its processes; to all, as a terminal sends it, if none is named."""
        for process in self.processes() if processes is None else processes:
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue

    def kill(self) -> None:
        """End all of it at once: until nothing of it is left, as some may be just starting."""

        def ended() -> bool:
            processes = self.processes()
            self.send(signal.SIGKILL, processes)
            return self._process.poll() is not None and not processes

        wait_for(ended)

    def are_gone(self, limit: float = LIMIT) -> bool:
        """Whether all of its processes end within the limit."""
        return wait_for(lambda: self.is_over and not self.processes(), limit) is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


def _begin(limits: Limits) -> None:
    """As from a terminal: signals are heard, also where this is started in the background."""
    for number in HEARD:
        signal.signal(number, signal.SIG_DFL)
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def complaint(lines: list[str], at_most: int) -> str:
    """What is wrong with what a command said: a traceback, or more lines than are good; or ''."""
    if any("Traceback" in line for line in lines):
        return f"a traceback: {lines[-1]}"
    told = [line for line in lines if not line.startswith("warning: ")]
    return f"{len(told)} lines, such as {told[0]!r}" if len(told) > at_most else ""
