"""The machine: what of it this process may use, and what is installed on it.

In a container or under SLURM that is less than the machine has: cgroups of both versions, by their
files as of Linux's documentation (cgroup-v1/memory.rst, scheduler/sched-bwc.rst, cgroup-v2.rst).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from wsi_norm.choices import DEVICE
from wsi_norm.errors import ConfigError

KEEP_BYTES = 1 << 30
"""As much freed memory as this stays with a process."""

WORKER_BYTES, COMMAND_BYTES = 450 << 20, 600 << 20
"""Memory that a worker process needs, with tiles of 256 px, and the command itself."""

GPU_NODES = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "dxg", "kfd")
"""In /dev, of the drivers of NVIDIA's cards and boards, of WSL, and of AMD."""

MIN_GPU_THREADS, MAX_GPU_THREADS = 4, 32

ROOT = Path("/")


def available_cores(root: Path = ROOT) -> int:
    """Cores this process may use, at least 1; of a quota's last core the whole or nothing.

    `root` is where `proc` and `sys` lie.
    """
    limits: list[float] = [_scheduled_cores()]
    for group in _cgroups("cpu", root):
        older = _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        match _words(group / "cpu.max") or older:
            case [quota, period] if quota not in {"max", "-1"}:
                limits.append(int(quota) / int(period))
    return max(1, int(min(limits)))


def memory_bytes(root: Path = ROOT) -> float:
    """Memory this process and those that it starts may have together; infinity if nothing says.

    Of the machine, or as far as a cgroup allows; `root` as in `available_cores`.
    """
    limits = [math.inf]
    for line in _text(root / "proc" / "meminfo").splitlines():
        match line.split():
            case ["MemTotal:", kib, "kB"]:
                limits.append(int(kib) * 1024)
    for group in _cgroups("memory", root):
        match _words(group / "memory.max") or _words(group / "memory.limit_in_bytes"):
            case [limit] if limit not in {"max", "-1"}:
                limits.append(int(limit))
    return min(limits)


def default_workers(root: Path = ROOT) -> tuple[int, str | None]:
    """Worker processes without a GPU: one per core, as far as memory allows; if fewer, why."""
    cores, memory = available_cores(root), memory_bytes(root)
    if memory >= COMMAND_BYTES + cores * WORKER_BYTES:
        return cores, None
    number = max(1, int((memory - COMMAND_BYTES) / WORKER_BYTES))
    if number == cores:
        return cores, None
    return number, (
        f"{number} worker process{'es' if number > 1 else ''} for {cores} cores: "
        f"{memory / 2**30:.1f} GiB of memory allow no more (--workers N decides otherwise)"
    )


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def open_files() -> float:
    """How many files this process may have open at once; infinity where nothing says."""
    if sys.platform == "win32":
        return math.inf
    import resource

    number, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if number == resource.RLIM_INFINITY else number


def resolve_device(device: str) -> str:
    """The device that "auto", "cpu", "cuda" or "cuda:i" names here: "cpu" or "cuda:i".

    PyTorch is imported only where there may be a CUDA device, or is one asked for.

    Raises
    ------
    ConfigError
        There is no such device here.
    """
    if device == "cpu" or (device == "auto" and not _may_have_cuda()):
        return "cpu"
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    match = DEVICE.fullmatch(device)
    if match is None:
        raise ConfigError(f"device {device!r} is none of auto, cpu, cuda, cuda:0, cuda:1 ...")
    if not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: this PyTorch sees no CUDA device; use --device cpu")
    index = int(match[1] or 0)
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r}: only {torch.cuda.device_count()} CUDA device(s) here"
        )
    return f"cuda:{index}"


def one_thread() -> None:
    """Let PyTorch, where it is loaded, compute in this thread alone.

    As many tasks as cores run at once, and sums keep their order. It has to be said in the task:
    dask's threads do not take it over from elsewhere.
    """
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


def _may_have_cuda(root: Path = ROOT) -> bool:
    """Whether there is a driver's device, without which there is no CUDA."""
    if sys.platform == "linux":
        return any(any((root / "dev").glob(name)) for name in GPU_NODES)
    return sys.platform != "darwin"


def gpu_threads(gpus: int) -> int:
    """Threads of a GPU's worker: twice its share of the cores.

    While one waits for the device, the others keep every core at decoding and encoding.
    """
    return min(max(2 * available_cores() // gpus, MIN_GPU_THREADS), MAX_GPU_THREADS)


def package_version() -> str:
    """The version of this package."""
    return version_of("wsi-norm")


@cache
def version_of(package: str) -> str:
    """The version of an installed package, which takes a millisecond to look up."""
    return version(package)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of packages; "absent" where one is not installed, which only numba may be."""
    found = {}
    for package in packages:
        try:
            found[package] = version_of(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def malloc_environment() -> dict[str, str]:
    """What lets glibc keep freed memory for the next tile, in processes that are to be started.

    Dask asks it to give every page back at once; the page faults that follow more than double the
    time of the layer (measured: 88 against 33 ms a tile of 256 px), and are a sixth of a
    training's. What is set already stays.
    """
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    return {name: str(KEEP_BYTES) for name in names if name not in os.environ}


def _scheduled_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the groups this process is in, and of those above: each of them limits it.

    Inside a container the path may be the host's, while the container's own group lies at the top.
    """
    mounts = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = mounts / controller if controllers else mounts  # version 2 has one for all
        group = PurePosixPath(path)
        for place in (group, *group.parents):
            yield mount / place.relative_to("/")


def _words(file: Path) -> list[str]:
    return _text(file).split()


def _text(file: Path) -> str:
    """A file of the kernel; empty where there is none."""
    try:
        return file.read_text()
    except OSError:
        return ""
