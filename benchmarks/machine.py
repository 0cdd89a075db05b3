"""The machine: what it is, and a function run in a process of its own, measured."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from wsi_norm.machine import available_cores

PACKAGES = """
wsi-norm torch kornia numba numpy zarr simplejpeg dask distributed openslide-python openslide-bin
tiffslide tifffile imagecodecs h5py webdataset opencv-python-headless torchstain stainx fastslide
wsi-patching
"""

CPU_EVERY_S = 0.25

HELPERS = "multiprocessing.resource_tracker", "multiprocessing.forkserver"
"""Processes that Python starts beside those that work."""


def facts() -> dict[str, Any]:
    """CPU, cores, RAM, versions and date."""
    return {
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": _versions(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


@dataclass
class Watched:
    """A command that has ended: when, and what its processes took meanwhile.

    Attributes
    ----------
    started, ended
        Seconds since the epoch, from its launch until it was gone.
    failed
        Why it failed, in a line; empty if it did not.
    cpu
        (when, CPU seconds of all its processes until then), from early to late.
    worker_bytes
        Largest proportional set size of each process that did the work, by its number.
    other_bytes
        The same of all others together.
    """

    started: float = 0.0
    ended: float = 0.0
    failed: str = ""
    cpu: list[tuple[float, float]] = field(default_factory=list)
    worker_bytes: dict[int, int] = field(default_factory=dict)
    other_bytes: int = 0

    def cpu_s(self, start: float, end: float) -> float:
        """CPU seconds between two times."""
        times, spent = zip((self.started, 0.0), *self.cpu, strict=True)
        return float(np.diff(np.interp((start, end), times, spent))[0])


def watched(command: Sequence[str], timeout_s: float = 600, look_s: float = 1.0) -> Watched:
    """Run a command to its end; `look_s`: how often its memory is looked at."""
    with tempfile.TemporaryDirectory() as folder:
        log, found, ended = Path(folder, "log"), Watched(time.time()), threading.Event()
        with log.open("w") as stream:
            process = subprocess.Popen(
                command, stdout=stream, stderr=stream, start_new_session=True
            )
            late = threading.Timer(timeout_s, os.killpg, (process.pid, signal.SIGKILL))
            watch = threading.Thread(target=_watch, args=(process.pid, found, ended, look_s))
            late.start()
            watch.start()
            status = process.wait()
            found.ended = time.time()
            in_time = late.is_alive()
            late.cancel()
            ended.set()
            watch.join()
        if len(found.worker_bytes) > 1:  # before it started others it was alone
            found.worker_bytes.pop(process.pid, None)
        if status:
            found.failed = last_line(log) if in_time else f"not done in {timeout_s:g} s"
        return found


def child(function: str, timeout_s: float = 600, **arguments: Any) -> dict[str, Any]:
    """Call "module:function" in a new process: its dict, or only `failed`, the reason in a line."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        failed = watched(child_command(function, answer, **arguments), timeout_s).failed
        return {"failed": failed} if failed else json.loads(answer.read_text())


def child_command(function: str, answer: Path, **arguments: Any) -> list[str]:
    """The command that leaves a function's dict as JSON."""
    call = ["-m", "benchmarks.child", function, str(answer), json.dumps(arguments)]
    return [sys.executable, *call]


def _watch(pid: int, found: Watched, ended: threading.Event, look_s: float) -> None:
    cpu: dict[int, float] = {}
    look_at = time.time() + look_s / 2
    while not ended.wait(CPU_EVERY_S):
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
            for process in tree:
                with suppress(psutil.NoSuchProcess):
                    cpu[process.pid] = sum(process.cpu_times()[:2])
            found.cpu.append((time.time(), sum(cpu.values())))
            if time.time() > look_at:
                _look(tree, found)
                look_at = time.time() + look_s


def _look(tree: Sequence[psutil.Process], found: Watched) -> None:
    """Memory of a process and its descendants. Those that start no other do the work."""
    parents, others = set(), 0
    for process in tree[1:]:
        with suppress(psutil.NoSuchProcess):
            parents.add(process.ppid())
    for process in tree:
        with suppress(psutil.Error):
            memory = process.memory_full_info()
            size = getattr(memory, "pss", memory.uss)  # the former on Linux alone
            command = " ".join(process.cmdline())
            if process.pid in parents or any(helper in command for helper in HELPERS):
                others += size
            else:
                found.worker_bytes[process.pid] = max(size, found.worker_bytes.get(process.pid, 0))
    found.other_bytes = max(found.other_bytes, others)


def last_line(log: Path) -> str:
    """The last words of a process, short enough for a table."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0]]
    return ((errors or lines or ["it died without a word"])[-1])[:160].replace("|", "/")


class Clock:
    """When how many tiles were done, and now and then what the process tree had spent by then."""

    def __init__(self) -> None:
        self.ticks: list[tuple[float, int]] = []
        self._cpu: list[tuple[float, int, float]] = []

    def tick(self, tiles: int = 0) -> None:
        """`tiles` more are done."""
        now, done = time.time(), tiles + (self.ticks[-1][1] if self.ticks else 0)
        self.ticks.append((now, done))
        if not self._cpu or now - self._cpu[-1][0] > CPU_EVERY_S:  # asking costs milliseconds
            self._cpu.append((now, done, _tree_cpu_s()))

    def rate(self) -> dict[str, Any]:
        """Steady figures, from the first tick to the last."""
        (t0, n0), (t1, n1) = self.ticks[0], self.ticks[-1]
        (_, m0, cpu0), (_, m1, cpu1) = self._cpu[0], self._cpu[-1]
        return {
            "tiles": n1 - n0,
            "tiles_per_s": (n1 - n0) / (t1 - t0),
            "cpu_ms_per_tile": 1e3 * (cpu1 - cpu0) / (m1 - m0) if m1 > m0 else float("nan"),
        }


def _tree_cpu_s() -> float:
    total, me = 0.0, psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return (models or [platform.processor() or platform.machine()])[0]


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES.split():
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
