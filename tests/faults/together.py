"""Two runs on one folder: of other settings they never mix, of the same settings they help."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from tests.faults.outcomes import Outcome
from tests.faults.truth import Go, Tiles, held, shards_in, tiles_of

OTHER = ("--ckpt", "paper")


def campaign(go: Go) -> Iterator[Outcome]:
    for _ in range(go.times(4, 0)):
        yield held_up(go)
    for _ in range(go.times(4, 0)):
        yield beside(go)


def held_up(go: Go) -> Outcome:
    """The older run stands still while a younger one starts anew with another checkpoint."""
    fault, output = "two runs: the older held up, the younger with --overwrite", go.place("two")
    with go.run(output, "-n", 1) as older:
        if not older.wait_for(lambda: shards_in(output) > 3):
            return Outcome(fault, False, why=f"no shard: {older.lines}")
        older.send(signal.SIGSTOP)
        with go.run(output, "-n", 1, "--overwrite", *OTHER) as younger:
            first = younger.status()
        older.send(signal.SIGCONT)
        second = older.status()
    if first is None or second is None:
        return Outcome(fault, False, hang=True, why=f"they end with {first}, {second}")
    outcome = held(output, of_other(go.folder), whole=True)
    said = f"they end with {first} and {second}: {older.lines[-1:]}"
    good = first == 0 and second == 1 and bool(older.lines)
    shutil.rmtree(output)
    why = f"{said}; {outcome.why}" if outcome.why or not good else ""
    return replace(outcome, fault=fault, survived=outcome.survived and good, why=why)


def beside(go: Go) -> Outcome:
    """A second run of the same settings that begins in the middle of the first."""
    fault, output = "two runs of the same settings", go.place("two")
    with go.run(output, "-n", 1) as first:
        if not first.wait_for(lambda: shards_in(output) > 1):
            return Outcome(fault, False, why=f"no shard: {first.lines}")
        with go.run(output, "-n", 1) as second:
            statuses = first.status(), second.status()
    if None in statuses:
        return Outcome(fault, False, hang=True, why=f"they end with {statuses}")
    outcome = held(output, go.truth, whole=0 in statuses)
    shutil.rmtree(output)
    if outcome.held and statuses != (0, 0):
        said = [*first.lines, *second.lines]
        return Outcome(fault, False, why=f"they end with {statuses}: {said[-2:]}")
    return replace(outcome, fault=fault)


@cache
def of_other(folder: Path) -> Mapping[str, Tiles]:
    """Tiles of an undisturbed run with the other checkpoint."""
    go, output = Go(folder), folder / "truth_of_other"
    with go.run(output, "-n", 2, *OTHER) as command:
        assert command.status() == 0, command.lines
    return {store.stem: tiles_of(store) for store in sorted(output.glob("*.zarr"))}
