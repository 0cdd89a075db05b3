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
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from wsi_norm.machine import available_cores

PACKAGES = """
wsi-norm torch kornia numba numpy zarr simplejpeg dask distributed openslide-python openslide-bin
tiffslide tifffile imagecodecs h5py webdataset opencv-python-headless torchstain stainx fastslide
wsi-patching
"""


CPU_EVERY_S = 0.4


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


def child(function: str, timeout_s: float = 600, **arguments: Any) -> dict[str, Any]:
    """Call "module:function" in a new process: its result, with the cost of the process tree.

    Returns
    -------
    The function's dict and `wall_s`, `cpu_s` (user + system), `peak_mb` (largest process of the
    tree); or only `failed`, the reason in a line.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder, "answer.json"), Path(folder, "log")
        command = [sys.executable, "-m", "benchmarks.child", function, str(answer)]
        start = time.time()
        with log.open("w") as stream:
            process = subprocess.Popen(
                [*command, json.dumps(arguments)],
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            late = threading.Timer(timeout_s, os.killpg, (process.pid, signal.SIGKILL))
            late.start()
            _, status, usage = os.wait4(process.pid, 0)
            in_time = late.is_alive()
            late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if not in_time:
            return {"failed": f"not done in {timeout_s:g} s"}
        if process.returncode or not answer.exists():
            return {"failed": last_line(log)}
        return {
            **json.loads(answer.read_text()),
            "started": start,
            "wall_s": time.time() - start,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_mb": usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        }


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
            "steady_s": t1 - t0,
            "ready_at": t0,
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
