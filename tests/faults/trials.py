"""Many trials without many starts: children forked from a process that has imported everything.

A child says what it does as it goes on. Where it says nothing for too long, takes too much memory
or dies, that is what came of the trial; the campaign goes on with another child.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ADDRESS_SPACE = 10 << 30
"""Of a child: a runaway ends there, not in the machine's memory."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.faults.warm"])

Say = Callable[[Any], None]


@dataclass
class Tried:
    """What came of a child.

    Attributes
    ----------
    said
        What it said as it went on, in order.
    value
        What its function returned.
    error
        A traceback, where it raised; "died" where its process ended without a word.
    hang
        It said nothing for longer than its limit, and was killed.
    peak_mb
        Its largest resident memory.
    """

    said: list[Any] = field(default_factory=list)
    value: Any = None
    error: str = ""
    hang: bool = False
    peak_mb: float = 0.0

    @property
    def good(self) -> bool:
        return not (self.error or self.hang)


def tried(function: Callable[..., Any], *arguments: Any, limit: float) -> Tried:
    """Let a child call `function(say, *arguments)`, a function at the top of a module.

    Parameters
    ----------
    limit
        Seconds from one word of it to the next.
    """
    receive, send = _context.Pipe(duplex=False)
    process = _context.Process(target=_child, args=(send, function, arguments), daemon=False)
    process.start()
    send.close()
    result = Tried()
    with receive:
        while True:
            if not receive.poll(limit):
                result.hang = True
                break
            try:
                kind, *content = receive.recv()
            except EOFError:
                result.error = "died"
                break
            if kind == "said":
                result.said += content
            else:
                result.value, result.error, result.peak_mb = content
                break
    if result.hang:
        process.kill()
    process.join()
    if result.error == "died":
        result.error = f"died (exit status {process.exitcode})"
    return result


def command_line(say: Say, arguments: list[Any]) -> tuple[int, list[str]]:
    """Exit status, and the lines on stderr, of the command line in this process."""
    from wsi_norm_cli.main import main

    with tempfile.TemporaryFile("w+b") as said:
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    assert isinstance(status, int)
    return status, [line for line in lines if not line.startswith("[")]


def _child(send: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    value, error = None, ""
    try:
        value = function(lambda word: send.send(("said", word)), *arguments)
    except BaseException:  # noqa: BLE001 whatever it is, the parent is told
        error = traceback.format_exc()
    send.send(("done", value, error, peak_mb()))


def peak_mb() -> float:
    """Largest resident memory of this process, or of one that it started and that has ended."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (own,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return max(int(own), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1e3
