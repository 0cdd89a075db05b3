"""Few files, little memory, small address spaces, no place for temporary files: done, or a line."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace

from tests.faults.commands import complaint
from tests.faults.outcomes import Outcome
from tests.faults.truth import Go

GIB = 1 << 30
LINES = 4


def campaign(go: Go) -> Iterator[Outcome]:
    files = (32, 64, 16, 128)[: go.times(4, 0)]
    for number in files:
        yield limited(go, f"open files limited to {number}", 1, {resource.RLIMIT_NOFILE: number})
    sizes = (1, 2, 0.5, 1.5, 3, 4)[: go.times(6, 1)]
    for size in sizes:
        limits = {resource.RLIMIT_AS: int(size * GIB)}
        for workers in (0, 1) if not go.quick else (0,):
            how = "workers" if workers else "--workers 0"
            yield limited(go, f"address space limited ({how})", workers, limits)
    if not go.quick:
        for workers in (0, 1):
            yield limited(go, "no folder for temporary files", workers, {}, TMPDIR="/proc/nowhere")
            yield limited(go, "no home, no cache", workers, {}, HOME="/proc/nowhere")


def limited(
    go: Go, fault: str, workers: int, limits: dict[int, int], **environment: str
) -> Outcome:
    """A run that may end well or with a line; the one after it, without limits, ends well."""
    output = go.place("limits")
    with go.run(output, "-n", workers, limits=limits, environment=environment) as command:
        status = command.status()
        if status is None:
            return Outcome(fault, False, hang=True, why=f"it does not end: {command.lines}")
    end = go.ended(output)
    shutil.rmtree(output)
    wrong = complaint(command.lines, LINES)
    if status and not command.lines:
        wrong = f"exit status {status} without a word"
    elif status not in {0, 1, 2}:
        wrong = f"exit status {status}: {command.lines[-1:]}"
    why = end.why or (f"{limits} {wrong}" if wrong else "")
    return replace(end, fault=fault, survived=end.survived and not wrong, why=why)
