"""Processes that stand still (SIGSTOP, a suspended node): a worker, the main one, all of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tests.faults.commands import LIMIT, WORKER, Command, wait_for
from tests.faults.outcomes import Outcome
from tests.faults.truth import Go, shards_in

STANDING_SECONDS = 10
"""How long what goes on again had stood still: longer than dask's heartbeats."""

GIVEN_UP = ("--task-timeout", "10")
"""After so many seconds without progress a worker is replaced."""


def campaign(go: Go) -> Iterator[Outcome]:
    for _ in range(go.times(4, 0)):
        yield thawed(go, "frozen and thawed: all processes", lambda command: command.processes())
        yield thawed(go, "frozen and thawed: the main process", lambda command: [command.main])
    for _ in range(go.times(4, 1)):
        yield frozen(go)


def thawed(go: Go, fault: str, whom: Callable[[Command], list[int]]) -> Outcome:
    """A run that stood still for a while goes on as if nothing had been."""
    output = go.place("frozen")
    with go.run(output, "-n", 2) as command:
        if not command.wait_for(lambda: shards_in(output) > 2):
            return Outcome(fault, False, why=f"no shard: {command.lines}")
        processes = whom(command)
        command.send(signal.SIGSTOP, processes)
        wait_for(lambda: False, STANDING_SECONDS)
        command.send(signal.SIGCONT, processes)
        status = command.status()
    return _after(go, output, fault, command, status)


def frozen(go: Go) -> Outcome:
    """A worker that never goes on: its tasks are another's, and this is said."""
    fault, output = "frozen for good: a worker", go.place("frozen")
    with go.run(output, "-n", 2, *GIVEN_UP) as command:
        if not command.wait_for(lambda: shards_in(output) > 2):
            return Outcome(fault, False, why=f"no shard: {command.lines}")
        command.send(signal.SIGSTOP, command.processes(WORKER)[:1])
        status = command.status(LIMIT)
    outcome = _after(go, output, fault, command, status)
    if outcome.held and not command.lines:
        return replace(outcome, survived=False, why="nothing is said of the frozen worker")
    return outcome


def _after(go: Go, output: Path, fault: str, command: Command, status: int | None) -> Outcome:
    if status is None:
        return Outcome(fault, False, hang=True, why=f"the run does not end: {command.lines}")
    end = go.ended(output)
    why = end.why or (f"exit status {status}: {command.lines}" if status else "")
    return replace(end, fault=fault, survived=end.survived and status == 0, why=why)
