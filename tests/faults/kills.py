"""kill -9 of a whole run, its main process, a worker or the scheduler, and the run after it.

A chain is one output folder and one run after another, each killed at a random moment; the last is
left to its end. What is lost, double or wrong then counts for the chain's last kill.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.faults.commands import LIMIT, WORKER, Command, wait_for
from tests.faults.outcomes import Outcome
from tests.faults.truth import Go, shards_in

LINKS = 5
"""Kills in a chain."""

HERE = ("--host", "127.0.0.1", "--port", "0")
"""Of the scheduler: nobody else can reach it."""

FORK_SERVER = "kill -9: what workers are forked from"

Event = Callable[[], object]


def campaign(go: Go) -> Iterator[Outcome]:
    rng = go.rng("kills")
    for fault, times, workers in (
        ("kill -9: all processes", go.times(20, 0), 2),
        ("kill -9: all processes, --workers 0", go.times(15, 1), 0),
        ("kill -9: the main process", go.times(25, 0), 2),
    ):
        for start in range(0, times, LINKS):
            yield from chain(go, rng, fault, min(LINKS, times - start), workers)
    for _ in range(go.times(18, 0)):
        yield from workers_killed(go, rng, "kill -9: a worker, twice in a run", 2)
    yield from workers_killed(go, rng, "kill -9: a worker", 1)
    for _ in range(go.times(10, 0)):
        yield from workers_killed(go, rng, FORK_SERVER, 1)
    for _ in range(go.times(6, 0)):
        yield scheduler_killed(go)


def events(output: Path, command: Command) -> dict[str, Event]:
    """Moments of a run at which something may be done to it."""
    before = shards_in(output)
    return {
        "imports": lambda: has_mapped(command.main, b"llvmlite"),
        "workers start": lambda: command.processes(WORKER),
        "a draft is there": lambda: list(output.glob(".*.draft")),
        "a store is there": lambda: list(output.glob("*.zarr")),
        "a shard is being written": lambda: [
            *output.glob("*.zarr/tiles/c/*/0/0/*.partial"),
            *output.glob("*.zarr/pyramid/0/c/0/*/*.partial"),
        ],
        "one more shard": lambda: shards_in(output) > before,
        "four more shards": lambda: shards_in(output) > before + 3,
        "ten more shards": lambda: shards_in(output) > before + 9,
    }


def has_mapped(process: int, library: bytes) -> bool:
    """Whether a process has loaded a library."""
    try:
        return library in Path(f"/proc/{process}/maps").read_bytes()
    except OSError:
        return False


def chain(
    go: Go, rng: np.random.Generator, fault: str, kills: int, workers: int
) -> Iterator[Outcome]:
    """One folder, killed again and again, and finished at last."""
    output, done = go.place("chain"), 0
    while done < kills - 1:
        outcome = killed(go, rng, fault, output, workers)
        if outcome is None:  # it was finished before its moment came
            outcome = replace(go.ended(output), fault=fault)
            output = go.place("chain")
        yield outcome
        done += 1
    last = killed(go, rng, fault, output, workers) or Outcome(fault, survived=True)
    end = go.ended(output)
    shutil.rmtree(output)
    yield replace(end, fault=fault) if last.held else last


def killed(
    go: Go, rng: np.random.Generator, fault: str, output: Path, workers: int
) -> Outcome | None:
    """A run killed at some moment; None where it ended before."""
    with go.run(output, "-n", workers) as command:
        moments = events(output, command)
        if {"pyramid", "both"} & {*go.settings}:
            moments["levels are made"] = lambda: [*output.glob("*.zarr/pyramid/1/c/0/*/*")]
        moment = str(rng.choice([*moments]))
        if not command.wait_for(moments[moment]):
            ends = command.status() is not None
            return None if ends else Outcome(fault, False, hang=True, why="it does not end")
        main_alone = "main" in fault
        command.send(signal.SIGKILL, [command.main] if main_alone else None)
        if command.are_gone(LIMIT / 4):
            return Outcome(fault, survived=True)
        left = len(command.processes())
        return Outcome(fault, False, hang=True, why=f"{moment}: {left} processes are left")


def workers_killed(go: Go, rng: np.random.Generator, fault: str, kills: int) -> Iterator[Outcome]:
    """One run whose workers die; another comes in the place of each, and it ends well."""
    output = go.place("worker")
    with go.run(output, "-n", 2) as command:
        for done in range(kills):
            moments = events(output, command)
            for early in ("imports", "workers start", *(["a draft is there"] if done else [])):
                del moments[early]
            if not command.wait_for(moments[str(rng.choice([*moments]))]):
                break  # the run is over: a kill less
            of_all = fault == FORK_SERVER
            if workers := command.fork_servers() if of_all else command.processes(WORKER):
                command.send(signal.SIGKILL, [int(rng.choice(workers))])
                if done + 1 < kills:
                    yield Outcome(fault, survived=True)
        status = command.status()
    if status is None:
        yield Outcome(fault, False, hang=True, why=f"it does not end: {command.lines}")
        return
    end = go.ended(output)
    shutil.rmtree(output)
    why = end.why or (f"exit status {status}: {command.lines}" if status else "")
    yield replace(end, fault=fault, survived=end.survived and status == 0, why=why)


def scheduler_killed(go: Go) -> Outcome:
    """A scheduler of the user's own that dies: the run ends and says so; the next goes on."""
    fault, output = "kill -9: the scheduler of --scheduler", go.place("scheduler")
    file = output / "scheduler.json"
    quiet = {"program": ("-m", "distributed.cli.dask_scheduler"), "folder": go.folder}
    with (
        Command(*HERE, "--no-dashboard", "--scheduler-file", file, **quiet) as scheduler,
        Command(
            *("--scheduler-file", file, "--nworkers", 1, "--nthreads", 1, "--no-dashboard"),
            program=("-m", "distributed.cli.dask_worker"),
            folder=go.folder,
        ),
    ):
        address = wait_for(lambda: _address(file))
        with go.run(output, "--scheduler", address) as command:
            if not command.wait_for(lambda: shards_in(output) > 1):
                return Outcome(fault, False, hang=True, why=f"no shard: {command.lines}")
            scheduler.kill()
            status = command.status()
    if status is None:
        return Outcome(fault, False, hang=True, why=f"the run does not end: {command.lines}")
    end = go.ended(output)
    wrong = f"exit status {status}, {len(command.lines)} lines: {command.lines}"
    good = status == 1 and 0 < len(command.lines) <= 3
    why = end.why or ("" if good else wrong)
    return replace(end, fault=fault, survived=end.survived and good, why=why)


def _address(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_text())["address"])
    except (OSError, ValueError):
        return None
