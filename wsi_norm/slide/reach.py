"""Whether paths answer: one on a mount that is gone holds whoever touches it, for ever."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ANSWER_SECONDS = 30.0
"""How long a path may take to be opened."""

AT_ONCE = 256
"""Paths that are asked for at the same time: so many dead ones cost one wait."""

LOOK = f"""
import os, stat, sys, threading
places = sys.stdin.buffer.read().split(b"\\0")
numbers = iter(range(len(places)))
turn = threading.Lock()
def look():
    while True:
        with turn:
            number = next(numbers, None)
        if number is None:
            return
        try:
            if stat.S_IFMT(os.stat(places[number]).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                os.close(os.open(places[number], os.O_RDONLY))
        except OSError:
            pass
        os.write(1, b"%d " % number)
threads = [threading.Thread(target=look, daemon=True) for _ in places[:{AT_ONCE}]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
"""What the process does that can be ended: open every place, and tell whose turn is over."""


def silent(places: Iterable[Path], seconds: float | None = None) -> set[Path]:
    """Those of some places that do not answer in time, be it that they are there or not.

    Parameters
    ----------
    places
        Files and folders.
    seconds
        How long nothing may be heard of any of them; None for ANSWER_SECONDS.
    """
    waiting = list(dict.fromkeys(places))
    found: set[Path] = set()
    while waiting:
        heard = _heard(waiting, ANSWER_SECONDS if seconds is None else seconds)
        waiting = [place for number, place in enumerate(waiting) if number not in heard]
        found.update(waiting[:AT_ONCE])
        waiting = waiting[AT_ONCE:]
    return found


def _heard(places: list[Path], seconds: float) -> set[int]:
    """The numbers of the places that answer before nothing is heard for too long."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", "-c", LOOK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = b""
    with process.stdin, process.stdout, selectors.DefaultSelector() as selector:
        process.stdin.write(b"\0".join(map(os.fsencode, places)))
        process.stdin.close()
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(seconds) and (more := os.read(process.stdout.fileno(), 1 << 16)):
            said += more
    heard = {int(number) for number in said.split()}
    if len(heard) == len(places):
        process.wait()
    else:  # what hangs in the kernel may not even die, and is not waited for
        process.kill()
        process.returncode = -signal.SIGKILL
    return heard
