"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 in every phase of a run: 130, one line, all gone soon."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

from tests.faults.commands import HEARD, Command
from tests.faults.kills import events, has_mapped
from tests.faults.outcomes import Outcome
from tests.faults.truth import Go, missing

GONE_SECONDS = 5
INTERRUPTED = 130
PHASES = ("imports", "workers start", "a draft is there", "one more shard", "four more shards")


def campaign(go: Go) -> Iterator[Outcome]:
    if go.quick:
        trials = [(signal.SIGINT, "workers start", 2), (signal.SIGTERM, "one more shard", 0)]
    else:
        trials = [(*both, 2) for both in product(HEARD, PHASES)]
        trials += [(*both, 0) for both in product(HEARD, ("a draft is there", "one more shard"))]
    if go.share < 1:
        trials = [trials[index] for index in go.rng("signals").permutation(len(trials))]
    for number, phase, workers in trials[: go.times(len(trials), len(trials))]:
        yield interrupted(go, number, phase, workers)
    for number in go.rng("verify").choice(HEARD, go.times(12, 1)).tolist():
        yield reading_interrupted(go, signal.Signals(number))


def reading_interrupted(go: Go, number: signal.Signals) -> Outcome:
    """A signal to `verify` while zarr reads, in a thread of its own."""
    assert go.truth
    store = go.folder / "truth" / "first.zarr"
    size = sum(file.stat().st_size for file in store.glob("tiles/c/**/*"))
    with Command("verify", *[store] * 8, folder=go.folder) as command:
        before = command.wait_for(lambda: has_mapped(command.main, b"zstd") and read_by(command))
        command.wait_for(lambda: read_by(command) > (before or 0) + 3 * size)
        command.send(number)
        status = command.status()
    problems = [] if status == INTERRUPTED else [f"exit status {status}"]
    problems += complaints(command)
    fault = f"{number.name} (verify)"
    return Outcome(fault, not problems, hang=status is None, why=", ".join(problems))


def read_by(command: Command) -> int:
    """Bytes that a command's process has read so far."""
    try:
        lines = Path(f"/proc/{command.main}/io").read_text().splitlines()
    except OSError:
        return 0
    return int(lines[0].split()[1])


def interrupted(go: Go, number: signal.Signals, phase: str, workers: int) -> Outcome:
    """A run that gets a signal, as all of its processes do where a terminal sends it."""
    fault, output = (
        f"{number.name} ({'--workers 0' if workers == 0 else 'workers'})",
        go.place("out"),
    )
    with go.run(output, "-n", workers) as command:
        if not command.wait_for(events(output, command)[phase]):
            return Outcome(fault, False, why=f"{phase} never came: {command.lines}")
        command.send(number, [command.main] if number == signal.SIGTERM else None)
        gone = command.are_gone(GONE_SECONDS)
        if not gone and not command.are_gone():
            return Outcome(fault, False, hang=True, why=f"{phase}: it does not end")
        status = command.status()
    problems = [
        *([] if gone else [f"not gone within {GONE_SECONDS} s"]),
        *([] if status == INTERRUPTED else [f"exit status {status}"]),
        *complaints(command),
    ]
    outcome = Outcome(fault, not problems, why=f"{phase}: {', '.join(problems)}" * bool(problems))
    if outcome.held and phase == PHASES[-1]:
        outcome = replace(gone_on(go, output), fault=fault)
    shutil.rmtree(output, ignore_errors=True)
    return outcome


def complaints(command: Command) -> list[str]:
    """One line of the interrupt, and nothing else but warnings."""
    told = [line for line in command.lines if not line.startswith("warning: ")]
    good = len(told) == 1 and "interrupted" in told[0]
    return [] if good else [f"{len(told)} lines, not one: {told}"]


def gone_on(go: Go, output: Path) -> Outcome:
    """The next run takes up what is there."""
    if missing(output) == 0:
        return Outcome("", survived=True)
    return go.ended(output)
